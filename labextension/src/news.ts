/** Notifications: a request for approval, and the end of a turn that is not on the screen. */

import type { Notification } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { News, Roster } from '../shared/roster';
import { tellWhenHidden } from '../shared/tell';
import { escapeInvisible, plain, shorten } from '../shared/text';

/** Characters of a notification that JupyterLab shows. */
const SHOWN = 140;

export interface NewsOptions {
  /** JupyterLab's notifications. */
  notify: Pick<typeof Notification, 'warning' | 'info' | 'error' | 'dismiss'>;
  roster: Roster;
  trans: TranslationBundle;
  open: (id: string) => void;
  /** Whether a panel of the session is on the screen. */
  visible: (id: string) => boolean;
  /** Whether its row in the list is, which has the answers of an approval beside the whole call. */
  listed: (id: string) => boolean;
  /** Whether the cell is, whose `send` shows the turns of the session with this name. */
  told: (name: string) => boolean;
  enabled: () => { approvals: boolean; turns: boolean };
}

export function announce({ notify, roster, trans, open, visible, listed, told, enabled }: NewsOptions): () => void {
  const shown = new Map<string, string>();
  /** What waits for a person, wherever it is shown. */
  const waiting = new Map<string, News & { kind: 'approval' | 'question' }>();
  let timer: ReturnType<typeof setInterval> | undefined;
  const withdraw = (id: string): void => {
    const known = shown.get(id);
    shown.delete(id);
    if (known) notify.dismiss(known);
  };
  /** A panel that was opened since asks by itself, and the notification would lie on it; one that was left does not. */
  const look = (): void => {
    for (const id of [...shown.keys()]) if (visible(id)) withdraw(id);
    for (const [id, news] of waiting) if (!shown.has(id)) tell(news);
    if (!shown.size && !waiting.size) clearInterval(timer);
  };
  const watch = (): void => {
    clearInterval(timer);
    timer = setInterval(look, 1000);
  };
  const show = (id: string, notification: string): void => {
    shown.set(id, notification);
    watch();
  };
  /** A call that fits is shown whole, with both answers; a longer one leads to the panel: only a denial is safe unseen. */
  const ask = (news: News & { kind: 'approval' }): void => {
    const { row, approval } = news;
    withdraw(row.id);
    const words = `${trans.__('%1 asks for permission', row.name)}: ${escapeInvisible(approval.shown)}`;
    const whole = words.length <= SHOWN;
    const id = notify.warning(shorten(words, SHOWN), {
      autoClose: false,
      actions: [
        whole
          ? { label: trans.__('Approve'), callback: () => roster.decide(true, row.id, approval), displayType: 'accent' }
          : { label: trans.__('Show request'), callback: () => open(row.id), displayType: 'accent' },
        { label: trans.__('Deny'), callback: () => roster.decide(false, row.id, approval), displayType: 'warn' }
      ]
    });
    show(row.id, id);
  };
  /** A question is answered where it can be read whole. */
  const question = (news: News & { kind: 'question' }): void => {
    const { row } = news;
    withdraw(row.id);
    const words = `${trans.__('%1 asks', row.name)}: ${plain(news.question.question)}`;
    const actions = [{ label: trans.__('Show question'), callback: () => open(row.id), displayType: 'accent' as const }];
    show(row.id, notify.warning(shorten(words, SHOWN), { autoClose: false, actions }));
  };
  const tell = (news: News & { kind: 'approval' | 'question' }): void => {
    if (!enabled().approvals || visible(news.row.id)) return; // the panel itself asks
    if (news.kind === 'question') question(news);
    else if (!listed(news.row.id)) ask(news);
  };
  return roster.follow(news => {
    const { row } = news;
    waiting.delete(row.id);
    if (news.kind === 'approval')
      tellWhenHidden(trans.__('%1 asks for permission', row.name), escapeInvisible(news.approval.shown), () => open(row.id));
    if (news.kind === 'question') tellWhenHidden(trans.__('%1 asks', row.name), plain(news.question.question), () => open(row.id));
    if (news.kind === 'decided') return withdraw(row.id);
    if (news.kind === 'approval' || news.kind === 'question') {
      withdraw(row.id);
      waiting.set(row.id, news);
      watch();
      return tell(news);
    }
    if (visible(row.id)) return undefined; // the panel itself tells
    if (!enabled().turns || told(row.name)) return undefined;
    const actions = [{ label: trans.__('Open'), callback: () => open(row.id) }];
    withdraw(row.id);
    if (news.kind === 'finished') show(row.id, notify.info(trans.__('%1 has finished', row.name), { autoClose: 8000, actions }));
    else show(row.id, notify.error(trans.__('%1 has failed: %2', row.name, row.text), { autoClose: false, actions }));
    return undefined;
  });
}
