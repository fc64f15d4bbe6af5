/** All sessions of a server: listed once over REST, kept up to date by the page's socket. */

import { trans } from './language';
import { Api, type SessionSummary } from './api';
import type { Address } from './address';
import type { ConnectionState } from './line';
import type { Command, Json, ServerMessage, Status, StatusMessage, Usage } from './messages';
import { pageOf, type Channel } from './page';
import { pendingApproval, type Approval } from './approval';
import { pendingQuestion, type Question } from './question';
import { working } from './working';

export interface Row {
  id: string;
  name: string;
  status: Status;
  text: string;
  model: string;
  steps: number;
  cost: number;
  created: string;
  ended: boolean;
  tags: readonly string[];
  note: string;
  approval: Approval | null;
  question: Question | null;
  /** The id of the message that the agent works on; empty when unknown. */
  turn: string;
  /** A `data:` URL, once one came. */
  thumbnail: string;
  /** While the desktop is being made and that takes long: 0 to 1, or null where that is unknown. */
  starting: { fraction: number | null } | null;
}

/** Something that a person may want to be told about. */
export type News =
  | { kind: 'approval'; row: Row; approval: Approval }
  | { kind: 'question'; row: Row; question: Question }
  | { kind: 'decided'; row: Row }
  | { kind: 'finished'; row: Row }
  | { kind: 'failed'; row: Row };

/** Milliseconds that a remark on one click is shown. */
const NOTICE_FOR = 10_000;
/** What the server allows one socket. */
const MOST_WATCHED = 100;

export class Roster {
  rows: ReadonlyMap<string, Row> = new Map();
  connection: ConnectionState = { phase: 'connecting', reason: trans.__('Connecting'), retryAt: 0 };
  loaded = false;
  notice = '';
  readonly api: Api;
  private readonly line: Channel;
  private readonly listeners = new Set<() => void>();
  private readonly readers = new Set<(news: News) => void>();
  private readonly watched = new Map<string, number>();
  private sent = '';
  private timer: ReturnType<typeof setTimeout> | undefined;
  private fading: ReturnType<typeof setTimeout> | undefined;
  private scheduled = false;

  constructor(readonly address: Address) {
    this.api = new Api(address, seconds => this.say(trans.__('Too many requests; waiting %1 s as the server asks.', Math.ceil(seconds))));
    this.line = pageOf(address).list({
      onMessage: message => this.receive(message),
      onState: state => {
        this.connection = state;
        this.changed();
      },
      onOpen: () => {
        this.sent = '';
        this.tellWatched();
        void this.load();
      }
    });
  }

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** `reader` hears of approvals and of turns that end, from now on. */
  follow(reader: (news: News) => void): () => void {
    this.readers.add(reader);
    return () => this.readers.delete(reader);
  }

  command(type: Command, id: string, toolUseId?: string): void {
    const turn = type === 'stop' ? this.rows.get(id)?.turn : '';
    const names = { ...(toolUseId ? { tool_use_id: toolUseId } : {}), ...(turn ? { message_id: turn } : {}) };
    if (this.line.send({ type, session_id: id, ...names })) return;
    if (type === 'stop') this.api.stop(id, turn ?? '').catch(error => this.say(trans.__('Not stopped. %1', String(error))));
    else this.say(trans.__('Not sent: there is no connection to the server. Try again when it is back.'));
  }

  /** Answers the request that was shown; one that came since is left for its own answer. */
  decide(approve: boolean, id: string, shown: Approval): void {
    this.command(approve ? 'approve' : 'deny', id, shown.toolUseId);
  }

  answer(text: string, id: string, shown: Question): void {
    if (this.line.send({ type: 'answer', text, session_id: id, tool_use_id: shown.toolUseId })) return;
    this.say(trans.__('Not sent: there is no connection to the server. Try again when it is back.'));
  }

  retry(): void {
    this.line.retry();
  }

  async load(): Promise<void> {
    try {
      const [active, recent] = await Promise.all([this.api.sessions({ status: 'active', limit: 200 }), this.api.sessions({ limit: 50 })]);
      const rows = new Map([...this.rows].filter(([, row]) => row.starting));
      for (const session of [...active.items, ...recent.items]) rows.set(session.id, rowOf(session, this.rows.get(session.id)));
      this.rows = rows;
      this.loaded = true;
      this.notice = '';
    } catch (error) {
      this.notice = error instanceof Error ? error.message : String(error);
    }
    this.changed();
  }

  /** Asks for thumbnails of `id` while its row is on the screen; call the result when it no longer is. */
  watch(id: string): () => void {
    this.watched.set(id, (this.watched.get(id) ?? 0) + 1);
    this.tellSoon();
    return () => {
      const left = (this.watched.get(id) ?? 1) - 1;
      if (left) this.watched.set(id, left);
      else this.watched.delete(id);
      this.tellSoon();
    };
  }

