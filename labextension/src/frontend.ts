/** The server's own modules, loaded when needed, so that JupyterLab and the notebook's widgets share one copy. */

import { PageConfig } from '@jupyterlab/coreutils';
import type * as agents from '../panel/agents';
import type * as panel from '../panel/panel';
import type * as runs from '../panel/runs';
import type { Address } from '../shared/address';

export type PanelModule = typeof panel;
export type AgentsModule = typeof agents;
export type RunsModule = typeof runs;

export function address(): Address {
  const url = new URL(PageConfig.getBaseUrl(), location.href).href;
  return { baseUrl: url.endsWith('/') ? url : `${url}/`, token: PageConfig.getToken() };
}

async function load<T>(name: string): Promise<T> {
  const url = `${address().baseUrl}cambio/static/${name}`;
  return (await import(/* webpackIgnore: true */ url)) as T;
}

export const loadPanel = (): Promise<PanelModule> => load('panel.js');
export const loadAgents = (): Promise<AgentsModule> => load('agents.js');
export const loadRuns = (): Promise<RunsModule> => load('runs.js');
