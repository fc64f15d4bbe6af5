/** A live desktop in an element: directly from the server, drawn in a frame of its own. */

import { clipboardConsent, rememberConsent } from './clipboard';
import { DesktopFrame } from './frame';
import { trans } from './language';
import { Line, type ConnectionState, type LineWords } from './line';
import type { Address } from './address';
import type { FromFrame } from './wire';

export interface ScreenEvents {
  onState(state: ConnectionState): void;
  /** The size of the desktop in pixels, once it is known. */
  onSize?(width: number, height: number): void;
  /** The person pressed the keys that leave the desktop. */
  onLeave?(): void;
  /** Asks once whether to share the clipboard; `answer` may be called later, or never. */
  onClipboard?(answer: (yes: boolean) => void): void;
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

const WORDS: LineWords = {
  get first() {
    return trans.__('Connecting to the desktop');
  },
  get again() {
    return trans.__('Connecting to the desktop again');
  },
  get lost() {
    return trans.__('The connection to the desktop was lost.');
  },
  get unreachable() {
    return trans.__('The desktop cannot be reached.');
  }
};

class VncScreen implements Screen {
  private readonly line: Line;
  private frame: DesktopFrame | null = null;
  private wanted = false;

  constructor(
    private readonly address: Address,
    path: string,
    viewer: string,
    private readonly element: HTMLElement,
    private readonly events: ScreenEvents
  ) {
    this.line = new Line({
      address,
      path,
      query: () => new URLSearchParams({ viewer }),
      words: WORDS,
      onData: data => data instanceof ArrayBuffer && this.frame?.draw(data),
      onOpen: () => this.frame?.tell({ kind: 'open' }),
      onLost: () => this.blank(),
      // An open line shows nothing yet: the frame says when there is a desktop to see.
      onState: state => this.report(state.phase === 'open' ? { ...state, phase: 'connecting', reason: WORDS.first } : state)
    });
    this.report(this.line.state);
    this.show();
  }

  get interactive(): boolean {
    return this.wanted;
  }

  set interactive(on: boolean) {
    this.wanted = on;
    this.frame?.tell({ kind: 'interactive', on });
  }

  focus(): void {
    this.frame?.focus();
  }

  retry(): void {
    if (this.frame) this.line.retry();
    else this.show();
  }

  close(): void {
    this.line.close();
    this.hide();
  }

  private show(): void {
    this.frame = new DesktopFrame(this.address, this.element, {
      onReady: () => {
        this.frame?.tell({ kind: 'interactive', on: this.wanted });
        if (this.line.state.phase !== 'closed') this.line.connect();
      },
      onMessage: message => this.hear(message),
      onStuck: reason => {
        this.hide();
        this.line.rest(reason);
      }
    });
  }

  private hide(): void {
    this.frame?.close();
    this.frame = null;
  }

  private blank(): void {
    this.frame?.clear();
    this.frame?.tell({ kind: 'gone' });
  }

  private hear(message: FromFrame): void {
    switch (message.kind) {
      case 'send':
        return void this.line.send(message.bytes);
      case 'connected':
        this.events.onSize?.(message.width, message.height);
        return this.report({ phase: 'open', reason: trans.__('Live'), retryAt: 0 });
      case 'failed':
        return this.line.fail();
      case 'leave':
        return this.events.onLeave?.();
      case 'pasted':
        return this.paste(message.text);
      case 'copied':
        return this.copy(message.text);
      default:
        return undefined;
    }
  }

  private paste(text: string): void {
    const consent = clipboardConsent();
    if (consent === 'yes') return this.frame?.tell({ kind: 'paste', text, then: 'keys' });
    if (consent === 'no' || !this.events.onClipboard) return this.frame?.tell({ kind: 'paste', text: null, then: 'keys' });
    this.frame?.tell({ kind: 'paste', text: null, then: 'nothing' });
    return this.ask(() => this.frame?.tell({ kind: 'paste', text, then: 'chord' }));
  }

  private copy(text: string): void {
    if (!this.wanted || !this.frame?.focused) return; // only what the person who uses the desktop copied
    const consent = clipboardConsent();
    if (consent === 'yes') void write(text);
    else if (consent === 'ask') this.ask(() => void write(text));
  }

  private ask(yes: () => void): void {
    this.events.onClipboard?.(shared => {
      rememberConsent(shared);
      if (shared) yes();
      this.focus();
    });
  }

  private report(state: ConnectionState): void {
    this.events.onState(state);
  }
}

async function write(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch (error) {
    console.warn('cambio_lab: the browser does not let this page write to the clipboard', error);
  }
}
