/** A live picture of a desktop in an element: noVNC directly from the server, or frames relayed by a kernel. */

import type RFB from '@novnc/novnc';
import { headers, moduleUrl, resolve, socketUrl, type Address } from './address';
import { backoff, explainRefusal, type ConnectionState } from './connection';

export interface ScreenEvents {
  onState(state: ConnectionState): void;
  /** The size of the desktop in pixels, once it is known. */
  onSize?(width: number, height: number): void;
}

export interface Screen {
  /** Whether mouse and keyboard of this page reach the desktop. */
  interactive: boolean;
  focus(): void;
  retry(): void;
  close(): void;
}

/** Shows a screen in `element` until it is closed. */
export type ShowScreen = (element: HTMLElement, events: ScreenEvents) => Screen;

export function vncScreen(address: Address, id: string, viewer: string): ShowScreen {
  return (element, events) => new VncScreen(address, `vnc/${encodeURIComponent(id)}`, viewer, element, events);
}

class VncScreen implements Screen {
  private rfb: RFB | null = null;
  private wanted = false;
  private failures = 0;
  private closed = false;
  private waiting = false;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly address: Address,
    private readonly path: string,
    private readonly viewer: string,
    private readonly element: HTMLElement,
    private readonly events: ScreenEvents
  ) {
    globalThis.addEventListener('online', this.onOnline);
    globalThis.addEventListener('offline', this.onOffline);
    void this.connect();
  }

  get interactive(): boolean {
    return this.wanted;
  }

  set interactive(on: boolean) {
    this.wanted = on;
    if (this.rfb && this.rfb.viewOnly === on) this.rfb.viewOnly = !on;
  }

  focus(): void {
    this.rfb?.focus({ preventScroll: true });
  }

  retry(): void {
    if (this.waiting) void this.connect();
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
    globalThis.removeEventListener('online', this.onOnline);
    globalThis.removeEventListener('offline', this.onOffline);
    this.drop();
  }

  private readonly onOnline = (): void => this.retry();

  private readonly onOffline = (): void => {
    this.drop();
    this.waiting = true;
    clearTimeout(this.timer);
    this.report('offline', 'This computer is offline.');
  };

  private async connect(): Promise<void> {
    clearTimeout(this.timer);
    this.waiting = false;
    this.report('connecting', this.failures ? 'Connecting to the desktop again' : 'Connecting to the desktop');
    try {
      const url = moduleUrl(this.address, 'novnc.js');
      const module = (await import(/* webpackIgnore: true */ /* @vite-ignore */ url)) as { default: typeof RFB };
      if (!this.closed) this.start(module.default);
    } catch {
      if (!this.closed) await this.lost(false);
    }
  }

  private start(Client: typeof RFB): void {
    this.drop();
    const query = new URLSearchParams({ viewer: this.viewer });
    if (this.address.token) query.set('token', this.address.token);
    const rfb = new Client(this.element, `${socketUrl(this.address, this.path)}?${query.toString()}`, { shared: true });
    let opened = false;
    this.rfb = rfb;
    rfb.viewOnly = !this.wanted;
    rfb.scaleViewport = true;
    rfb.background = 'transparent';
    rfb.addEventListener('connect', () => {
      opened = true;
      this.failures = 0;
      const canvas = this.element.querySelector('canvas');
      if (canvas) this.events.onSize?.(canvas.width, canvas.height);
      this.report('open', 'Live');
    });
    rfb.addEventListener('disconnect', () => {
      if (this.rfb !== rfb) return;
      this.rfb = null;
      void this.lost(opened);
    });
  }

  private async lost(opened: boolean): Promise<void> {
    this.failures += 1;
    const refused = await this.askWhy();
    if (this.closed || this.rfb || this.waiting) return;
    if (refused?.final) return this.report('closed', refused.reason);
    const delay = refused?.delay ?? backoff(this.failures);
    this.waiting = true;
    const reason = refused?.reason ?? (opened ? 'The connection to the desktop was lost.' : 'The desktop cannot be reached.');
    this.report('waiting', reason, Date.now() + delay);
    this.timer = setTimeout(() => void this.connect(), delay);
  }

  private async askWhy(): Promise<ReturnType<typeof explainRefusal>> {
    try {
      const response = await fetch(resolve(this.address, this.path), { headers: headers(this.address) });
      return explainRefusal(response);
    } catch {
      return null; // the server is away: try again later
    }
  }

  private drop(): void {
    const rfb = this.rfb;
    this.rfb = null;
    rfb?.disconnect();
    this.element.replaceChildren();
  }

  private report(phase: ConnectionState['phase'], reason: string, retryAt = 0): void {
    this.events.onState({ phase, reason, retryAt });
  }
}
