/** Constants of the plugin, apart from anything that acts. */

export const NAMESPACE = 'cambio-lab';

export const PLUGIN = {
  agents: 'cambio-lab:agents',
  toolbar: 'cambio-lab:toolbar',
  runs: 'cambio-lab:runs'
} as const;

/** Names under which the settings list the items of our toolbars. */
export const TOOLBAR = { session: 'Agent session', run: 'Recorded run' } as const;

export const COMMAND = {
  create: 'cambio-lab:new',
  open: 'cambio-lab:open',
  desktop: 'cambio-lab:open-desktop',
  chat: 'cambio-lab:open-chat',
  stop: 'cambio-lab:stop',
  stopAll: 'cambio-lab:stop-all',
  pause: 'cambio-lab:pause',
  resume: 'cambio-lab:resume',
  end: 'cambio-lab:end',
  copyId: 'cambio-lab:copy-id',
  download: 'cambio-lab:download-run',
  view: 'cambio-lab:view-run',
  pair: 'cambio-lab:pair-runs',
  export: 'cambio-lab:export-run',
  remove: 'cambio-lab:delete-run',
  attach: 'cambio-lab:insert-code',
  focus: 'cambio-lab:show-agents',
  compare: 'cambio-lab:compare-runs'
} as const;

export const SELECTOR = '.jp-Cambio-agent';
