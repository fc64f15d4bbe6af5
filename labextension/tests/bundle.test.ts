import assert from 'node:assert/strict';
import { test } from 'node:test';
import { strToU8, zipSync } from 'fflate';
import { RecordedRun } from '../shared/bundle';

const lines = (rows: object[]): Uint8Array => strToU8(rows.map(row => JSON.stringify(row)).join('\n'));
const row = (step: number, status: string, actor = 'agent'): object => ({
  step,
  tool_use_id: `t${step}`,
  tool: 'type',
  arguments: {},
  status,
  actor
});

test('a run tells every step, those that never began and those of a person too', () => {
  const events = [
    { kind: 'UserMessage', content: 'Type it', time: 1 },
    { kind: 'ModelReplied', text: 'I type.', time: 2 },
    { kind: 'ToolStarted', tool_use_id: 't1', time: 3 },
    { kind: 'ToolFinished', tool_use_id: 't1', time: 4 },
    { kind: 'ToolFinished', tool_use_id: 't2', time: 4 },
    { kind: 'ToolFinished', tool_use_id: 't3', time: 4 },
    { kind: 'ToolFinished', tool_use_id: 't4', time: 5 },
    { kind: 'TurnFinished', text: 'I type. And the', unfinished: 'And the', time: 6 }
  ];
  const steps = [row(1, 'completed'), row(2, 'denied'), row(3, 'skipped'), row(4, 'completed', 'human')];
  const files = {
    'manifest.json': strToU8(JSON.stringify({ format: 'cambio-run', version: 1 })),
    'events.jsonl': lines(events),
    'steps.jsonl': lines(steps)
  };
  const run = new RecordedRun(zipSync(files));
  assert.deepEqual(
    run.entries.map(entry => [entry.kind, entry.text, entry.step]),
    [
      ['user', 'Type it', -1],
      ['agent', 'I type.', -1],
      ['step', '', 0],
      ['step', '', 1],
      ['step', '', 2],
      ['step', '', 3],
      ['agent', 'And the', -1]
    ]
  );
});
