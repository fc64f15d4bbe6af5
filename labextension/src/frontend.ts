/** The server's own modules, loaded when needed, so that JupyterLab and the notebook's widgets share one copy. */

import { PageConfig } from '@jupyterlab/coreutils';
import type * as agents from '../panel/agents';
import type * as panel from '../panel/panel';
import type * as runs from '../panel/runs';
import { makeAddress, moduleUrl, type Address } from '../shared/address';

export type PanelModule = typeof panel;
export type AgentsModule = typeof agents;
export type RunsModule = typeof runs;

export function address(): Address {
  return makeAddress(PageConfig.getBaseUrl(), location.href, PageConfig.getToken());
}

/** Tries thrice: a browser drops what it is fetching when the computer's networks change. */
async function load<T>(name: string, tries = 3): Promise<T> {
  // Under the same address a browser may remember that a module could not be had.
  const url = moduleUrl(address(), name) + (tries < 3 ? `?${tries}` : '');
  try {
    return (await import(/* webpackIgnore: true */ url)) as T;
  } catch (error) {
    if (tries <= 1) throw error;
    await new Promise(done => setTimeout(done, 1000));
    return load(name, tries - 1);
  }
}

export const loadPanel = (): Promise<PanelModule> => load('panel.js');
export const loadAgents = (): Promise<AgentsModule> => load('agents.js');
export const loadRuns = (): Promise<RunsModule> => load('runs.js');
