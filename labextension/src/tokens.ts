/** What other extensions can require of ours, apart from anything that acts. */

import type { IWidgetTracker, MainAreaWidget } from '@jupyterlab/apputils';
import { Token } from '@lumino/coreutils';
import type { Widget } from '@lumino/widgets';
import type { Roster } from '../shared/roster';
import type { Mode } from '../shared/views/panel';

/** A session's desktop, its chat, or both. */
export interface ISessionContent extends Widget {
  readonly sessionId: string;
  readonly mode: Mode;
}

export type SessionTab = MainAreaWidget<ISessionContent>;

export interface IAgents {
  /** The tabs that show sessions. */
  readonly tabs: IWidgetTracker<SessionTab>;
  /** All sessions of the server with what they do, once the page is up. */
  readonly roster: Promise<Roster>;
  /** Shows a session in a tab and brings it to the front. */
  open(id: string, mode?: Mode): SessionTab;
}

export const IAgents = new Token<IAgents>('cambio-lab:IAgents', "The server's agent sessions, and the tabs that show them.");
