/** What a tool call does, in words and as marks on the screenshot. */

import { trans } from './language';
import type { Json } from './messages';
import type { Box } from './schema';
import { plain, shorten } from './text';
import { text } from './values';

export type Mark =
  | { kind: 'point'; x: number; y: number; times: number }
  | { kind: 'line'; x: number; y: number; toX: number; toY: number }
  | { kind: 'scroll'; x: number; y: number; direction: string }
  | { kind: 'region'; x: number; y: number; toX: number; toY: number };

export interface Described {
  /** A short label: "Click at 412, 300". */
  label: string;
  mark: Mark | null;
}

const OFF_SCREEN = new Set(['bash', 'str_replace_based_edit_tool', 'str_replace_editor', 'text_editor']);
const GESTURES = /click|mouse|drag|scroll|zoom|^type$|key|^wait$|cursor|screenshot|form_input|file_upload/;

/** Whether a call does no more than look at the screen. */
export function isLook(tool: string, input: Json): boolean {
  return actionName(tool, input) === 'screenshot';
}

/** Whether a call acts on the screen, so that the screenshot before it shows what it was aimed at. */
export function onScreen(tool: string, input: Json): boolean {
  return !OFF_SCREEN.has(tool) && (tool === 'computer' || GESTURES.test(actionName(tool, input)));
}

/**
 * The index of the step whose screenshot shows step `index`: its own, else (for what acts on the screen) the last one
 * before it, which the action was aimed at. -1 when there is none.
 */
export function screenshotIndex<S extends { tool: string; arguments: Json }>(
  steps: readonly S[],
  index: number,
  has: (step: S) => boolean
): number {
  const step = steps[index];
  if (!step) return -1;
  if (has(step)) return index;
  if (!onScreen(step.tool, step.arguments)) return -1;
  for (let before = index - 1; before >= 0; before -= 1) {
    const other = steps[before];
    if (other && has(other)) return before;
  }
  return -1;
}

type Pair = [number, number];

function pair(value: unknown): Pair | null {
  if (!Array.isArray(value)) return null;
  const [x, y] = value as unknown[];
  return typeof x === 'number' && typeof y === 'number' ? [x, y] : null;
}

/** The computer tool exists as one tool with an `action`, and as a toolset whose members are the actions. */
function actionName(tool: string, input: Json): string {
  return typeof input['action'] === 'string' ? input['action'] : tool;
}

/** `value` as harmless text. Arguments come from the model, so an object may have a `toString` that is not a function. */
function words(value: unknown): string {
  if (value === undefined || value === null) return '';
  return plain(typeof value === 'object' ? JSON.stringify(value) : String(value));
}

function quoted(value: unknown, length = 60): string {
  return `“${shorten(words(value).replaceAll('\n', '⏎'), length)}”`;
}

/** What the pointer does, and how often; null for all else. */
function pointing(action: string): [string, number] | null {
  switch (action) {
    case 'left_click':
      return [trans.__('Click'), 1];
    case 'right_click':
      return [trans.__('Right click'), 1];
    case 'middle_click':
      return [trans.__('Middle click'), 1];
    case 'double_click':
      return [trans.__('Double click'), 2];
    case 'triple_click':
      return [trans.__('Triple click'), 3];
    case 'hover':
      return [trans.__('Point at'), 0];
    case 'mouse_move':
      return [trans.__('Move the mouse'), 0];
    case 'left_mouse_down':
      return [trans.__('Press the button'), 1];
    case 'left_mouse_up':
      return [trans.__('Release the button'), 1];
    default:
      return null;
  }
}

/** A call in words; `result` is what it returned, which names the element that a reference stood for. */
export function describe(tool: string, input: Json, result = ''): Described {
  const action = actionName(tool, input);
  const target = (typeof input['target'] === 'object' && input['target'] !== null ? input['target'] : {}) as Json;
  const at = pair(input['coordinate']) ?? pair(target['coordinate']);
  const named = element(target['ref'] ?? input['ref'], result);
  const click = pointing(action);
  if (click) {
    const label = named ? `${click[0]} ${named}` : at ? trans.__('%1 at %2, %3', click[0], ...at) : click[0];
    return { label, mark: at ? { kind: 'point', x: at[0], y: at[1], times: click[1] } : null };
  }
  if (action === 'form_input')
    return { label: trans.__('Fill in %1: %2', named || trans.__('a field'), quoted(input['value'])), mark: null };
  if (action === 'scroll_to') return { label: trans.__('Scroll to %1', named || trans.__('an element')), mark: null };
  if (action === 'file_upload') return { label: trans.__('Choose files for %1', named || trans.__('a field')), mark: null };
  switch (action) {
    case 'left_click_drag':
      return describeDrag(at, pair(input['start_coordinate']));
    case 'scroll':
      return describeScroll(at, input);
    case 'zoom':
      return describeZoom(input['region']);
    case 'type':
      if (typeof input['characters'] === 'number') return { label: trans.__('Type %1 characters', input['characters']), mark: null };
      return { label: trans.__('Type %1', quoted(input['text'])), mark: null };
    case 'key':
      return { label: trans.__('Press %1', shorten(words(input['text'] ?? input['key']), 80)), mark: null };
    case 'hold_key':
      return { label: trans.__('Hold %1', shorten(words(input['text'] ?? input['key']), 80)), mark: null };
    case 'wait':
      return { label: trans.__('Wait %1 s', shorten(words(input['duration']), 20)), mark: null };
    case 'screenshot':
      return { label: trans.__('Look at the screen'), mark: null };
    case 'navigate':
      return { label: trans.__('Open %1', shorten(words(input['url']), 80)), mark: null };
    case 'find':
      return { label: trans.__('Find %1', quoted(input['query'])), mark: null };
    case 'read_page':
      return { label: trans.__('Read the page'), mark: null };
    case 'ask_user':
      return { label: trans.__('Ask %1', quoted(input['question'], 80)), mark: null };
    case 'hand_over':
      return { label: trans.__('Hand over: %1', shorten(words(input['reason']), 80)), mark: null };
    case 'cursor_position':
      return { label: trans.__('Ask where the mouse is'), mark: null };
    case 'bash':
      return { label: input['restart'] ? trans.__('Restart the shell') : trans.__('Run %1', quoted(input['command'], 80)), mark: null };
    default:
      return describeOther(action, input);
  }
}

