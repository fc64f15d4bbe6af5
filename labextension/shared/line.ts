/**
 * One WebSocket that is opened again when it is lost: it waits longer after each failure, waits as told after a 429,
 * notices a silent server and a computer that slept, and says at any time what it is doing. Text and RFB bytes both
 * travel over it.
 */

import { trans } from './language';
import { headers, resolve, socketUrl, type Address } from './address';
import { retryAfter } from './api';

/** `stuck`: the viewer's frame does not answer; a person may load it again. */
export type Phase = 'connecting' | 'open' | 'waiting' | 'offline' | 'closed' | 'stuck';

/** Why the server refuses for good. */
export type Refusal = 'missing' | 'ended' | 'login';

export interface ConnectionState {
  phase: Phase;
  /** In words, for a person. */
  reason: string;
  /** Milliseconds since the epoch; 0 when nothing is scheduled. */
  retryAt: number;
  refusal?: Refusal;
}

/** In the person's language; read when they are shown. */
export interface LineWords {
  readonly first: string;
  readonly again: string;
  readonly lost: string;
  readonly unreachable: string;
}

export interface LineOptions {
  address: Address;
  /** `ws` or `vnc/ID`. */
  path: string;
  /** The query of the next connection. */
  query: () => URLSearchParams;
  words: LineWords;
  onData: (data: string | ArrayBuffer) => void;
  onState: (state: ConnectionState) => void;
  onOpen?: () => void;
  /** Called when an open connection is gone, before the next attempt. */
  onLost?: () => void;
  /** Milliseconds without a message after which a connection counts as lost. */
  silence?: number;
  WebSocketClass?: typeof WebSocket;
  fetcher?: typeof fetch;
}

const FIRST_DELAY = 500;
const LONGEST_DELAY = 15_000;
/** Milliseconds after which a connection counts as good: the next failure is its first. */
const STEADY = 5000;
/** Milliseconds between looks at the clock, which a hidden page may stretch to a minute. */
const PULSE = 5000;
/** A longer time between two looks means that the computer slept: the connection may be gone without a word. */
const SLEPT = 90_000;
const OPEN = 1;
/** What a server closes with when it has said all that there is. */
const NORMAL = 1000;

export class Line {
  state: ConnectionState;
  private socket: WebSocket | null = null;
  private failures = 0;
  private openedAt = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private heardAt = 0;
  private pulsedAt = Date.now();
  private readonly heart = setInterval(() => this.pulse(), PULSE);

  constructor(private readonly options: LineOptions) {
    this.state = { phase: 'connecting', reason: options.words.first, retryAt: 0 };
    globalThis.addEventListener?.('online', this.onOnline);
    globalThis.addEventListener?.('offline', this.onOffline);
  }

  /** Sends now, or returns false: nothing is queued. */
  send(data: string | ArrayBuffer): boolean {
    if (this.socket?.readyState !== OPEN) return false;
    this.socket.send(data);
    return true;
  }

  /** Connects now, whatever it was waiting for. */
  connect(): void {
    this.drop();
    this.set('connecting', this.failures ? this.options.words.again : this.options.words.first);
    const { address, path } = this.options;
    const query = this.options.query();
    if (address.token) query.set('token', address.token);
    const text = query.toString();
    const socket = new (this.options.WebSocketClass ?? WebSocket)(socketUrl(address, path) + (text ? `?${text}` : ''));
    socket.binaryType = 'arraybuffer';
    let opened = false;
    this.socket = socket;
    socket.onopen = () => {
      opened = true;
      this.openedAt = this.heardAt = Date.now();
      this.set('open', trans.__('Connected'));
      this.options.onOpen?.();
    };
    socket.onmessage = event => {
      this.heardAt = Date.now();
      this.options.onData(event.data as string | ArrayBuffer);
    };
    socket.onclose = event => {
      if (this.socket === socket) void this.lost(opened, event.code);
    };
  }

  /** Tries at once instead of when the waiting time is over. */
  retry(): void {
    if (this.state.phase === 'waiting' || this.state.phase === 'offline' || this.state.phase === 'stuck') this.connect();
  }

