/** The page's side of the sandboxed frame that draws a desktop: bytes by the window, and a watchdog. */

import { moduleUrl, type Address } from './address';
import { trans } from './language';
import type { FromFrame, ToFrame } from './wire';

export interface FrameEvents {
  onReady(): void;
  onMessage(message: Exclude<FromFrame, { kind: 'ready' | 'drawn' | 'pong' }>): void;
  /** The frame does not answer, or cannot draw as fast as the desktop sends. */
  onStuck(reason: string): void;
}

/** Bytes that the frame has been given and has not drawn, at most; the rest waits here. */
const WINDOW = 1 << 20;
const PIECE = 1 << 16;
/** Bytes that wait here, at most: a browser's WebSocket has no back-pressure of its own. */
const LONGEST_QUEUE = 32 << 20;
const PING_EVERY = 1000;
/** Pings without an answer. Counted rather than timed: a page that sleeps or is hidden counts none. */
const MISSED = 5;
/** Milliseconds until a frame that did not load is loaded again. */
const LOAD_WITHIN = 8000;

export class DesktopFrame {
  private readonly element = document.createElement('iframe');
  private port: MessagePort | null = null;
  private queue: ArrayBuffer[] = [];
  private queued = 0;
  private undrawn = 0;
  private missed = 0;
  private ready = false;
  private readonly pulse: ReturnType<typeof setInterval>;
  private loading: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly address: Address,
    holder: HTMLElement,
    private readonly events: FrameEvents
  ) {
    const { element } = this;
    element.setAttribute('sandbox', 'allow-scripts'); // no origin: neither cookies nor this page are within its reach
    element.tabIndex = -1; // the keyboard goes there with *Take control*, and a person is never caught by Tab
    element.title = trans.__('Desktop');
    element.addEventListener('load', () => this.meet());
    this.pulse = setInterval(() => this.beat(), PING_EVERY);
    this.load(0);
    holder.replaceChildren(element);
  }

  tell(message: ToFrame): void {
    this.port?.postMessage(message);
  }

  /** Gives bytes of the desktop to the frame, as fast as it draws them. */
  draw(bytes: ArrayBuffer): void {
    for (let at = 0; at < bytes.byteLength; at += PIECE) this.queue.push(bytes.slice(at, at + PIECE));
    this.queued += bytes.byteLength;
    if (this.queued > LONGEST_QUEUE) this.events.onStuck(trans.__('The desktop sends more than this page can draw. The session goes on.'));
    else this.flow();
  }

  /** Forgets what waits to be drawn: the connection that it came from is gone. */
  clear(): void {
    this.queue = [];
    this.queued = 0;
  }

  focus(): void {
    this.element.focus({ preventScroll: true });
    this.tell({ kind: 'focus' });
  }

  get focused(): boolean {
    return document.activeElement === this.element;
  }

  close(): void {
    clearInterval(this.pulse);
    clearTimeout(this.loading);
    this.port?.close();
    this.port = null;
    this.clear();
    this.element.remove();
  }

  /** A browser drops what it is fetching when the computer's networks change, so that a frame may not load. */
  private load(tries: number): void {
    this.element.src = moduleUrl(this.address, 'frame.html') + (tries ? `?${tries}` : '');
    this.loading = setTimeout(() => this.load(tries + 1), LOAD_WITHIN);
  }

  private meet(): void {
    const { port1, port2 } = new MessageChannel();
    this.port?.close();
    this.port = port1;
    port1.onmessage = event => this.hear(event.data as FromFrame);
    this.element.contentWindow?.postMessage('cambio_lab', '*', [port2]); // a frame without origin has no other name
  }

  private hear(message: FromFrame): void {
    switch (message.kind) {
      case 'ready':
        clearTimeout(this.loading);
        this.ready = true;
        return this.events.onReady();
      case 'drawn':
        this.undrawn = Math.max(0, this.undrawn - message.bytes);
        return this.flow();
      case 'pong':
        this.missed = 0;
        return undefined;
      case 'focused':
        // Focus within a frame is no event of the page, and JupyterLab follows focus to know which tab is in front.
        this.element.dispatchEvent(new FocusEvent('focus'));
        return this.events.onMessage(message);
      default:
        return this.events.onMessage(message);
    }
  }

  private flow(): void {
    while (this.port && this.undrawn < WINDOW) {
      const bytes = this.queue.shift();
      if (!bytes) return;
      this.queued -= bytes.byteLength;
      this.undrawn += bytes.byteLength;
      this.port.postMessage({ kind: 'data', bytes } satisfies ToFrame, [bytes]);
    }
  }

  private beat(): void {
    if (!this.ready || document.hidden) return;
    if (this.missed >= MISSED) return this.events.onStuck(trans.__('The viewer does not answer any more. The session goes on.'));
    this.missed += 1;
    this.tell({ kind: 'ping' });
  }
}
