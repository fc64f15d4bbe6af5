/** Which keys mean what: pure functions of keyboard events. */

export type KeyInit = KeyboardEventInit & { type?: string };

interface Pressed {
  key: string;
  code: string;
  location: number;
  repeat: boolean;
  ctrlKey: boolean;
  shiftKey: boolean;
  altKey: boolean;
  metaKey: boolean;
  getModifierState(name: string): boolean;
}

/** Shift+Escape leaves the desktop: no program of a desktop and no operating system uses it. */
export function leaves(event: Pressed): boolean {
  return event.key === 'Escape' && event.shiftKey && !event.ctrlKey && !event.altKey && !event.metaKey;
}

/** The keys with which a browser hands over its clipboard. */
export function pastes(event: Pressed, mac: boolean): boolean {
  if (event.altKey) return false;
  if (event.key === 'Insert') return event.shiftKey && !event.ctrlKey && !event.metaKey;
  return event.key.toLowerCase() === 'v' && (mac ? event.metaKey && !event.ctrlKey : event.ctrlKey && !event.metaKey);
}

/** `event` as one can make it again; on a Mac, Command is Control. */
export function plainKeys(event: Pressed, mac = false): KeyInit {
  const { key, code, location, repeat, ctrlKey, shiftKey, altKey, metaKey } = event;
  return {
    key,
    code,
    location,
    repeat,
    shiftKey,
    altKey,
    ctrlKey: ctrlKey || (mac && metaKey),
    metaKey: metaKey && !mac,
    modifierCapsLock: event.getModifierState('CapsLock'),
    modifierNumLock: event.getModifierState('NumLock'),
    modifierAltGraph: event.getModifierState('AltGraph')
  };
}

/** The events for a key of a Mac, which tells no release of what was pressed together with Command. */
export function macKeys(event: Pressed & { type: string }): KeyInit[] {
  const init = plainKeys(event, true);
  if (event.key === 'Meta') return [{ ...init, key: 'Control', code: event.code === 'MetaRight' ? 'ControlRight' : 'ControlLeft' }];
  if (!event.metaKey || event.type !== 'keydown') return [init];
  return [
    { ...init, type: 'keydown' },
    { ...init, type: 'keyup' }
  ];
}

const NAMED = new Map([
  ['\n', 0xff0d],
  ['\t', 0xff09]
]);

/** The X keysym of a character: Latin 1 as it is, the rest of Unicode above 0x1000000. */
export function keysymOf(character: string): number {
  const point = character.codePointAt(0) ?? 0;
  return NAMED.get(character) ?? (point < 0x100 ? point : 0x1000000 | point);
}
