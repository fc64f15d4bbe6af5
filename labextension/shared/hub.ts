/** The sessions that this page shows. All views of one session share one model: they agree by construction. */

import { trans } from './language';
import { working } from './working';
import { Api, ApiError } from './api';
import type { Address } from './address';
import { missing, type ConnectionState } from './line';
import type { ClientMessage, ServerMessage } from './messages';
import { pageOf, type Channel, type Listener } from './page';
import { prepend, restore } from './history';
import { Outbox, type Attachment, type Outgoing } from './outbox';
import type { Question } from './question';
import { emptyView, reduce, type Approval, type SessionView } from './state';

export type OpenChannel = (listener: Listener) => Channel;

/** What a notice is about, which says when it goes: with the next command, with the turn, or with its successor. */
type About = 'unsent' | 'stopping' | 'unstopped' | 'stopped' | 'other';

/** Events that are read at once. */
const RECENT = 400;
/** Messages that are kept while the history cannot be read, before pieces of text are dropped. */
const MOST_FRESH = 2000;
/** Milliseconds within which a Stop shows its effect, or the panel says that it has none. */
const STOP_WITHIN = 3000;
/** Milliseconds after which no frame is waited for: a hidden page has none, nor has a visible one at times (a covered window, a headless browser). */
const NO_FRAME = 100;

/** A name for this page, so that it knows when it holds the mouse itself. It outlives a reload, not the tab. */
export function viewerName(storage: Storage | undefined = globalThis.sessionStorage): string {
  const key = 'cambio-lab-viewer';
  try {
    const known = storage?.getItem(key);
    if (known) return known;
    const made = `viewer-${crypto.randomUUID().slice(0, 8)}`;
    storage?.setItem(key, made);
    return made;
  } catch {
    return 'viewer'; // storage is forbidden (a sandboxed frame): control works, a reload forgets it
  }
}

export class SessionModel {
  view: SessionView;
  connection: ConnectionState = { phase: 'connecting', reason: trans.__('Connecting'), retryAt: 0 };
  /** Words for the person, until they are out of date. */
  notice = '';
  private about: About = 'other';
  readonly viewer = viewerName();
  private readonly line: Channel;
  private readonly outbox = new Outbox(
    message => this.line.send(message),
    notice => (notice === undefined ? this.changed() : this.say(notice))
  );
  private stopping: ReturnType<typeof setTimeout> | undefined;
  private readonly listeners = new Set<() => void>();
  private scheduled = false;
  private closed = false;
  private loading = false;
  /** What is being read may lack events of before the line was open. */
  private stale = false;
  /** The earliest event that is shown; 1 when all are. */
  private first = 1;
  /** What came over the line before the history did. */
  private fresh: ServerMessage[] = [];

  constructor(
    readonly api: Api,
    readonly id: string,
    openChannel: OpenChannel
  ) {
    this.view = emptyView(id, this.viewer);
    this.line = openChannel(this);
  }

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** The message that is on its way, if any. */
  get outgoing(): Outgoing | null {
    return this.outbox.current;
  }

  /** Sends `text` to the agent, during a turn too; false while another message is on its way. */
  write(text: string, images: readonly Attachment[] = []): boolean {
    return this.outbox.put(text, working(this.view.status) ? 'next' : 'idle', images);
  }

  /** Takes the message back that still waits for the connection. */
  takeBack(): void {
    this.outbox.giveBack();
  }

  /** Takes a message back that waits on the server for the agent's next request. */
  withdraw(id: string): void {
    this.send({ type: 'take_back', message_id: id });
  }

  /** The message that was given back, once. */
  returned(): Outgoing | null {
    const { current } = this.outbox;
    if (current?.state !== 'returned') return null;
    this.outbox.clear();
    return current;
  }

  command(type: 'pause' | 'resume' | 'take_control' | 'give_back'): void {
    this.send(type === 'take_control' || type === 'give_back' ? { type, viewer: this.viewer } : { type });
  }

  /** Stops the turn that is on the screen, and no later one: by REST while the socket is down. Says so when it cannot. */
  stop(): void {
    const { turn } = this.view;
    const sent = this.line.send({ type: 'stop', ...(turn ? { message_id: turn } : {}) });
    if (!sent) return void this.stopByRest(turn);
    clearTimeout(this.stopping);
    this.stopping = setTimeout(() => {
      if (this.closed || !working(this.view.status) || this.view.turn !== turn) return;
      this.say(trans.__('The server has not confirmed the stop.'), 'stopping');
      void this.stopByRest(turn); // the socket may be dead without knowing it
    }, STOP_WITHIN);
  }

  /** Sends now, or says that nothing was sent: nothing of this is kept for later. */
  private send(message: ClientMessage): void {
    const sent = this.line.send(message);
    if (!sent) this.say(trans.__('Not sent: there is no connection to the server. Try again when it is back.'), 'unsent');
    else if (['unsent', 'stopping', 'unstopped'].includes(this.about)) this.say('');
  }

  private async stopByRest(turn: string): Promise<void> {
    try {
      await this.api.stop(this.id, turn);
      this.say(trans.__('Stopped.'), 'stopped');
    } catch (error) {
      const why = error instanceof ApiError ? error.message : trans.__('The server cannot be reached; the agent goes on.');
      this.say(trans.__('Not stopped. %1', why), 'unstopped');
    }
  }

