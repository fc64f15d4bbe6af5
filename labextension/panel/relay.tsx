/** The panel where the page cannot reach the server: everything goes through the kernel, pictures too. */

import { makeAddress } from '../shared/address';
import { Api } from '../shared/api';
import type { ConnectionState } from '../shared/connection';
import { SessionModel, type Line, type OpenLine } from '../shared/hub';
import { translate as t } from '../shared/language';
import type { Json, ServerMessage } from '../shared/messages';
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
  const address = makeAddress(options.base, NOWHERE);
  const api = new Api(address, wait => model.say(t('Too many requests; waiting %1 s as the server asks.', Math.ceil(wait))), relayFetch(wire, address.baseUrl), true);
  const model: SessionModel = new SessionModel(api, options.sessionId, relayLine(wire));
  const style = document.createElement('style');
  style.textContent = options.style;
  const inside = document.createElement('div');
  element.append(style, inside);
  const remark = options.elsewhere
    ? t('This session runs on another server: pictures are relayed by the kernel, and pause while it is busy.')
    : t('This page is not served by Jupyter: pictures are relayed by the kernel, and pause while it is busy.');
  const unmount = draw(inside, model, relayScreen(wire), options.mode, options.height, remark);
  return () => {
    unmount();
    model.close();
    element.replaceChildren();
  };
}

/** `fetch` for `Api`, over the wire. Paths are relative to the server's base URL. */
function relayFetch(wire: Wire, base: string): typeof fetch {
  let last = 0;
  return (input, init) =>
    new Promise((done, fail) => {
      const id = (last += 1);
      const timer = setTimeout(() => (stop(), fail(new Error('The kernel does not answer.'))), ANSWER_WITHIN);
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

function relayLine(wire: Wire): OpenLine {
  return (onMessage, onState, onOpen): Line => {
    let sequence: number | null = null;
    const open = (): void => wire.send({ kind: 'open', after: sequence });
    const stop = wire.listen(message => {
      if (message['kind'] === 'event') {
        const event = message['message'] as ServerMessage;
        if (sequence === null) onState({ phase: 'open', reason: 'Connected through the kernel', retryAt: 0 });
        sequence = event.sequence ?? sequence ?? 0;
        onMessage(event);
      } else if (message['kind'] === 'down') {
        onState({ phase: 'waiting', reason: String(message['reason'] ?? 'The connection was lost.'), retryAt: 0 });
      } else if (message['kind'] === 'up') {
        onState({ phase: 'open', reason: 'Connected through the kernel', retryAt: 0 });
      }
    });
    open();
    onOpen(false);
    return {
      send: message => (wire.send({ kind: 'send', message }), true),
      retry: open,
      close: () => (stop(), wire.send({ kind: 'close' }))
    };
  };
}

function relayScreen(wire: Wire): ShowScreen {
  return (element, events) => {
    const image = document.createElement('img');
    image.className = 'cl-frame';
    image.alt = t('The desktop, relayed by the kernel');
    element.append(image);
    let url = '';
    let timer: ReturnType<typeof setTimeout> | undefined;
    const state = (phase: ConnectionState['phase'], reason: string): void => events.onState({ phase, reason, retryAt: 0 });
    const ask = (): void => {
      if (document.hidden) timer = setTimeout(ask, 1000);
      else wire.send({ kind: 'frame', width: Math.min(1280, Math.round(element.clientWidth * devicePixelRatio) || 800) });
    };
    const stop = wire.listen((message, buffers) => {
      if (message['kind'] !== 'frame') return;
      if (buffers[0]) {
        URL.revokeObjectURL(url);
        url = URL.createObjectURL(new Blob([bytes(buffers[0])]));
        image.src = url;
        events.onSize?.(Number(message['width']), Number(message['height']));
      }
      state('open', 'Relayed');
      timer = setTimeout(ask, FRAME_EVERY);
    });
    state('connecting', 'Waiting for the first picture');
    ask();
    return {
      interactive: false,
      focus: () => undefined,
      retry: ask,
      close: () => {
        clearTimeout(timer);
        stop();
        URL.revokeObjectURL(url);
      }
    };
  };
}
