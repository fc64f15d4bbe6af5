/** The panel where the page cannot reach the server: everything goes through the kernel, screenshots too. */

import { makeAddress } from '../shared/address';
import { Api } from '../shared/api';
import type { ConnectionState } from '../shared/line';
import { SessionModel, type OpenChannel } from '../shared/hub';
import { trans } from '../shared/language';
import type { Json, ServerMessage } from '../shared/messages';
import type { Channel } from '../shared/page';
import type { ShowScreen } from '../shared/screen';
import type { Mode } from '../shared/views/panel';
import type { Wire } from '../widget/widget';
import { draw } from './draw';

interface RelayOptions {
  sessionId: string;
  mode: Mode;
  height: number;
  style: string;
  /** The server's base URL path, with which the addresses that it gives begin. */
  base: string;
  /** The page is Jupyter's, but its server is another one. */
  elsewhere: boolean;
}

/** Stands for the server's origin, which only the kernel knows. */
const NOWHERE = 'https://relay.invalid';
const ANSWER_WITHIN = 30_000;
const FRAME_EVERY = 400;

export function mountRelay(element: HTMLElement, wire: Wire, options: RelayOptions): () => void {
  const shared = share(wire, options);
  const style = document.createElement('style');
  style.textContent = options.style;
  const inside = document.createElement('div');
  element.append(style, inside);
  const remark = options.elsewhere
    ? trans.__('This session runs on another server: screenshots are relayed by the kernel, and pause while it is busy.')
    : trans.__('This page is not served by Jupyter: screenshots are relayed by the kernel, and pause while it is busy.');
  const unmount = draw(inside, shared.model, relayScreen(shared.frames), options.mode, options.height, remark);
  return () => {
    unmount();
    release(wire, shared);
    element.replaceChildren();
  };
}

/** What the views of one widget have in common: a conversation with the kernel, and the screenshots that it sends. */
interface Shared {
  model: SessionModel;
  frames: Frames;
  sessionId: string;
  views: number;
}

const all = new Map<Wire, Shared>();

function share(wire: Wire, { base, sessionId }: RelayOptions): Shared {
  let shared = all.get(wire);
  if (!shared || shared.sessionId !== sessionId) {
    const address = makeAddress(base, NOWHERE);
    const waits = (wait: number): void => model.say(trans.__('Too many requests; waiting %1 s as the server asks.', Math.ceil(wait)));
    const api = new Api(address, waits, relayFetch(wire, address.baseUrl), true);
    const model: SessionModel = new SessionModel(api, sessionId, relayChannel(wire));
    shared = { model, frames: new Frames(wire), sessionId, views: 0 };
    all.set(wire, shared);
  }
  shared.views += 1;
  return shared;
}

function release(wire: Wire, shared: Shared): void {
  shared.views -= 1;
  if (shared.views) return;
  shared.model.close();
  if (all.get(wire) === shared) all.delete(wire);
}

/** `fetch` for `Api`, over the wire. Paths are relative to the server's base URL. */
function relayFetch(wire: Wire, base: string): typeof fetch {
  let last = 0;
  return (input, init) =>
    new Promise((done, fail) => {
      const id = (last += 1);
      const timer = setTimeout(() => (stop(), fail(new Error(trans.__('The kernel does not answer.')))), ANSWER_WITHIN);
      const stop = wire.listen((message, buffers) => {
        if (message['kind'] !== 'rest' || message['id'] !== id) return;
        clearTimeout(timer);
        stop();
        done(answer(message, buffers));
      });
      const path = String(input).replace(base, '');
      const body = typeof init?.body === 'string' ? { body: JSON.parse(init.body) as Json } : {};
      wire.send({ kind: 'rest', id, method: init?.method ?? 'GET', path, ...body });
    });
}

function answer(message: Json, buffers: DataView[]): Response {
  const buffer = buffers[0];
  const type = typeof message['content_type'] === 'string' ? message['content_type'] : 'application/json';
  return new Response(buffer ? bytes(buffer) : JSON.stringify(message['body'] ?? {}), {
    status: Number(message['status']) || 502,
    headers: { ...(message['headers'] as Record<string, string> | undefined), 'Content-Type': type }
  });
}