  /** Answer the request that was shown; a request that came since is left for its own answer. */
  readonly decide = (approve: boolean, shown: Approval): void => {
    this.send({ type: approve ? 'approve' : 'deny', tool_use_id: shown.toolUseId, viewer: this.viewer });
  };

  /** Answer the question that was shown, or hand the desktop back. */
  readonly answer = (text: string, shown: Question): void => {
    this.send({ type: 'answer', text, tool_use_id: shown.toolUseId, viewer: this.viewer });
  };

  retry(): void {
    this.line.retry();
  }

  /** Whether mouse and keyboard of this page reach the desktop: with control, or while no viewer has it and the agent is idle or handed over. */
  get interactive(): boolean {
    const { control, status, ended, question } = this.view;
    return this.controls || (!ended && !control && (!working(status) || question?.handsOver === true));
  }

  /** Whether the server has no such session (any more): there is nothing to wait for. */
  get missing(): boolean {
    return this.connection.refusal === 'missing';
  }

  get controls(): boolean {
    return this.view.control === this.viewer;
  }

  say(notice: string, about: About = 'other'): void {
    this.notice = notice;
    this.about = about;
    this.changed();
  }

  /** What REST knows; the socket only tells what happens from now on. */
  async load(): Promise<void> {
    if (this.loading) {
      this.stale = true;
      return;
    }
    this.loading = true;
    this.stale = false;
    try {
      const session = await this.api.session(this.id);
      const last = session.sequence ?? 0;
      const before = Math.max(0, last - RECENT);
      const events = await this.api.events(this.id, before, last);
      if (this.closed) return;
      this.view = restore(session, events, this.fresh, this.viewer);
      this.fresh = [];
      this.first = before + 1;
      this.say('');
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) this.line.close(missing(), 'missing');
      else this.say(error instanceof ApiError ? error.message : trans.__('The history could not be read.'));
    } finally {
      this.loading = false;
    }
    this.changed();
    if (this.stale && !this.closed) void this.load();
  }

  /** Whether something happened before what is shown. */
  get earlier(): boolean {
    return this.view.loaded && this.first > 1;
  }

  /** Shows what happened before. */
  async loadEarlier(): Promise<void> {
    if (this.loading || !this.earlier) return;
    this.loading = true;
    try {
      const before = Math.max(0, this.first - 1 - RECENT);
      const older = await this.api.events(this.id, before, this.first - 1);
      this.view = prepend(this.view, older);
      this.first = before + 1;
    } catch (error) {
      this.say(error instanceof ApiError ? error.message : trans.__('The history could not be read.'));
    } finally {
      this.loading = false;
    }
    this.changed();
    if (this.stale && !this.closed) void this.load();
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.stopping);
    this.line.close();
  }

  readonly onMessage = (message: ServerMessage): void => {
    if (!this.view.loaded || this.loading) this.fresh.push(message);
    if (this.fresh.length > MOST_FRESH) this.fresh = this.fresh.filter(one => one.type !== 'agent_delta');
    this.view = reduce(this.view, message);
    this.outbox.hear(message);
    if (this.about === 'stopped' || (this.about === 'stopping' && !working(this.view.status))) this.say('');
    else this.changed();
  };

  readonly onState = (state: ConnectionState): void => {
    this.connection = state;
    this.changed();
    // A line that must wait (too many connections), or is refused for good (the session has ended), is no reason to
    // hide what was said; and a session that does not exist need not be waited for.
    if ((state.phase === 'waiting' || state.phase === 'closed') && !this.view.loaded && !this.closed && !this.missing) void this.load();
  };

  readonly onOpen = (resumed: boolean): void => {
    if (resumed && this.view.loaded) return;
    this.fresh = [];
    void this.load();
  };

  /** Listeners hear once a frame, however many pieces of text arrive in it; soon, where the browser draws no frames. */
  private changed(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    const tell = (): void => {
      cancelAnimationFrame(frame);
      clearTimeout(timer);
      this.scheduled = false;
      for (const listener of [...this.listeners]) listener();
    };
    const frame = requestAnimationFrame(tell);
    const timer = setTimeout(tell, NO_FRAME);
  }
}

const open = new Map<string, { model: SessionModel; users: number }>();

/** The page's model of a session; call the second element when you no longer need it. */
export function acquire(address: Address, id: string): [SessionModel, () => void] {
  const key = `${address.baseUrl} ${id}`;
  let shared = open.get(key);
  if (!shared) {
    const model: SessionModel = new SessionModel(
      new Api(address, wait => model.say(trans.__('Too many requests; waiting %1 s as the server asks.', Math.ceil(wait)))),
      id,
      listener => pageOf(address).follow(id, listener)
    );
    shared = { model, users: 0 };
    open.set(key, shared);
  }
  const held = shared;
  held.users += 1;
  let released = false;
  return [
    held.model,
    () => {
      if (released) return;
      released = true;
      held.users -= 1;
      // A view that moves (drag to another area, a cell that runs again) comes back within a moment.
      setTimeout(() => {
        if (held.users > 0 || open.get(key) !== held) return;
        open.delete(key);
        held.model.close();
      }, 1500);
    }
  ];
}
