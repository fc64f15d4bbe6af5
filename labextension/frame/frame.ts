/**
 * One desktop in a sandboxed document of its own: a desktop is hostile, and what it makes noVNC do must not take the
 * page with it. The page owns the connection; this frame draws what it is given and says what it has drawn.
 */

import { LONGEST_TEXT, type FromFrame, type ToFrame } from '../shared/wire';
import { PortChannel } from './channel';
import { Keyboard } from './keyboard';
import RFB from './novnc';

class Frame {
  private rfb: RFB | null = null;
  private channel: PortChannel | null = null;
  private interactive = false;
  private readonly keyboard: Keyboard;

  constructor(
    private readonly port: MessagePort,
    private readonly holder: HTMLElement,
    private readonly field: HTMLTextAreaElement
  ) {
    this.keyboard = new Keyboard(field, () => holder.querySelector('canvas'), {
      leave: () => this.post({ kind: 'leave' }),
      pasted: text => this.post({ kind: 'pasted', text: text.slice(0, LONGEST_TEXT) }),
      type: keysym => {
        this.rfb?.sendKey(keysym, null, true);
        this.rfb?.sendKey(keysym, null, false);
      }
    });
    holder.addEventListener('mousedown', event => this.takeFocus(event), { capture: true });
    addEventListener('focus', () => this.post({ kind: 'focused' }));
    port.onmessage = event => this.hear(event.data as ToFrame);
    this.post({ kind: 'ready' });
  }

  private hear(message: ToFrame): void {
    switch (message.kind) {
      case 'ping':
        return this.post({ kind: 'pong' });
      case 'data':
        return this.draw(message.bytes);
      case 'open':
        return this.start();
      case 'gone':
        return this.drop();
      case 'interactive':
        return this.setInteractive(message.on);
      case 'focus':
        return this.field.focus({ preventScroll: true });
      case 'paste':
        if (message.text !== null) this.rfb?.clipboardPasteFrom(message.text);
        return this.keyboard.answer(message.then);
    }
  }

  /** noVNC draws within the call, so that what it cannot keep up with waits on the page's side. */
  private draw(bytes: ArrayBuffer): void {
    const { byteLength } = bytes;
    try {
      this.channel?.onmessage?.({ data: bytes });
    } catch (error) {
      console.error('cambio_lab: the viewer could not draw what the desktop sent', error);
      this.fail();
    }
    this.post({ kind: 'drawn', bytes: byteLength });
  }

  private start(): void {
    this.drop();
    const channel = new PortChannel((message, transfer) => this.post(message, transfer));
    const rfb = new RFB(this.holder, channel as unknown as WebSocket, { shared: true });
    this.channel = channel;
    this.rfb = rfb;
    rfb.viewOnly = !this.interactive;
    rfb.scaleViewport = true;
    rfb.focusOnClick = false; // the text field has the focus
    rfb.background = 'transparent';
    rfb.addEventListener('connect', () => {
      const canvas = this.holder.querySelector('canvas');
      this.post({ kind: 'connected', width: canvas?.width ?? 0, height: canvas?.height ?? 0 });
    });
    rfb.addEventListener('clipboard', event => {
      const { text } = (event as CustomEvent<{ text: string }>).detail;
      this.post({ kind: 'copied', text: text.slice(0, LONGEST_TEXT) });
    });
    rfb.addEventListener('disconnect', () => {
      if (this.rfb === rfb) this.fail();
    });
  }

  private fail(): void {
    if (!this.channel) return;
    this.drop();
    this.post({ kind: 'failed' });
  }

  private drop(): void {
    const { rfb } = this;
    this.rfb = null;
    this.channel = null;
    rfb?.disconnect();
    this.holder.replaceChildren();
  }

  private setInteractive(on: boolean): void {
    this.interactive = on;
    if (this.rfb) this.rfb.viewOnly = !on;
    this.field.disabled = !on;
  }

  private takeFocus(event: MouseEvent): void {
    if (!this.interactive) return;
    // Where an input method shows its candidates.
    this.field.style.left = `${event.clientX}px`;
    this.field.style.top = `${event.clientY}px`;
    this.field.focus({ preventScroll: true });
  }

  private post(message: FromFrame, transfer: Transferable[] = []): void {
    this.port.postMessage(message, transfer);
  }
}

function onMessage(event: MessageEvent): void {
  const port = event.ports[0];
  if (event.source !== parent || !port) return;
  removeEventListener('message', onMessage);
  const holder = document.getElementById('screen');
  const field = document.getElementById('keys');
  if (holder && field instanceof HTMLTextAreaElement) new Frame(port, holder, field);
}

addEventListener('message', onMessage);