  /** Leaves the connection until `retry` is called. */
  rest(reason: string): void {
    this.drop();
    this.set('stuck', reason);
  }

  /** Counts the open connection as lost, for a reason that the socket does not know. */
  fail(): void {
    if (this.socket) void this.lost(true, 0);
  }

  /** Final; `reason` is shown where the view stays. */
  close(reason = trans.__('Closed'), refusal?: Refusal): void {
    this.drop();
    clearInterval(this.heart);
    this.set('closed', reason, 0, refusal);
    globalThis.removeEventListener?.('online', this.onOnline);
    globalThis.removeEventListener?.('offline', this.onOffline);
  }

  private readonly onOnline = (): void => {
    if (this.state.phase === 'offline' || this.state.phase === 'waiting') this.connect();
  };

  private readonly onOffline = (): void => {
    if (this.state.phase === 'closed') return;
    this.drop();
    this.options.onLost?.();
    this.set('offline', trans.__('This computer is offline. Work on the server goes on.'));
  };

  private async lost(opened: boolean, code: number): Promise<void> {
    this.drop();
    this.options.onLost?.();
    this.failures = opened && Date.now() - this.openedAt > STEADY ? 1 : this.failures + 1;
    // A handshake that fails tells a page nothing, so a plain request asks what was wrong.
    const refused = opened && code !== NORMAL ? null : await this.askWhy();
    if (this.state.phase === 'closed' || this.state.phase === 'offline' || this.socket) return;
    if (refused?.refusal) return this.close(refused.reason, refused.refusal);
    const delay = refused?.delay ?? backoff(this.failures);
    const { words } = this.options;
    this.set('waiting', refused?.reason ?? (opened ? words.lost : words.unreachable), Date.now() + delay);
    this.timer = setTimeout(() => this.connect(), delay);
  }

  private async askWhy(): Promise<Explanation | null> {
    const { address, path, fetcher = fetch } = this.options;
    try {
      const response = await fetcher(resolve(address, path), { headers: headers(address), credentials: 'same-origin' });
      return explainRefusal(response);
    } catch {
      return null; // the server is away: try again later
    }
  }

  /** By the clock on the wall: timers stand still while a computer sleeps. */
  private pulse(): void {
    const now = Date.now();
    const slept = now - this.pulsedAt > SLEPT;
    const silent = now - this.heardAt > (this.options.silence ?? Infinity);
    this.pulsedAt = now;
    if (this.state.phase !== 'open' || !(slept || silent)) return;
    this.failures += 1;
    this.options.onLost?.();
    this.set('waiting', slept ? trans.__('This computer slept.') : trans.__('The server went silent.'), now);
    this.connect();
  }

  private drop(): void {
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
  }

  private set(phase: Phase, reason: string, retryAt = 0, refusal?: Refusal): void {
    this.state = { phase, reason, retryAt, ...(refusal ? { refusal } : {}) };
    this.options.onState(this.state);
  }
}

/** Half a second, doubled with each failure, up to 15 s, with jitter so that many pages do not come back at once. */
export function backoff(failures: number, random: number = Math.random()): number {
  return Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** Math.max(0, failures - 1)) * (0.75 + random / 2);
}

export const missing = (): string => trans.__('This session does not exist on this server.');
export const ended = (): string => trans.__('This session has ended.');

interface Explanation {
  reason: string;
  delay?: number;
  refusal?: Refusal;
}

/** What a refused upgrade means, from the answer to a plain GET of the same address. */
export function explainRefusal(response: Response): Explanation | null {
  switch (response.status) {
    case 429: {
      const seconds = retryAfter(response) ?? 60;
      return { reason: trans.__('Too many connections were opened within a minute; waiting as the server asks.'), delay: seconds * 1000 };
    }
    case 401:
    case 403:
      return { reason: trans.__('Your login has expired. Sign in again and reload this page.'), refusal: 'login' };
    case 404:
      return { reason: missing(), refusal: 'missing' };
    case 409:
      return { reason: ended(), refusal: 'ended' };
    default:
      return null;
  }
}
