/** Two runs aligned by what they did, as `compare` of the Python package aligns them; tests/align.json checks both. */

import type { RecordedRun, RunStep } from './bundle';

export interface Line {
  left: RunStep | null;
  right: RunStep | null;
  /** Both did the same. */
  same: boolean;
  /** Both read a page, and not the same: removed lines with `-`, new ones with `+`. */
  tree: string[];
}

const READS = new Set(['read_page', 'get_page_text', 'find']);
const MOST_TREE = 60;

export function align(left: Pick<RecordedRun, 'steps'>, right: Pick<RecordedRun, 'steps'>): Line[] {
  const [a, b] = [left.steps, right.steps];
  const found: Line[] = [];
  for (const [same, i1, i2, j1, j2] of opcodes(a.map(key), b.map(key))) {
    for (let at = 0; at < Math.max(i2 - i1, j2 - j1); at += 1) {
      const one = i1 + at < i2 ? (a[i1 + at] ?? null) : null;
      const other = j1 + at < j2 ? (b[j1 + at] ?? null) : null;
      found.push({ left: one, right: other, same, tree: treeDifference(one, other) });
    }
  }
  return found;
}

export function differs(line: Line): boolean {
  return !line.same || line.tree.length > 0;
}

function key(step: RunStep): string {
  return `${step.tool} ${JSON.stringify(step.arguments, sorted)}`;
}

function sorted(_: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function treeOf(step: RunStep | null): string {
  return step?.tree || (step && READS.has(step.tool) ? step.text : '');
}

function treeDifference(left: RunStep | null, right: RunStep | null): string[] {
  const [one, other] = [treeOf(left).slice(0, 60_000), treeOf(right).slice(0, 60_000)];
  if (!one || !other || one === other) return [];
  const [a, b] = [one.split('\n'), other.split('\n')];
  const lines = opcodes(a, b).flatMap(([same, i1, i2, j1, j2]) =>
    same ? [] : [...a.slice(i1, i2).map(line => `-${line}`), ...b.slice(j1, j2).map(line => `+${line}`)]
  );
  return lines.slice(0, MOST_TREE).map(line => line.slice(0, 300));
}

type Opcode = [same: boolean, i1: number, i2: number, j1: number, j2: number];
type Block = [i: number, j: number, size: number];

/** What Python's `difflib.SequenceMatcher(autojunk=False)` finds. */
function opcodes(a: readonly string[], b: readonly string[]): Opcode[] {
  const places = new Map<string, number[]>();
  b.forEach((word, j) => places.set(word, [...(places.get(word) ?? []), j]));
  const blocks: Block[] = [];
  const open: [number, number, number, number][] = [[0, a.length, 0, b.length]];
  for (let part = open.pop(); part; part = open.pop()) {
    const [alo, ahi, blo, bhi] = part;
    const [i, j, size] = longest(a, places, alo, ahi, blo, bhi);
    if (!size) continue;
    blocks.push([i, j, size]);
    if (alo < i && blo < j) open.push([alo, i, blo, j]);
    if (i + size < ahi && j + size < bhi) open.push([i + size, ahi, j + size, bhi]);
  }
  blocks.sort((x, y) => x[0] - y[0] || x[1] - y[1]);
  const found: Opcode[] = [];
  let [i, j] = [0, 0];
  for (const [ai, bj, size] of [...blocks, [a.length, b.length, 0] as Block]) {
    if (i < ai || j < bj) found.push([false, i, ai, j, bj]);
    if (size) found.push([true, ai, ai + size, bj, bj + size]);
    [i, j] = [ai + size, bj + size];
  }
  return found;
}

function longest(a: readonly string[], places: ReadonlyMap<string, number[]>, alo: number, ahi: number, blo: number, bhi: number): Block {
  let best: Block = [alo, blo, 0];
  let lengths = new Map<number, number>();
  for (let i = alo; i < ahi; i += 1) {
    const next = new Map<number, number>();
    for (const j of places.get(a[i] ?? '') ?? []) {
      if (j < blo || j >= bhi) continue;
      const size = (lengths.get(j - 1) ?? 0) + 1;
      next.set(j, size);
      if (size > best[2]) best = [i - size + 1, j - size + 1, size];
    }
    lengths = next;
  }
  return best;
}
