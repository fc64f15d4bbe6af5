/** Notifications: a request for approval, and the end of a turn that nobody is looking at. */

import { Notification } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { News, Roster } from '../shared/roster';
import { escapeInvisible, shorten } from '../shared/text';

const SHOWN = 300;

export interface NewsOptions {
  roster: Roster;
  trans: TranslationBundle;
  open: (id: string) => void;
  /** Whether the session can be seen right now. */
  visible: (id: string) => boolean;
  enabled: () => { approvals: boolean; turns: boolean };
}

export function announce({ roster, trans, open, visible, enabled }: NewsOptions): () => void {
  const asked = new Map<string, string>();
  let timer: ReturnType<typeof setInterval> | undefined;
  const withdraw = (id: string): void => {
    const known = asked.get(id);
    asked.delete(id);
    if (known) Notification.dismiss(known);
    if (!asked.size) clearInterval(timer);
  };
  /** A panel that was opened since asks by itself, and the notification would lie on it. */
  const look = (): void => {
    for (const id of [...asked.keys()]) if (visible(id)) withdraw(id);
  };
  /** A notification cannot show a whole call, so it leads to the panel that does; only a denial is safe unseen. */
  const ask = (news: News & { kind: 'approval' }): void => {
    const { row, approval } = news;
    withdraw(row.id);
    const id = Notification.warning(`${trans.__('%1 asks for permission', row.name)}: ${shorten(escapeInvisible(approval.shown), SHOWN)}`, {
      autoClose: false,
      actions: [
        { label: trans.__('Show request'), callback: () => open(row.id), displayType: 'accent' },
        { label: trans.__('Deny'), callback: () => roster.command('deny', row.id, approval.toolUseId), displayType: 'warn' }
      ]
    });
    asked.set(row.id, id);
    clearInterval(timer);
    timer = setInterval(look, 1000);
  };
  return roster.follow(news => {
    const { row } = news;
    if (news.kind === 'decided') return withdraw(row.id);
    if (visible(row.id)) return undefined; // the panel itself asks, and tells
    if (news.kind === 'approval') return enabled().approvals ? ask(news) : undefined;
    if (!enabled().turns) return undefined;
    const actions = [{ label: trans.__('Open'), callback: () => open(row.id) }];
    if (news.kind === 'finished') Notification.info(trans.__('%1 has finished', row.name), { autoClose: 8000, actions });
    else Notification.error(trans.__('%1 has failed: %2', row.name, row.text), { autoClose: false, actions });
    return undefined;
  });
}
