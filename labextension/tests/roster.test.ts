import './page';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fits } from '../shared/filter';
import type { StatusMessage } from '../shared/messages';
import { applyStatus, compare, type Row } from '../shared/roster';
import { keep } from '../shared/views/agents';

const row: Row = {
  id: 'a1b2',
  name: 'Flights',
  status: 'idle',
  text: '',
  model: 'demo',
  steps: 0,
  cost: 0,
  created: '2024-01-15T10:30:00Z',
  ended: false,
  tags: ['Kept'],
  note: '',
  approval: null,
  question: null,
  turn: '',
  thumbnail: '',
  starting: null
};
const status = (value: string, metadata = {}): StatusMessage => ({ type: 'status', status: value, metadata }) as StatusMessage;

test('a status brings a row up to date', () => {
  const next = applyStatus(row, status('acting', { steps: 3, usage: { cost_usd: 0.25 }, name: 'Hotels' }));
  assert.deepEqual([next.status, next.steps, next.cost, next.name], ['acting', 3, 0.25, 'Hotels']);
  assert.equal(applyStatus(row, status('ended')).ended, true);
});

test('a desktop that takes long to make says how far it is, until it is there or will never be', () => {
  const making = applyStatus(row, {
    type: 'status',
    status: 'idle',
    content: 'Building the image',
    metadata: { event: 'progress', fraction: 0.4 }
  });
  assert.deepEqual([making.starting, making.text], [{ fraction: 0.4 }, 'Building the image']);
  assert.equal(applyStatus(making, status('idle', { event: 'summary' })).starting, null);
  assert.equal(applyStatus(making, status('error', { event: 'progress', fraction: null })).starting, null);
});

test('an approval is news once, its decision too', () => {
  const asked = applyStatus(row, status('waiting_approval', { event: 'approval', tool_use_id: 't1', tool: 'bash', shown: 'ls' }));
  assert.deepEqual(
    compare(row, asked).map(news => news.kind),
    ['approval']
  );
  const shown = (tool: string, words: string): string | undefined =>
    applyStatus(row, status('waiting_approval', { event: 'approval', tool_use_id: 't', tool, shown: words })).approval?.shown;
  assert.deepEqual([shown('screenshot', 'screenshot {}'), shown('bash', 'find -exec rm {}')], ['screenshot', 'find -exec rm {}']);
  const same = applyStatus(asked, status('waiting_approval'));
  assert.deepEqual(compare(asked, same), []);
  assert.deepEqual(
    compare(same, applyStatus(same, status('acting'))).map(news => news.kind),
    ['decided']
  );
});

test('the end of a turn is news, an idle row is not', () => {
  const busy = { ...row, status: 'acting' as const };
  assert.deepEqual(
    compare(busy, applyStatus(busy, status('idle'))).map(news => news.kind),
    ['finished']
  );
  assert.deepEqual(
    compare(busy, applyStatus(busy, status('error'))).map(news => news.kind),
    ['failed']
  );
  assert.deepEqual(compare(row, applyStatus(row, status('idle'))), []);
});

test('filter and search', () => {
  const ended = { ...row, status: 'ended' as const, ended: true };
  const busy = { ...row, status: 'paused' as const };
  assert.deepEqual(
    [row, busy, ended].map(one => keep(one, 'active', '')),
    [true, true, false]
  );
  assert.deepEqual(
    [row, busy, ended].map(one => keep(one, 'working', '')),
    [false, true, false]
  );
  assert.deepEqual(
    [row, busy, ended].map(one => keep(one, 'ended', '')),
    [false, false, true]
  );
  assert.equal(keep(row, 'all', 'fli DEMO'), true);
  assert.equal(keep(row, 'all', 'hotel'), false);
  assert.deepEqual(
    ['tag:kept', 'tag:x', 'model:dem cost<1', 'verdict:success', 'kept'].map(words => keep(row, 'all', words)),
    [true, false, true, false, true]
  );
});

test('a question is news once, its answer too', () => {
  const question = { tool: 'ask_user', tool_use_id: 't1', question: 'Which?', choices: ['a', 'b'] };
  const asked = applyStatus(row, status('waiting', { event: 'question', ...question }));
  assert.deepEqual(
    compare(row, asked).map(news => news.kind),
    ['question']
  );
  assert.deepEqual([asked.question?.choices, asked.question?.freeText, asked.question?.handsOver], [['a', 'b'], true, false]);
  assert.deepEqual(
    compare(asked, applyStatus(asked, status('acting', { event: 'question_answered' }))).map(news => news.kind),
    ['decided']
  );
  assert.equal(applyStatus(row, status('waiting', { event: 'summary', question })).question?.question, 'Which?');
});

test('cells of an experiment are chosen by task, model, verdict, cost and tag', () => {
  const facts = {
    text: 'grid sort files/opus/low/0 no',
    task: 'sort files',
    model: 'opus, low',
    verdict: 'failure',
    tags: ['odd'],
    cost: 0.3
  };
  const fit = ['', 'task:sort verdict:fail', 'model:opus tag:odd cost>0.2', 'odd'];
  const not = ['task:rename', 'verdict:success', 'model:sonnet', 'cost>0.3', 'tag:even'];
  assert.deepEqual(
    [...fit, ...not].filter(words => fits(words, facts)),
    fit
  );
});