/** What to draw on the screenshot `shown`: where a call acts, or the box of the element that its reference names. */
export function markOn(step: { tool: string; arguments: Json; box: Box | null }, shown: { browser: boolean } | undefined): Mark | null {
  const { mark } = describe(step.tool, step.arguments);
  const { box } = step;
  if (mark || !box || !shown) return mark;
  const [x, y] = shown.browser ? [0, 0] : [box.page_left, box.page_top];
  return { kind: 'region', x: x + box.left, y: y + box.top, toX: x + box.right, toY: y + box.bottom };
}

/** A recorded box, checked: a run file may say anything. */
export function boxOf(value: unknown): Box | null {
  if (typeof value !== 'object' || value === null) return null;
  const box = value as Json;
  const sides = ['left', 'top', 'right', 'bottom', 'page_left', 'page_top'].every(side => Number.isFinite(box[side]));
  return sides ? (value as Box) : null;
}

/** A call whose arguments are still being written. */
export function announce(tool: string): string {
  if (tool === 'wait') return trans.__('Wait');
  if (OFF_SCREEN.has(tool) && tool !== 'bash') return trans.__('Work on a file');
  return describe(tool, {}).label.replace(/[:\s]*(“”)?\s*$/, '');
}

/** What the page called the element that a call's reference names, as the newest of `readings` has it; empty if unknown. */
export function elementNamed(input: Json, readings: Iterable<string>): string {
  const target = (typeof input['target'] === 'object' && input['target'] !== null ? input['target'] : input) as Json;
  const ref = text(target['ref']);
  if (!/^ref_\d{1,9}$/.test(ref)) return '';
  const line = new RegExp(`([A-Za-z][A-Za-z-]{0,40}) "([^\\n]{1,200})" \\[${ref}\\]`);
  for (const reading of [...readings].reverse()) {
    const found = line.exec(reading);
    if (found) return `${quoted(found[2])} (${found[1]})`;
  }
  return '';
}

/** `“Add to cart” (button)`: the element behind a reference, as the result of a call names it. */
function element(ref: unknown, result: string): string {
  const found = ref === undefined ? null : /([A-Za-z][A-Za-z-]{0,40}) "([^\n]{1,200})"/.exec(result);
  return found ? `${quoted(found[2])} (${found[1]})` : '';
}

function describeDrag(to: Pair | null, from: Pair | null): Described {
  if (!to || !from) return { label: trans.__('Drag'), mark: null };
  return {
    label: trans.__('Drag from %1, %2 to %3, %4', ...from, ...to),
    mark: { kind: 'line', x: from[0], y: from[1], toX: to[0], toY: to[1] }
  };
}

function describeScroll(at: Pair | null, input: Json): Described {
  const direction = shorten(words(input['scroll_direction'] ?? input['direction'] ?? 'down'), 20);
  const label = at ? trans.__('Scroll %1 at %2, %3', direction, ...at) : trans.__('Scroll %1', direction);
  return { label, mark: at ? { kind: 'scroll', x: at[0], y: at[1], direction } : null };
}

function describeZoom(region: unknown): Described {
  const [x, y, toX, toY] = (Array.isArray(region) ? region : []).map(Number);
  if (x === undefined || y === undefined || toX === undefined || toY === undefined) return { label: trans.__('Zoom'), mark: null };
  return { label: trans.__('Zoom into %1, %2 – %3, %4', x, y, toX, toY), mark: { kind: 'region', x, y, toX, toY } };
}

function editing(command: string, file: string): string {
  switch (command) {
    case 'view':
      return trans.__('Read %1', file);
    case 'create':
      return trans.__('Write %1', file);
    case 'str_replace':
    case 'insert':
      return trans.__('Edit %1', file);
    case 'undo_edit':
      return trans.__('Undo in %1', file);
    default:
      return `${shorten(command, 60)} ${file}`;
  }
}

function describeOther(action: string, input: Json): Described {
  if (typeof input['path'] === 'string') {
    return { label: editing(words(input['command']), quoted(input['path'])), mark: null };
  }
  return { label: plain(action).replaceAll('_', ' '), mark: null };
}
