/** One message on its way to the server: visible while it waits, confirmed by the server's event, else given back. */

import { trans } from './language';
import type { ClientMessage, ServerMessage } from './messages';

/** An image that goes with a message: uploaded already, under this digest. */
export interface Attachment {
  digest: string;
  /** An object URL to show it. */
  url: string;
  name: string;
}

export interface Outgoing {
  text: string;
  images: readonly Attachment[];
  /** `waiting` for the connection, `sent` but not confirmed, or `returned` to be written again. */
  state: 'waiting' | 'sent' | 'returned';
}

/** Milliseconds. A message that was written longer ago would answer a screen that has changed since. */
export const PATIENCE = 20_000;

export class Outbox {
  current: Outgoing | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly transmit: (message: ClientMessage) => boolean,
    /** Called after each change; with words when a message is given back. */
    private readonly changed: (notice?: string) => void
  ) {}

  /** Sends `text`, or keeps it in sight until there is a connection. False while another message is on its way. */
  put(text: string, when: 'next' | 'idle' = 'idle', images: readonly Attachment[] = []): boolean {
    if (this.current) return false;
    this.current = { text, images, state: this.transmit(said(text, when, images)) ? 'sent' : 'waiting' };
    this.timer = setTimeout(() => this.giveBack(this.expired()), PATIENCE);
    this.changed();
    return true;
  }

  /** Looks whether `message` confirms, refuses or allows the message that is on its way. */
  hear(message: ServerMessage): void {
    if (!this.current) return;
    if (message.type === 'error') return this.current.state === 'sent' ? this.giveBack() : undefined;
    if (message.type !== 'status') return;
    const { event, message: words } = message.metadata ?? {};
    if ((event === 'user_message' || event === 'message_queued') && words === this.current.text) return this.clear();
    if (this.current.state !== 'waiting') return;
    if (message.status !== 'idle') return this.giveBack(trans.__('Not sent: the agent is at work on another message.'));
    if (this.transmit(said(this.current.text, 'idle', this.current.images))) this.current = { ...this.current, state: 'sent' };
    this.changed();
  }

  /** Puts the text back into the writer's hands. */
  giveBack(notice?: string): void {
    if (!this.current) return;
    clearTimeout(this.timer);
    this.current = { ...this.current, state: 'returned' };
    this.changed(notice);
  }

  clear(): void {
    clearTimeout(this.timer);
    this.current = null;
    this.changed();
  }

  private expired(): string {
    return this.current?.state === 'sent'
      ? trans.__('The server has not confirmed this message. Look whether it arrived before you send it again.')
      : trans.__('Not sent: there is no connection to the server. Try again when it is back.');
  }
}

function said(text: string, when: 'next' | 'idle', images: readonly Attachment[]): ClientMessage {
  return { content: text, when, ...(images.length ? { images: images.map(image => image.digest) } : {}) };
}
