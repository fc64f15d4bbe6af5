/**
 * Keys of a text field, passed on to noVNC's canvas. A text field, because only there do input methods compose and
 * browsers hand over what is pasted; noVNC listens on a canvas, which has neither.
 */

import { plainKeys, pastes, leaves, keysymOf, macKeys, type KeyInit } from './keys';

export interface KeyboardEvents {
  leave(): void;
  /** What the person pastes; `answer` must follow. */
  pasted(text: string): void;
  /** Types one character, whatever the layout. */
  type(keysym: number): void;
}

/** Milliseconds that a browser takes to hand over a clipboard, at most; an empty one never comes. */
const PASTE_WITHIN = 150;

export class Keyboard {
  private held: KeyInit[] | null = null;
  private pasting: KeyInit | null = null;
  /** What pasted last, to be pressed for the person when the answer comes later. */
  private last: KeyInit = { key: 'v', code: 'KeyV', ctrlKey: true };
  private timer: ReturnType<typeof setTimeout> | undefined;
  private readonly mac = /mac/i.test(navigator.platform);

  constructor(
    private readonly field: HTMLTextAreaElement,
    private readonly canvas: () => HTMLCanvasElement | null,
    private readonly events: KeyboardEvents
  ) {
    field.addEventListener('keydown', event => this.onKey(event));
    field.addEventListener('keyup', event => this.onKey(event));
    field.addEventListener('blur', () => this.canvas()?.dispatchEvent(new Event('blur')));
    field.addEventListener('paste', event => this.onPaste(event));
    field.addEventListener('compositionend', event => this.onText(event.data));
    field.addEventListener('input', event => {
      const { isComposing, data } = event as InputEvent;
      if (!isComposing && field.value) this.onText(data ?? '');
    });
  }

  /** Goes on after a paste: with the keys that were pressed, pressed again for the person, or without them. */
  answer(then: 'keys' | 'chord' | 'nothing'): void {
    if (then === 'keys' && this.pasting) this.press(this.pasting);
    if (then === 'chord') for (const [type, key] of chord(this.last)) this.pass(type, key);
    this.release();
  }

  private onKey(event: KeyboardEvent): void {
    if (event.isComposing || event.keyCode === 229) return; // the input method's own; compositionend says the text
    if (event.type === 'keydown' && leaves(event)) {
      event.preventDefault();
      return this.events.leave();
    }
    if (event.type === 'keydown' && pastes(event, this.mac)) return this.expectPaste(event);
    const keys = this.mac ? macKeys(event) : [plainKeys(event)];
    let untouched = true;
    for (const key of keys) untouched = this.pass(key.type ?? event.type, key) && untouched;
    if (!untouched || this.held) event.preventDefault();
  }

  /** True when noVNC had no use for the key. What is pressed while a clipboard is awaited comes after it. */
  private pass(type: string, key: KeyInit): boolean {
    if (this.held) return this.held.push({ ...key, type }) < 0;
    return this.canvas()?.dispatchEvent(new KeyboardEvent(type, { ...key, cancelable: true, bubbles: true })) ?? true;
  }

  private press(key: KeyInit): void {
    const held = this.held;
    this.held = null;
    this.pass('keydown', key);
    this.pass('keyup', key);
    this.held = held;
  }

  private expectPaste(event: KeyboardEvent): void {
    if (event.repeat || this.held) return;
    this.pasting = this.last = plainKeys(event, this.mac);
    this.held = [];
    this.timer = setTimeout(() => this.answer('keys'), PASTE_WITHIN);
  }

  private onPaste(event: ClipboardEvent): void {
    event.preventDefault();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.answer('keys'), 10 * PASTE_WITHIN);
    this.events.pasted(event.clipboardData?.getData('text/plain') ?? '');
  }

  private release(): void {
    clearTimeout(this.timer);
    const held = this.held ?? [];
    this.held = null;
    this.pasting = null;
    for (const { type = 'keyup', ...key } of held) this.pass(type, key);
  }

  private onText(text: string): void {
    this.field.value = '';
    for (const character of text) this.events.type(keysymOf(character));
  }
}

/** All that is pressed and released for `key` and its modifiers. */
function chord(key: KeyInit): [string, KeyInit][] {
  const modifiers: KeyInit[] = [];
  if (key.ctrlKey) modifiers.push({ key: 'Control', code: 'ControlLeft' });
  if (key.shiftKey) modifiers.push({ key: 'Shift', code: 'ShiftLeft' });
  const pressed = [...modifiers, key].map((one): [string, KeyInit] => ['keydown', one]);
  return [...pressed, ...pressed.toReversed().map(([, one]): [string, KeyInit] => ['keyup', one])];
}
