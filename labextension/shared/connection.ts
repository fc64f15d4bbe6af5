/** The messages of one `/ws` connection; after a loss it goes on where it stopped. */

import type { Address } from './address';
import { Line, type ConnectionState, type Refusal } from './line';
import { parseMessage, type ClientMessage, type ServerMessage } from './messages';

export interface ConnectionOptions {
  address: Address;
  /** `ws/ID` or `ws`. */
  path: string;
  stream?: boolean;
  onMessage: (message: ServerMessage) => void;
  onState: (state: ConnectionState) => void;
  /** Called after each connection; `resumed` is false when events may have been missed. */
  onOpen?: (resumed: boolean) => void;
  WebSocketClass?: typeof WebSocket;
  fetcher?: typeof fetch;
}

/** Two and a half heartbeats of the server's default, in milliseconds. */
const SILENCE = 75_000;
const WORDS = {
  first: 'Connecting',
  again: 'Connecting again',
  lost: 'The connection was lost.',
  unreachable: 'The server does not answer.'
};

export class Connection {
  private sequence: number | null = null;
  private resumed = false;
  private readonly line: Line;

  constructor({ address, path, stream, onMessage, onOpen, ...options }: ConnectionOptions) {
    this.line = new Line({
      ...options,
      address,
      path,
      words: WORDS,
      silence: SILENCE,
      query: () => {
        this.resumed = this.sequence !== null;
        const query = new URLSearchParams(stream ? { stream: 'true' } : {});
        if (this.sequence !== null) query.set('after', String(this.sequence));
        return query;
      },
      onOpen: () => onOpen?.(this.resumed),
      onData: data => {
        const message = parseMessage(String(data));
        if (!message) return;
        if (typeof message.sequence === 'number') this.sequence = message.sequence;
        onMessage(message);
      }
    });
    this.line.connect();
  }

  /**
   * Sends now, or returns false. Nothing is queued: a Stop or a message that arrives minutes later would act on
   * another turn than the one that was on screen.
   */
  send(message: ClientMessage): boolean {
    return this.line.send(JSON.stringify(message));
  }

  retry(): void {
    this.line.retry();
  }

  close(reason?: string, refusal?: Refusal): void {
    this.line.close(reason, refusal);
  }
}
