import { LabIcon } from '@jupyterlab/ui-components';

const agent = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" width="16">
  <path class="jp-icon3" fill="#616161" d="M3 4h18a1 1 0 011 1v12a1 1 0 01-1 1h-7v2h3v1.500H7V20h3v-2H3a1 1 0 01-1-1V5a1 1 0 011-1zm.7 1.700v10.600h16.600V5.700z"/>
  <path class="jp-icon3" fill="#616161" d="M9.500 7.500l6.800 4.300-3 .6 1.600 2.900-1.300.7-1.600-2.900-2.200 2z"/>
</svg>`;

export const agentIcon = new LabIcon({ name: 'cambio-lab:agent', svgstr: agent });

const run = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" width="16">
  <path class="jp-icon3" fill="#616161" d="M3 4h18v16H3zm2 2v2h2V6zm12 0v2h2V6zM5 10v4h14v-4zm0 6v2h2v-2zm12 0v2h2v-2zM9 6v2h6V6zm0 10v2h6v-2z"/>
</svg>`;

export const runIcon = new LabIcon({ name: 'cambio-lab:run', svgstr: run });
