import assert from 'node:assert/strict';
import { test } from 'node:test';
import { announce, boxOf, describe, elementNamed, markOn, screenshotIndex } from '../shared/actions';

const cases: [string, Record<string, unknown>, string, string | undefined][] = [
  ['left_click', { coordinate: [412, 300] }, 'Click at 412, 300', 'point'],
  ['triple_click', { coordinate: [1, 2] }, 'Triple click at 1, 2', 'point'],
  ['mouse_move', { coordinate: [5, 6] }, 'Move the mouse at 5, 6', 'point'],
  ['left_click_drag', { start_coordinate: [1, 2], coordinate: [30, 40] }, 'Drag from 1, 2 to 30, 40', 'line'],
  ['scroll', { coordinate: [9, 9], scroll_direction: 'up', scroll_amount: 3 }, 'Scroll up at 9, 9', 'scroll'],
  ['zoom', { region: [0, 0, 640, 400] }, 'Zoom into 0, 0 – 640, 400', 'region'],
  ['type', { text: 'hello\nworld' }, 'Type “hello⏎world”', undefined],
  ['key', { text: 'ctrl+s' }, 'Press ctrl+s', undefined],
  ['hold_key', { text: 'shift', duration: 1 }, 'Hold shift', undefined],
  ['wait', { duration: 2 }, 'Wait 2 s', undefined],
  ['screenshot', {}, 'Look at the screen', undefined],
  ['cursor_position', {}, 'Ask where the mouse is', undefined],
  ['bash', { command: 'ls -l' }, 'Run “ls -l”', undefined],
  ['bash', { restart: true }, 'Restart the shell', undefined],
  ['str_replace_based_edit_tool', { command: 'create', path: '/tmp/a' }, 'Write “/tmp/a”', undefined],
  ['computer', { action: 'left_click', coordinate: [3, 4] }, 'Click at 3, 4', 'point'],
  ['get_weather', { city: 'Bern' }, 'get weather', undefined]
];

for (const [tool, input, label, mark] of cases) {
  test(`${tool} ${JSON.stringify(input)}`, () => {
    const described = describe(tool, input);
    assert.equal(described.label, label);
    assert.equal(described.mark?.kind, mark);
  });
}

test('arguments that make no sense are still described', () => {
  for (const value of [null, 'x', [1], [NaN, 'a'], { a: 1 }]) {
    assert.equal(typeof describe('left_click', { coordinate: value }).label, 'string');
    assert.equal(describe('zoom', { region: value }).label.startsWith('Zoom'), true);
    assert.equal(describe('left_click_drag', { coordinate: value }).mark, null);
  }
});

test('a click is shown on the screenshot that it was aimed at, a command on none', () => {
  const steps = [
    { tool: 'screenshot', arguments: {}, image: 'a' },
    { tool: 'left_click', arguments: { coordinate: [1, 2] }, image: '' },
    { tool: 'bash', arguments: { command: 'ls' }, image: '' },
    { tool: 'computer', arguments: { action: 'type', text: 'x' }, image: '' },
    { tool: 'zoom', arguments: {}, image: 'b' }
  ];
  assert.deepEqual(
    steps.map((_, index) => screenshotIndex(steps, index, step => step.image !== '')),
    [0, 0, -1, 0, 4]
  );
  assert.equal(
    screenshotIndex(steps.slice(1), 0, step => step.image !== ''),
    -1
  );
});

for (const name of ['constructor', '__proto__', 'toString', 'hasOwnProperty']) {
  test(`the argument ${name} is only text`, () => {
    assert.equal(describe(name, {}).label, name.replaceAll('_', ' '));
    assert.equal(describe('computer', { action: name }).label, name.replaceAll('_', ' '));
    assert.equal(describe('editor', { command: name, path: '/a' }).label, `${name} “/a”`);
    assert.equal(describe('scroll', { coordinate: [1, 2], scroll_direction: name }).label, `Scroll ${name} at 1, 2`);
  });
}

test('an argument whose toString is not a function is still described', () => {
  const odd = { toString: 1, valueOf: 2 };
  for (const tool of ['scroll', 'key', 'type', 'wait', 'bash'])
    assert.equal(typeof describe(tool, { scroll_direction: odd, text: odd, duration: odd, command: odd }).label, 'string');
  assert.equal(typeof describe('editor', { command: odd, path: '/a' }).label, 'string');
});

test('an element is named by what the call returned', () => {
  const target = { type: 'ref', ref: 'ref_7' };
  assert.equal(describe('left_click', { target }, 'Clicked button "Add to cart".').label, 'Click “Add to cart” (button)');
  assert.equal(describe('left_click', { target }).label, 'Click');
  assert.equal(describe('form_input', { target, value: 'Ada' }, 'textbox "Name"').label, 'Fill in “Name” (textbox): “Ada”');
  const point = describe('left_click', { target: { type: 'coordinate', coordinate: [4, 5] } });
  assert.deepEqual(point, { label: 'Click at 4, 5', mark: { kind: 'point', x: 4, y: 5, times: 1 } });
  assert.equal(describe('navigate', { url: 'http://a/' }).label, 'Open http://a/');
  assert.equal(typeof describe('left_click', { target: 'x', ref: {} }, 'x "y').label, 'string');
});

test('the element that a reference names is marked on a page and on the screen', () => {
  const box = { left: 10, top: 20, right: 110, bottom: 50, page_left: 0, page_top: 85 };
  const step = { tool: 'left_click', arguments: { target: { type: 'ref', ref: 'ref_3' } }, box };
  assert.deepEqual(markOn(step, { browser: true }), { kind: 'region', x: 10, y: 20, toX: 110, toY: 50 });
  assert.deepEqual(markOn(step, { browser: false }), { kind: 'region', x: 10, y: 105, toX: 110, toY: 135 });
  assert.equal(markOn(step, undefined), null);
  assert.equal(boxOf({ left: 'a' }), null);
  assert.deepEqual(boxOf(box), box);
});

test('a call that is still being written, and the element that it is about', () => {
  const tools = [
    'bash',
    'type',
    'key',
    'hold_key',
    'wait',
    'navigate',
    'find',
    'ask_user',
    'hand_over',
    'form_input',
    'left_click',
    'left_click_drag',
    'scroll',
    'zoom',
    'screenshot',
    'str_replace_based_edit_tool',
    'price_of'
  ];
  assert.deepEqual(tools.map(announce), [
    'Run',
    'Type',
    'Press',
    'Hold',
    'Wait',
    'Open',
    'Find',
    'Ask',
    'Hand over',
    'Fill in a field',
    'Click',
    'Drag',
    'Scroll down',
    'Zoom',
    'Look at the screen',
    'Work on a file',
    'price of'
  ]);
  const readings = ['button "Old" [ref_2]', 'textbox "Your name" [ref_2] value=""', 'no references'];
  assert.equal(elementNamed({ target: { type: 'ref', ref: 'ref_2' } }, readings), '“Your name” (textbox)');
  assert.equal(elementNamed({ target: { type: 'ref', ref: '.*' } }, readings), '');
  assert.equal(elementNamed({}, readings), '');
});
