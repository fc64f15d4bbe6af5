/** The documented REST API. One class, no state but the address. */

import { trans } from './language';
import { headers, resolve, type Address } from './address';
import type { Json, ServerMessage, Status } from './messages';
import type { Session, WholeWall } from './schema';

export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly details: Json = {},
    readonly retryAfter: number | null = null
  ) {
    super(message);
    this.name = 'ApiError';
  }
}

/** A session as lists and details show it; lists leave out what only details have. */
export type SessionSummary = Pick<Session, 'id' | 'status' | 'created_at'> & Partial<Session> & { name: string };

export interface Page<T> {
  items: T[];
  total: number;
}

/** An experiment without its cells, as the list has it. */
export type Wall = Omit<WholeWall, 'cells' | 'live'>;

/** Told when a request must wait because the server counted too many (429). */
export type WaitListener = (seconds: number) => void;

const LONGEST_WAIT = 70;
/** Milliseconds before a read that got no answer is tried again: browsers give up requests when a network interface comes or goes, as one does with each container. */
const READ_AGAIN = [250, 1000];
/** Milliseconds within which a read of JSON is answered, or tried again: a connection may be dead without knowing it. */
const ANSWERED_WITHIN = 8000;

export class Api {
  constructor(
    readonly address: Address,
    private readonly onWait: WaitListener = () => undefined,
    private readonly fetcher: typeof fetch = (...args) => fetch(...args),
    /** True where a kernel carries the requests: URLs of the server then mean nothing to the page. */
    readonly relayed = false
  ) {}

  url(path: string): string {
    return resolve(this.address, path);
  }

  createSession(name: string | null, config: Json): Promise<SessionSummary> {
    return this.json('POST', 'sessions', name ? { name, config } : { config });
  }

  /** A new session like the one that ended, with its conversation, on a fresh desktop. */
  async continueSession(id: string): Promise<SessionSummary> {
    const { name, config } = await this.session(id);
    const kept = Object.entries(config ?? {}).filter(([key]) => !['record', 'record_mode', 'fork', 'secrets'].includes(key));
    return this.createSession(name ?? null, { ...Object.fromEntries(kept), fork: { run: id } });
  }

  session(id: string): Promise<SessionSummary> {
    return this.json('GET', `sessions/${encodeURIComponent(id)}`);
  }

  /** Stops the turn that answers the message `turn`, without a socket; '' stops whichever turn runs. */
  stop(id: string, turn: string): Promise<{ state: Status }> {
    return this.json('POST', `sessions/${encodeURIComponent(id)}/stop`, turn ? { message_id: turn } : {});
  }

  async sessions(query: Record<string, string | number>): Promise<Page<SessionSummary>> {
    const body = await this.json<{ sessions: SessionSummary[]; total: number }>('GET', `sessions?${search(query)}`);
    return { items: body.sessions, total: body.total };
  }

  endSession(id: string): Promise<{ ended_at: string }> {
    return this.json('DELETE', `sessions/${encodeURIComponent(id)}`);
  }

  changeSession(id: string, change: Json): Promise<SessionSummary> {
    return this.json('PATCH', `sessions/${encodeURIComponent(id)}`, change);
  }

  /** What happened after the event `after`, up to the event `last`, in order. */
  async events(id: string, after: number, last: number): Promise<ServerMessage[]> {
    const found: ServerMessage[] = [];
    for (let position = after; position < last;) {
      const path = `sessions/${encodeURIComponent(id)}/events?${search({ after: position, limit: 200 })}`;
      const { events, has_next: more } = await this.json<{ events: ServerMessage[]; has_next: boolean }>('GET', path);
      found.push(...events.filter(event => (event.sequence ?? 0) <= last));
      const reached = events.at(-1)?.sequence ?? 0;
      if (!more || reached <= position) break;
      position = reached;
    }
    return found;
  }

  clearHistory(id: string): Promise<{ cleared_messages: number }> {
    return this.json('DELETE', `sessions/${encodeURIComponent(id)}/history`);
  }

  models(): Promise<{ models: Json[]; default: string }> {
    return this.json('GET', 'cambio/models');
  }

  defaults(): Promise<Json> {
    return this.json('GET', 'cambio/defaults');
  }

  /** The screenshot of now, as PNG. */
  async screenshot(id: string): Promise<Blob> {
    return (await this.request('GET', `sessions/${encodeURIComponent(id)}/screenshot`)).blob();
  }

  async run(id: string): Promise<Blob> {
    return (await this.request('GET', `sessions/${encodeURIComponent(id)}/run`)).blob();
  }

  /** Stores an image for a message of this session; the digest is its name. */
  async putImage(id: string, image: Blob): Promise<string> {
    const response = await this.request('PUT', `sessions/${encodeURIComponent(id)}/images`, image);
    return ((await response.json()) as { sha256: string }).sha256;
  }

