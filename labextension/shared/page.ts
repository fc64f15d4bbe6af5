/**
 * The page's one socket: the states of all sessions, every event of those that the page shows, and commands to any.
 * A session goes on after the last event that came, whatever happened to the socket in between.
 */

import { trans } from './language';
import type { Address } from './address';
import { backoff, Line, missing, ended, type ConnectionState, type Refusal, type LineWords } from './line';
import { parseMessage, type ClientMessage, type ServerMessage, type UnfollowedMessage } from './messages';

/** What a session's view, or the list, hears and may do. */
export interface Channel {
  /**
   * Sends now, or returns false. Nothing is queued: a Stop or a message that arrives minutes later would act on
   * another turn than the one that was on screen.
   */
  send(message: ClientMessage): boolean;
  retry(): void;
  /** Final; `reason` is shown where the view stays. */
  close(reason?: string, refusal?: Refusal): void;
}

export interface Listener {
  onMessage: (message: ServerMessage) => void;
  onState: (state: ConnectionState) => void;
  /** Called after each connection; `resumed` is false when events may have been missed. */
  onOpen: (resumed: boolean) => void;
}

export interface PageOptions {
  address: Address;
  WebSocketClass?: typeof WebSocket;
  fetcher?: typeof fetch;
}

/** Two and a half heartbeats of the server's default, in milliseconds. */
const SILENCE = 75_000;
const WORDS: LineWords = {
  get first() {
    return trans.__('Connecting');
  },
  get again() {
    return trans.__('Connecting again');
  },
  get lost() {
    return trans.__('The connection was lost.');
  },
  get unreachable() {
    return trans.__('The server does not answer.');
  }
};
const connecting = (again = false): ConnectionState => ({ phase: 'connecting', reason: again ? WORDS.again : WORDS.first, retryAt: 0 });
/** The name of the list among the sessions. */
const LIST = '';

export class Page {
  private readonly line: Line;
  private readonly members = new Map<string, Member>();
  /** The newest state of each session, for a list that joins later: the server tells them once. */
  private readonly states = new Map<string, ServerMessage>();

  constructor(options: PageOptions) {
    this.line = new Line({
      ...options,
      path: 'ws',
      words: WORDS,
      silence: SILENCE,
      query: () => new URLSearchParams(),
      onData: data => this.hear(parseMessage(String(data))),
      onLost: () => this.states.clear(),
      onState: state => this.members.forEach(member => member.lineIs(state))
    });
    this.line.connect();
  }

  /** Every event of a session, until the channel is closed. */
  follow(id: string, listener: Listener): Channel {
    return this.join(id, listener);
  }

  /** The states of all sessions. */
  list(listener: Listener): Channel {
    const channel = this.join(LIST, listener);
    this.states.forEach(state => listener.onMessage(state));
    return channel;
  }

  /** Whether it has been refused for good, or has no one to serve. */
  get closed(): boolean {
    return this.line.state.phase === 'closed';
  }

  private join(id: string, listener: Listener): Channel {
    const member = new Member(id, listener, message => this.line.send(JSON.stringify(message)));
    this.members.set(id, member);
    member.lineIs(this.line.state);
    return {
      send: message => member.open && this.line.send(JSON.stringify(id === LIST ? message : { ...message, session_id: id })),
      retry: () => (this.line.state.phase === 'open' ? member.lineIs(this.line.state) : this.line.retry()),
      close: (reason, refusal) => {
        if (this.members.get(id) === member) this.members.delete(id);
        if (id !== LIST) this.line.send(JSON.stringify({ type: 'unfollow', session_id: id } satisfies ClientMessage));
        member.close(reason, refusal);
        if (!this.members.size) this.line.close();
      }
    };
  }

  private hear(message: ServerMessage | null): void {
    if (!message) return;
    const member = this.members.get(message.session_id ?? LIST);
    // Without a sequence: a state for the list. An answer to a command is for the views of the session.
    const own = typeof message.sequence === 'number' || message.type === 'unfollowed' || message.type === 'error';
    if (!own && message.session_id && message.type === 'status') this.states.set(message.session_id, message);
    if (own) member?.hear(message);
    if (!own || (message.type === 'error' && !member)) this.members.get(LIST)?.hear(message);
  }
}

/** One session on the page's socket, or the list. */
class Member {
  private state = connecting();
  private sequence: number | null = null;
  private failures = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly id: string,
    private readonly listener: Listener,
    private readonly transmit: (message: ClientMessage) => boolean
  ) {}

  get open(): boolean {
    return this.state.phase === 'open';
  }

  /** An open line is not yet an open session: the server's first word on it is. */
  lineIs(state: ConnectionState): void {
    clearTimeout(this.timer);
    if (this.state.phase === 'closed') return;
    if (state.phase !== 'open') return this.set(state);
    if (this.id === LIST) return this.opened(state, false);
    this.set(connecting(this.sequence !== null));
    this.transmit({ type: 'follow', session_id: this.id, ...(this.sequence === null ? {} : { after: this.sequence }) });
  }

  hear(message: ServerMessage): void {
    if (this.state.phase === 'closed') return;
    if (message.type === 'unfollowed') return this.unfollowed(message);
    if (typeof message.sequence === 'number' && this.id !== LIST) {
      const snapshot = message.type === 'status' && message.metadata?.['event'] === 'snapshot';
      if (!this.open && !snapshot) return; // of before: it comes again after the snapshot
      const resumed = this.sequence !== null;
      this.sequence = message.sequence;
      if (!this.open) this.opened({ phase: 'open', reason: trans.__('Connected'), retryAt: 0 }, resumed);
    }
    this.listener.onMessage(message);
  }

  close(reason = trans.__('Closed'), refusal?: Refusal): void {
    clearTimeout(this.timer);
    this.set({ phase: 'closed', reason, retryAt: 0, ...(refusal ? { refusal } : {}) });
  }

  private opened(state: ConnectionState, resumed: boolean): void {
    this.failures = 0;
    this.set(state);
    this.listener.onOpen(resumed);
  }

  private unfollowed({ code, reason }: UnfollowedMessage): void {
    if (code === 404) return this.close(missing(), 'missing');
    if (code === 409) return this.close(ended(), 'ended');
    if (code === 422) this.sequence = null; // the server's record is another one
    this.failures += 1;
    const delay = backoff(this.failures);
    this.set({ phase: 'waiting', reason, retryAt: Date.now() + delay });
    this.timer = setTimeout(() => this.lineIs({ phase: 'open', reason: '', retryAt: 0 }), delay);
  }

  private set(state: ConnectionState): void {
    this.state = state;
    this.listener.onState(state);
  }
}

const pages = new Map<string, Page>();

/** The one socket of this page to a server. */
export function pageOf(address: Address): Page {
  const known = pages.get(address.baseUrl);
  if (known && !known.closed) return known;
  const made = new Page({ address });
  pages.set(address.baseUrl, made);
  return made;
}
