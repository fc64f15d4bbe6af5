import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { align } from '../shared/align';
import type { RunStep } from '../shared/bundle';

type Made = Pick<RunStep, 'tool' | 'arguments' | 'text' | 'tree'>;
type Case = { name: string; left: Made[]; right: Made[]; lines: unknown[] };

const step = (made: Made, index: number): RunStep => ({
  ...made,
  step: index,
  id: `t${index}`,
  status: 'completed',
  screenshot: '',
  unseen: '',
  width: 0,
  height: 0,
  timing: { action: 0, settle: 0, encode: 0, total: 0, model: 0 },
  at: 0,
  tokens: 0,
  cost: 0,
  human: false,
  browser: false,
  box: null
});

// The same cases are checked in Python: tests/reports/test_viewer.py.
for (const one of JSON.parse(readFileSync('tests/align.json', 'utf8')) as Case[]) {
  test(`two runs are aligned: ${one.name}`, () => {
    const lines = align({ steps: one.left.map(step) }, { steps: one.right.map(step) });
    assert.deepEqual(
      lines.map(line => [line.left?.step ?? null, line.right?.step ?? null, line.same, line.tree]),
      one.lines
    );
  });
}