/** A copy: the kernel's message may share its memory with others. */
function bytes(view: DataView): ArrayBuffer {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength).slice().buffer;
}

function relayChannel(wire: Wire): OpenChannel {
  return ({ onMessage, onState, onOpen }): Channel => {
    let sequence: number | null = null;
    let standing = false;
    const state = (phase: 'open' | 'waiting', reason: string): void => {
      standing = phase === 'open';
      onState({ phase, reason, retryAt: 0 });
    };
    const open = (): void => wire.send({ kind: 'open', after: sequence });
    const stop = wire.listen(message => {
      if (message['kind'] === 'event') {
        const event = message['message'] as ServerMessage;
        if (!standing) state('open', trans.__('Connected through the kernel'));
        sequence = event.sequence ?? sequence ?? 0;
        onMessage(event);
      } else if (message['kind'] === 'down') {
        state('waiting', String(message['reason'] ?? trans.__('The connection was lost.')));
      } else if (message['kind'] === 'up') {
        state('open', trans.__('Connected through the kernel'));
      }
    });
    open();
    onOpen(false);
    return {
      send: message => {
        if (standing) wire.send({ kind: 'send', message });
        return standing;
      },
      retry: open,
      close: () => (stop(), wire.send({ kind: 'close' }))
    };
  };
}

type FrameListener = (url: string, width: number, height: number) => void;

/** Screenshots of now, asked for one at a time while anything shows them, however many views that is. */
class Frames {
  private readonly listeners = new Map<FrameListener, HTMLElement>();
  private url = '';
  private size: [number, number] = [0, 0];
  private timer: ReturnType<typeof setTimeout> | undefined;
  private stop: (() => void) | null = null;

  constructor(private readonly wire: Wire) {}

  /** Shows frames, as wide as `element`, until the returned function is called. */
  show(element: HTMLElement, listener: FrameListener): () => void {
    this.listeners.set(listener, element);
    if (this.url) listener(this.url, ...this.size);
    this.stop ??= this.wire.listen(this.onMessage);
    this.ask();
    return () => {
      this.listeners.delete(listener);
      if (!this.listeners.size) this.end();
    };
  }

  readonly ask = (): void => {
    clearTimeout(this.timer);
    if (document.hidden) this.timer = setTimeout(this.ask, 1000);
    else this.wire.send({ kind: 'frame', width: this.width() });
  };

  private width(): number {
    const widest = Math.max(...[...this.listeners.values()].map(element => element.clientWidth));
    return Math.min(1280, Math.round(widest * devicePixelRatio) || 800);
  }

  private readonly onMessage = (message: Json, buffers: DataView[]): void => {
    if (message['kind'] !== 'frame') return;
    const before = this.url;
    if (buffers[0]) {
      this.url = URL.createObjectURL(new Blob([bytes(buffers[0])]));
      this.size = [Number(message['width']), Number(message['height'])];
    }
    for (const listener of this.listeners.keys()) listener(this.url, ...this.size);
    if (before !== this.url) URL.revokeObjectURL(before);
    clearTimeout(this.timer); // the answers of two questions are one reason to ask again
    this.timer = setTimeout(this.ask, FRAME_EVERY);
  };

  private end(): void {
    clearTimeout(this.timer);
    this.stop?.();
    this.stop = null;
    URL.revokeObjectURL(this.url);
    this.url = '';
  }
}

function relayScreen(frames: Frames): ShowScreen {
  return (element, events) => {
    const image = document.createElement('img');
    image.className = 'jp-Cambio-frame';
    image.alt = trans.__('The desktop, relayed by the kernel');
    element.append(image);
    const state = (phase: ConnectionState['phase'], reason: string): void => events.onState({ phase, reason, retryAt: 0 });
    state('connecting', trans.__('Waiting for the first screenshot'));
    const stop = frames.show(element, (url, width, height) => {
      if (url && image.src !== url) {
        image.src = url;
        events.onSize?.(width, height);
      }
      state('open', trans.__('Relayed'));
    });
    return { interactive: false, focus: () => undefined, retry: frames.ask, close: stop };
  };
}
