/** What a page and the sandboxed frame that draws a desktop say to each other, over a port of their own. */

export type ToFrame =
  /** A connection to the desktop stands, or is gone. */
  | { kind: 'open' }
  | { kind: 'gone' }
  | { kind: 'data'; bytes: ArrayBuffer }
  | { kind: 'interactive'; on: boolean }
  | { kind: 'focus' }
  /**
   * The answer to `pasted`: the desktop's clipboard becomes `text` (null: it stays), then the keys that paste are
   * passed on (`keys`), pressed for the person (`chord`) or dropped.
   */
  | { kind: 'paste'; text: string | null; then: 'keys' | 'chord' | 'nothing' }
  | { kind: 'ping' };

export type FromFrame =
  | { kind: 'ready' }
  /** So many bytes were drawn. */
  | { kind: 'drawn'; bytes: number }
  | { kind: 'send'; bytes: ArrayBuffer }
  | { kind: 'connected'; width: number; height: number }
  | { kind: 'failed' }
  | { kind: 'focused' }
  /** The person pressed the keys that leave the desktop. */
  | { kind: 'leave' }
  | { kind: 'pasted'; text: string }
  | { kind: 'copied'; text: string }
  | { kind: 'pong' };

/** Characters of a clipboard that travel; more is cut. */
export const LONGEST_TEXT = 1_000_000;