  close(): void {
    clearTimeout(this.timer);
    clearTimeout(this.fading);
    this.line.close();
  }

  private tellSoon(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.tellWatched(), 100);
  }

  private tellWatched(): void {
    const sessions = [...this.watched.keys()]
      .filter(id => !this.rows.get(id)?.ended)
      .sort()
      .slice(0, MOST_WATCHED);
    const text = sessions.join();
    if (text === this.sent || this.connection.phase !== 'open') return;
    this.sent = text;
    this.line.send({ type: 'watch', sessions, width: 192 });
  }

  private receive(message: ServerMessage): void {
    if (message.type === 'error') this.say(message.details || message.error);
    const id = message.session_id;
    if (!id) return;
    if (message.type === 'thumbnail') this.put(id, { thumbnail: message.image });
    else if (message.type === 'status') this.onStatus(id, message);
  }

  private onStatus(id: string, message: StatusMessage): void {
    const before = this.rows.get(id);
    const row = applyStatus(before ?? blank(id, message.timestamp ?? ''), message);
    this.rows = new Map(this.rows).set(id, row);
    this.changed();
    this.tellSoon();
    if (before) for (const news of compare(before, row)) for (const reader of this.readers) reader(news);
    else if (row.approval) for (const reader of this.readers) reader({ kind: 'approval', row, approval: row.approval });
  }

  private put(id: string, change: Partial<Row>): void {
    const row = this.rows.get(id);
    if (!row) return;
    this.rows = new Map(this.rows).set(id, { ...row, ...change });
    this.changed();
  }

  private say(notice: string): void {
    this.notice = notice;
    clearTimeout(this.fading);
    if (notice) this.fading = setTimeout(() => this.say(''), NOTICE_FOR);
    this.changed();
  }

  private changed(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    setTimeout(() => {
      this.scheduled = false;
      for (const listener of [...this.listeners]) listener();
    }, 50);
  }
}

function blank(id: string, created: string): Row {
  const text = '';
  return {
    id,
    name: id.slice(0, 8),
    status: 'idle',
    text,
    model: '',
    steps: 0,
    cost: 0,
    created,
    ended: false,
    tags: [],
    note: '',
    approval: null,
    question: null,
    turn: '',
    thumbnail: '',
    starting: null
  };
}

function rowOf(session: SessionSummary, before: Row | undefined): Row {
  const ended = session.status !== 'active';
  return {
    ...(before ?? blank(session.id, session.created_at)),
    name: session.name || session.id.slice(0, 8),
    status: session.status === 'error' ? 'error' : ended ? 'ended' : (session.state ?? before?.status ?? 'idle'),
    model: session.model ?? before?.model ?? '',
    steps: session.steps ?? before?.steps ?? 0,
    cost: session.usage?.cost_usd ?? before?.cost ?? 0,
    created: session.created_at,
    ended,
    tags: session.tags ?? [],
    note: session.note ?? '',
    starting: null
  };
}

export function applyStatus(row: Row, message: StatusMessage): Row {
  const data = message.metadata ?? {};
  const usage = data['usage'] as Usage | undefined;
  const pending = pendingApproval(data);
  return {
    ...row,
    status: message.status,
    text: message.content ?? '',
    ended: row.ended || message.status === 'ended',
    name: typeof data['name'] === 'string' && data['name'] ? data['name'] : row.name,
    model: typeof data['model'] === 'string' ? data['model'] : row.model,
    created: typeof data['created_at'] === 'string' ? data['created_at'] : row.created,
    steps: typeof data['steps'] === 'number' ? data['steps'] : row.steps,
    cost: usage?.cost_usd ?? row.cost,
    approval: message.status === 'waiting_approval' ? (pending ?? row.approval) : null,
    question: message.status === 'waiting' ? (pendingQuestion(data) ?? row.question) : null,
    turn: working(message.status) && typeof data['message_id'] === 'string' ? data['message_id'] : '',
    starting: startOf(message, data)
  };
}

function startOf(message: StatusMessage, data: Json): Row['starting'] {
  if (data['event'] !== 'progress' || message.status === 'error') return null;
  return { fraction: typeof data['fraction'] === 'number' ? data['fraction'] : null };
}

/** What happened between two states of a row. */
export function compare(before: Row, after: Row): News[] {
  const news: News[] = [];
  if (after.approval && after.approval.toolUseId !== before.approval?.toolUseId) {
    news.push({ kind: 'approval', row: after, approval: after.approval });
  }
  if (after.question && after.question.toolUseId !== before.question?.toolUseId) {
    news.push({ kind: 'question', row: after, question: after.question });
  }
  if ((before.approval && !after.approval) || (before.question && !after.question)) news.push({ kind: 'decided', row: after });
  if (working(before.status) && after.status === 'error') news.push({ kind: 'failed', row: after });
  if (working(before.status) && after.status === 'idle') news.push({ kind: 'finished', row: after });
  return news;
}
