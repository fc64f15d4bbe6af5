import assert from 'node:assert/strict';
import { test } from 'node:test';
import { keysymOf, leaves, macKeys, pastes, plainKeys } from '../frame/keys';

const pressed = (key: string, more = {}): Parameters<typeof macKeys>[0] => ({
  type: 'keydown',
  key,
  code: '',
  location: 0,
  repeat: false,
  ctrlKey: false,
  shiftKey: false,
  altKey: false,
  metaKey: false,
  getModifierState: () => false,
  ...more
});

test('shift+escape leaves the desktop, escape alone goes to it', () => {
  assert.equal(leaves(pressed('Escape', { shiftKey: true })), true);
  assert.equal(leaves(pressed('Escape')), false);
  assert.equal(leaves(pressed('Escape', { shiftKey: true, ctrlKey: true })), false);
});

test('the keys that paste are those of the browser', () => {
  assert.equal(pastes(pressed('v', { ctrlKey: true }), false), true);
  assert.equal(pastes(pressed('V', { ctrlKey: true, shiftKey: true }), false), true);
  assert.equal(pastes(pressed('Insert', { shiftKey: true }), false), true);
  assert.equal(pastes(pressed('v', { metaKey: true }), false), false);
  assert.equal(pastes(pressed('v', { metaKey: true }), true), true);
  assert.equal(pastes(pressed('v', { ctrlKey: true, altKey: true }), false), false);
});

test('command is control on a mac, and each key with it is released', () => {
  const [command] = macKeys(pressed('Meta', { code: 'MetaLeft', metaKey: true }));
  assert.deepEqual([command?.key, command?.code, command?.metaKey], ['Control', 'ControlLeft', false]);
  const copy = macKeys(pressed('c', { code: 'KeyC', metaKey: true }));
  assert.deepEqual(
    copy.map(key => [key.type, key.key, key.ctrlKey]),
    [
      ['keydown', 'c', true],
      ['keyup', 'c', true]
    ]
  );
  assert.equal(macKeys(pressed('c')).length, 1);
  assert.equal(plainKeys(pressed('c', { metaKey: true })).metaKey, true);
});

test('a character has the keysym that X11 gives it', () => {
  assert.deepEqual([...'aé日🙂\n'].map(keysymOf), [0x61, 0xe9, 0x10065e5, 0x101f642, 0xff0d]);
});
