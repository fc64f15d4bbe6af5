/**
 * One `/ws` connection that mends itself: it resumes where it stopped, waits longer after each failure, waits as told
 * after a 429, notices a silent line, and says at any time what it is doing.
 */

import { headers, resolve, socketUrl, type Address } from './address';
import { retryAfter } from './api';
import { parseMessage, type ClientMessage, type ServerMessage } from './messages';

export type Phase = 'connecting' | 'open' | 'waiting' | 'offline' | 'closed';

export interface ConnectionState {
  phase: Phase;
  /** In words, for a person. */
  reason: string;
  /** Milliseconds since the epoch; 0 when nothing is scheduled. */
  retryAt: number;
}

export interface ConnectionOptions {
  address: Address;
  /** `ws/ID` or `ws`. */
  path: string;
  stream?: boolean;
  onMessage: (message: ServerMessage) => void;
  onState: (state: ConnectionState) => void;
  /** Called after each connection; `resumed` is false when events may have been missed. */
  onOpen?: (resumed: boolean) => void;
  WebSocketClass?: typeof WebSocket;
  fetcher?: typeof fetch;
}

const FIRST_DELAY = 500;
const LONGEST_DELAY = 15_000;
/** Two and a half heartbeats of the server's default. */
const SILENCE = 75_000;

export class Connection {
  state: ConnectionState = { phase: 'connecting', reason: 'Connecting', retryAt: 0 };
  private socket: WebSocket | null = null;
  private sequence: number | null = null;
  private failures = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private watchdog: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly options: ConnectionOptions) {
    globalThis.addEventListener?.('online', this.onOnline);
    globalThis.addEventListener?.('offline', this.onOffline);
    this.connect();
  }

  /**
   * Sends now, or returns false. Nothing is queued: a Stop or a message that arrives minutes later would act on
   * another turn than the one that was on screen.
   */
  send(message: ClientMessage): boolean {
    if (this.socket?.readyState !== 1) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }

  /** Tries at once instead of when the waiting time is over. */
  retry(): void {
    if (this.state.phase !== 'open' && this.state.phase !== 'connecting') this.connect();
  }

  close(reason = 'Closed'): void {
    this.set('closed', reason);
    globalThis.removeEventListener?.('online', this.onOnline);
    globalThis.removeEventListener?.('offline', this.onOffline);
    this.drop();
  }

  private readonly onOnline = (): void => {
    if (this.state.phase === 'offline' || this.state.phase === 'waiting') this.connect();
  };

  private readonly onOffline = (): void => {
    if (this.state.phase === 'closed') return;
    this.drop();
    this.set('offline', 'This computer is offline. Work on the server goes on.');
  };

  private connect(): void {
    this.drop();
    this.set('connecting', this.failures ? 'Connecting again' : 'Connecting');
    const query = new URLSearchParams();
    if (this.options.stream) query.set('stream', 'true');
    const resumed = this.sequence !== null;
    if (this.sequence !== null) query.set('after', String(this.sequence));
    if (this.options.address.token) query.set('token', this.options.address.token);
    const text = query.toString();
    const url = socketUrl(this.options.address, this.options.path) + (text ? `?${text}` : '');
    const socket = new (this.options.WebSocketClass ?? WebSocket)(url);
    let opened = false;
    this.socket = socket;
    socket.onopen = () => {
      opened = true;
      this.failures = 0;
      this.set('open', 'Connected');
      this.listen();
      this.options.onOpen?.(resumed);
    };
    socket.onmessage = event => this.receive(String(event.data));
    socket.onclose = event => {
      if (this.socket === socket) void this.lost(opened, event);
    };
  }

  private receive(text: string): void {
    this.listen();
    const message = parseMessage(text);
    if (!message) return;
    if (typeof message.sequence === 'number') this.sequence = message.sequence;
    this.options.onMessage(message);
  }

  private async lost(opened: boolean, event: CloseEvent): Promise<void> {
    this.drop();
    if (opened && event.code === 1000 && /\b(over|ended)\b/i.test(event.reason)) return this.set('closed', event.reason);
    this.failures += 1;
    // A handshake that fails tells a page nothing, so a plain request asks what was wrong.
    const refused = opened ? null : await this.askWhy();
    if (this.state.phase === 'closed' || this.state.phase === 'offline' || this.socket) return;
    if (refused?.final) return this.set('closed', refused.reason);
    const delay = refused?.delay ?? backoff(this.failures);
    const reason = refused?.reason ?? (opened ? 'The connection was lost.' : 'The server does not answer.');
    this.set('waiting', reason, Date.now() + delay);
    this.timer = setTimeout(() => this.connect(), delay);
  }

  private async askWhy(): Promise<{ reason: string; delay?: number; final?: boolean } | null> {
    const request = this.options.fetcher ?? fetch;
    const { address, path } = this.options;
    try {
      const response = await request(resolve(address, path), { headers: headers(address), credentials: 'same-origin' });
      return explainRefusal(response);
    } catch {
      return null;
    }
  }

  private listen(): void {
    clearTimeout(this.watchdog);
    this.watchdog = setTimeout(() => {
      this.drop();
      this.failures += 1;
      this.set('waiting', 'The server went silent.', Date.now());
      this.connect();
    }, SILENCE);
  }

  private drop(): void {
    clearTimeout(this.timer);
    clearTimeout(this.watchdog);
    const socket = this.socket;
    this.socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
  }

  private set(phase: Phase, reason: string, retryAt = 0): void {
    this.state = { phase, reason, retryAt };
    this.options.onState(this.state);
  }
}

/** Half a second, doubled with each failure, up to 15 s, with jitter so that many pages do not come back at once. */
export function backoff(failures: number, random: number = Math.random()): number {
  return Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** Math.max(0, failures - 1)) * (0.75 + random / 2);
}

/** What a refused upgrade means, from the answer to a plain GET of the same address. */
export function explainRefusal(response: Response): { reason: string; delay?: number; final?: boolean } | null {
  switch (response.status) {
    case 429: {
      const seconds = retryAfter(response) ?? 60;
      return { reason: 'Too many connections were opened within a minute; waiting as the server asks.', delay: seconds * 1000 };
    }
    case 401:
    case 403:
      return { reason: 'The server does not know you (any more). Sign in again and reload this page.', final: true };
    case 404:
      return { reason: 'This session does not exist on this server.', final: true };
    case 409:
      return { reason: 'This session has ended.', final: true };
    default:
      return null;
  }
}