  /** What a run can be exported as. */
  async formats(): Promise<{ name: string; ending: string; summary: string }[]> {
    return (await this.json<{ formats: { name: string; ending: string; summary: string }[] }>('GET', 'cambio/formats')).formats;
  }

  /** The run in a format by name, and the file's name. */
  async exportRun(id: string, format: string): Promise<{ name: string; blob: Blob }> {
    const response = await this.request('GET', `sessions/${encodeURIComponent(id)}/run?format=${encodeURIComponent(format)}`);
    const name = /filename="([^"]+)"/.exec(response.headers.get('Content-Disposition') ?? '')?.[1] ?? 'run.cambio';
    return { name, blob: await response.blob() };
  }

  /** A run file in a format by name. */
  async convert(run: Uint8Array, format: string): Promise<Blob> {
    const path = this.url(`cambio/export?format=${encodeURIComponent(format)}`);
    const sent = { 'Content-Type': 'application/octet-stream' };
    const answer = await this.fetcher(path, {
      method: 'PUT',
      credentials: 'same-origin',
      headers: { ...headers(this.address), ...sent },
      body: run as BodyInit
    });
    if (!answer.ok) throw await failure(answer);
    return answer.blob();
  }

  async experiments(): Promise<Wall[]> {
    return (await this.json<{ experiments: Wall[] }>('GET', 'cambio/experiments')).experiments;
  }

  experiment(id: string): Promise<WholeWall> {
    return this.json('GET', `cambio/experiments/${encodeURIComponent(id)}`);
  }

  async cellRun(id: string, run: string): Promise<Blob> {
    return (await this.request('GET', `cambio/experiments/${encodeURIComponent(id)}/runs/${encodeURIComponent(run)}`)).blob();
  }

  annotateCell(id: string, change: { cell: string; tags?: string[]; note?: string }): Promise<Json> {
    return this.json('PATCH', `cambio/experiments/${encodeURIComponent(id)}`, change);
  }

  deleteRun(id: string): Promise<Json> {
    return this.json('DELETE', `sessions/${encodeURIComponent(id)}/run`);
  }

  private async json<T>(method: string, path: string, body?: Json): Promise<T> {
    return (await (await this.request(method, path, body, method === 'GET' ? ANSWERED_WITHIN : Infinity)).json()) as T;
  }

  /** Repeats a request that was refused with 429, after the time that the server names, and a read that got no answer. */
  async request(method: string, path: string, body?: Json | Blob, within = Infinity): Promise<Response> {
    const json = body !== undefined && !(body instanceof Blob);
    const init: RequestInit = {
      method,
      credentials: 'same-origin',
      headers: {
        ...headers(this.address),
        ...(json ? { 'Content-Type': 'application/json' } : {})
      },
      ...(body === undefined ? {} : { body: body instanceof Blob ? body : JSON.stringify(body) })
    };
    const pauses = method === 'GET' ? [...READ_AGAIN] : [];
    for (;;) {
      let response: Response;
      try {
        response = await this.answer(path, init, within);
      } catch (error) {
        const pause = pauses.shift();
        if (pause === undefined) throw error;
        await new Promise(done => setTimeout(done, pause));
        continue;
      }
      if (response.ok) return response;
      const wait = retryAfter(response);
      if (response.status !== 429 || wait === null || wait > LONGEST_WAIT) throw await failure(response);
      this.onWait(wait);
      await new Promise(done => setTimeout(done, wait * 1000));
    }
  }

  private async answer(path: string, init: RequestInit, within: number): Promise<Response> {
    if (within === Infinity) return this.fetcher(this.url(path), init);
    const control = new AbortController();
    const timer = setTimeout(() => control.abort(), within);
    try {
      return await this.fetcher(this.url(path), { ...init, signal: control.signal });
    } finally {
      clearTimeout(timer);
    }
  }
}

function search(query: Record<string, string | number>): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== '') parameters.set(name, String(value));
  return parameters.toString();
}

/** Seconds, at least one: a server that says 0 would otherwise be asked in a tight loop. */
export function retryAfter(response: Response): number | null {
  const seconds = Number(response.headers.get('Retry-After') ?? NaN);
  return Number.isFinite(seconds) ? Math.max(1, seconds) : null;
}

async function failure(response: Response): Promise<ApiError> {
  let body: { message?: string; error?: string; details?: Json } = {};
  try {
    body = (await response.json()) as typeof body;
  } catch {
    // A proxy in between answers in HTML: the status is all there is to say.
  }
  const hint = typeof body.details?.['hint'] === 'string' ? ` ${body.details['hint']}` : '';
  const message = (body.message ?? body.error ?? trans.__('The server answered %1.', response.status)) + hint;
  return new ApiError(message, response.status, body.details ?? {}, retryAfter(response));
}
