/**
 * The notebook's view. It travels inside every notebook that saves widget state, so it holds no more than the decision
 * how to reach the server; everything else is loaded from the server, or through the kernel where that cannot be.
 */

import { findServer, headers, moduleUrl, resolve, type Address } from '../shared/address';
import type { Json } from '../shared/messages';

interface WidgetModel {
  get(name: string): unknown;
  on(event: string, listener: (...values: never[]) => void): void;
  off(event: string, listener: (...values: never[]) => void): void;
  send(content: unknown): void;
}

interface Frontend {
  mountPanel(element: HTMLElement, options: Json): Promise<() => void>;
}

interface Relay {
  mountRelay(element: HTMLElement, wire: Wire, options: Json): () => void;
}

export interface Wire {
  send(message: Json): void;
  /** Listens to the kernel's messages until the returned function is called. */
  listen(listener: (message: Json, buffers: DataView[]) => void): () => void;
}

const PATIENCE = 8000;

/** Tries thrice: a browser drops what it is fetching when the computer's networks change, as each container does. */
async function persist<T>(work: (tried: number) => Promise<T>): Promise<T> {
  for (let tried = 0; ; tried += 1) {
    try {
      return await work(tried);
    } catch (error) {
      if (tried === 2) throw error;
      await new Promise(done => setTimeout(done, 400));
    }
  }
}

/** Whether the page's own server has the session: a kernel may use a server elsewhere. */
async function owns(server: Address, id: string): Promise<boolean> {
  try {
    const url = resolve(server, `sessions/${encodeURIComponent(id)}`);
    const response = await persist(() => fetch(url, { headers: headers(server) }));
    return response.ok || response.status === 429;
  } catch {
    return false;
  }
}

function options(model: WidgetModel): { sessionId: string; mode: string; height: number } {
  return {
    sessionId: String(model.get('session_id') ?? ''),
    mode: String(model.get('mode') ?? 'panel'),
    height: Number(model.get('height') ?? 560)
  };
}

async function mount(model: WidgetModel, element: HTMLElement): Promise<() => void> {
  const wanted = options(model);
  const server = model.get('relay') ? null : findServer();
  if (server && (await owns(server, wanted.sessionId))) {
    const url = moduleUrl(server, 'panel.js');
    // Under the same address a browser may remember that a module could not be had.
    const panel = (await persist(tried => import(tried ? `${url}?${tried}` : url))) as Frontend;
    return panel.mountPanel(element, { address: server, ...wanted });
  }
  const { wire, relay, style } = await relayOf(model);
  return relay.mountRelay(element, wire, { ...wanted, style, base: String(model.get('base_url_hint') || '/'), elsewhere: server !== null });
}

interface Relayed {
  wire: Wire;
  relay: Relay;
  style: string;
}

const relays = new WeakMap<WidgetModel, Promise<Relayed>>();

/** One relay for all views of a widget: two of them would each hear the other's answers, and one's end would be both's. */
function relayOf(model: WidgetModel): Promise<Relayed> {
  const known = relays.get(model) ?? loadRelay(model);
  relays.set(model, known);
  known.catch(() => relays.delete(model)); // the next view tries again
  return known;
}

async function loadRelay(model: WidgetModel): Promise<Relayed> {
  const wire = makeWire(model);
  const [code, style] = await Promise.all([ask(wire, 'relay.js'), ask(wire, 'panel.css')]);
  const url = URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));
  try {
    return { wire, relay: (await import(url)) as Relay, style };
  } finally {
    URL.revokeObjectURL(url);
  }
}

function makeWire(model: WidgetModel): Wire {
  return {
    send: message => model.send(message),
    listen: listener => {
      const heard = (message: Json, buffers: DataView[]): void => listener(message, buffers);
      model.on('msg:custom', heard);
      return () => model.off('msg:custom', heard);
    }
  };
}

/** A file of our own package, through the kernel. */
function ask(wire: Wire, name: string): Promise<string> {
  return new Promise((done, fail) => {
    const timer = setTimeout(() => (stop(), fail(new Error('no kernel'))), PATIENCE);
    const stop = wire.listen(message => {
      if (message['kind'] !== 'module' || message['name'] !== name) return;
      clearTimeout(timer);
      stop();
      done(String(message['text']));
    });
    wire.send({ kind: 'module', name });
  });
}

function render({ model, el }: { model: WidgetModel; el: HTMLElement }): () => void {
  let unmount: (() => void) | null = null;
  let turn = 0;
  const show = async (): Promise<void> => {
    turn += 1;
    const mine = turn;
    unmount?.();
    unmount = null;
    const element = document.createElement('div');
    element.className = 'jp-Cambio-widget';
    element.style.minHeight = `${options(model).height}px`;
    element.textContent = 'Opening the agent’s desktop…';
    el.replaceChildren(element);
    try {
      const mounted = document.createElement('div');
      const undo = await mount(model, mounted);
      if (mine !== turn) return undo();
      unmount = undo;
      el.replaceChildren(mounted);
    } catch {
      element.style.minHeight = '';
      element.textContent = 'This was a live desktop. Run the cell again to see it, or look at the recorded steps.';
    }
  };
  for (const name of ['session_id', 'mode', 'height', 'relay']) model.on(`change:${name}`, show);
  void show();
  return () => {
    turn += 1;
    for (const name of ['session_id', 'mode', 'height', 'relay']) model.off(`change:${name}`, show);
    unmount?.();
  };
}

export default { render };
