import type { FromFrame } from '../shared/wire';

/** A socket as noVNC wants one, whose other end is the page. */
export class PortChannel {
  binaryType = 'arraybuffer';
  readonly protocol = '';
  readyState: number = WebSocket.OPEN;
  onopen: (() => void) | null = null;
  onerror: (() => void) | null = null;
  onmessage: ((event: { data: ArrayBuffer }) => void) | null = null;
  onclose: ((event: { code: number; reason: string; wasClean: boolean }) => void) | null = null;

  constructor(private readonly post: (message: FromFrame, transfer?: Transferable[]) => void) {}

  send(data: Uint8Array): void {
    const bytes = data.slice().buffer; // noVNC writes into the same memory again
    this.post({ kind: 'send', bytes }, [bytes]);
  }

  close(): void {
    if (this.readyState === WebSocket.CLOSED) return;
    this.readyState = WebSocket.CLOSED;
    queueMicrotask(() => this.onclose?.({ code: 1000, reason: '', wasClean: true }));
  }
}
