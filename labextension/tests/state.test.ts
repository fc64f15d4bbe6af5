import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SessionSummary } from '../shared/api';
import type { ServerMessage } from '../shared/messages';
import { merge } from '../shared/history';
import { emptyView, reduce, type SessionView } from '../shared/state';

const T = '2024-01-15T10:31:05Z';
const status = (value: string, metadata: Record<string, unknown> = {}, sequence = 1): ServerMessage =>
  ({ type: 'status', status: value, content: value, metadata, timestamp: T, sequence }) as ServerMessage;
const delta = (content: string, kind = 'text'): ServerMessage => ({ type: 'agent_delta', content, metadata: { kind } }) as ServerMessage;
const tool = (id: string, value: string, result?: object): ServerMessage =>
  ({ type: 'tool_execution', tool: 'left_click', status: value, tool_use_id: id, step: 1, arguments: { coordinate: [1, 2] }, result, timestamp: T }) as ServerMessage;
const run = (messages: ServerMessage[], from: SessionView = emptyView('s')): SessionView => messages.reduce(reduce, from);

const turn: ServerMessage[] = [
  status('thinking', { event: 'user_message', message_id: 'm1', message: 'Click it' }),
  delta('I will '),
  delta('click.'),
  tool('t1', 'started'),
  tool('t1', 'completed', { image_path: '/a.png', dimensions: '1280x800', text: 'ok', timing: { total_ms: 90 } }),
  delta('Done'),
  { type: 'agent_response', content: 'Done.', timestamp: T, sequence: 9, metadata: { message_id: 'm2', tool_calls: ['left_click'] } }
];

test('a turn becomes: what was asked, what was said before, what was done, the answer', () => {
  const view = run(turn);
  assert.deepEqual(view.entries.map(entry => [entry.kind, entry.text]), [['user', 'Click it'], ['agent', 'I will click.'], ['actions', ''], ['agent', 'Done.']]);
  assert.equal(view.draft, '');
  const step = view.steps.get('t1');
  assert.deepEqual([step?.status, step?.image, step?.width, step?.timing.total_ms], ['completed', '/a.png', 1280, 90]);
});

test('text streams into the draft, and a started call replaces the announcement', () => {
  let view = run([delta('left_click', 'announce'), delta('a'), delta('b'), delta('hm', 'thinking')]);
  assert.deepEqual([view.draft, view.thinking], ['ab', 'hm']);
  view = run([tool('t1', 'started')], view);
  assert.deepEqual([view.draft, view.announced, view.thinking], ['', '', '']);
});

test('messages that come again change nothing', () => {
  const once = run(turn);
  const twice = run(turn.filter(message => message.type !== 'agent_delta'), once);
  assert.deepEqual(twice.entries.map(entry => entry.key), once.entries.map(entry => entry.key));
});

test('an approval is shown until it is decided or the state moves on', () => {
  const asked = run([status('waiting_approval', { event: 'approval', tool_use_id: 't9', tool: 'bash', shown: 'rm -rf x', expires_at: T })]);
  assert.deepEqual(asked.approval, { toolUseId: 't9', tool: 'bash', shown: 'rm -rf x', expiresAt: Date.parse(T) });
  assert.equal(run([status('acting')], asked).approval, null);
  const decided = run([status('acting', { event: 'approval_decided', verdict: 'denied' }, 2)], asked);
  assert.equal(decided.approval, null);
  assert.equal(decided.entries.at(-1)?.text, 'Denied');
  const said = run([status('acting', { event: 'approval_decided', verdict: 'approved', tool_use_id: 't9' }, 3)], { ...asked, draft: 'I open it.' });
  assert.deepEqual(said.entries.map(entry => entry.kind), ['agent', 'note']);
});

test('the snapshot tells a newcomer of the pending approval, the money and who has the mouse', () => {
  const view = run([status('waiting_approval', { event: 'snapshot', name: 'Flights', steps: 4, usage: { cost_usd: 0.5 }, viewer: 'ana', approval: { tool_use_id: 't', tool: 'key', shown: 'ctrl+w', expires_at: T } })]);
  assert.deepEqual([view.name, view.stepCount, view.usage.cost_usd, view.control, view.approval?.shown], ['Flights', 4, 0.5, 'ana', 'ctrl+w']);
  assert.equal(run([status('paused', { event: 'control', viewer: null })], view).control, null);
});

test('a retry says until when, and the next text ends it', () => {
  const view = run([status('thinking', { event: 'retry', delay_seconds: 4, retry_at: T, reason: 'overloaded' })]);
  assert.deepEqual(view.waiting, { until: Date.parse(T), reason: 'overloaded' });
  assert.equal(run([delta('x')], view).waiting, null);
});

test('text of a reply that broke off disappears when the reply is begun again', () => {
  const retry = status('thinking', { event: 'retry', delay_seconds: 1, dropped_text: 5 });
  let view = run([delta('First I'), delta(' wo🙂'), delta('left_click', 'announce'), retry]);
  assert.deepEqual([view.draft, view.announced], ['First ', '']);
  view = run([retry, delta('anew')], view);
  assert.equal(view.draft, 'Fanew');
});

test('steps of one second keep the order of their numbers, and each what was said before it', () => {
  const session = { id: 's', name: 'N', status: 'active', created_at: T, config: {} } as SessionSummary;
  const history = [{ id: 'm1', role: 'user' as const, content: 'Go', timestamp: T, metadata: {} }, { id: 'm2', role: 'assistant' as const, content: 'Done.', timestamp: T, metadata: {} }];
  const steps = [3, 2, 1].map(step => ({ tool_use_id: `t${step}`, step, tool: 'key', arguments: {}, status: 'completed', started_at: T, said: step === 2 ? '' : `Now ${step}` }));
  const entries = merge(emptyView('s'), session, history, steps).entries;
  assert.deepEqual(entries.map(entry => entry.text || entry.steps.join()), ['Go', 'Now 1', 't1,t2', 'Now 3', 't3', 'Done.']);
});

test('how a turn ended is remarked', () => {
  const end = (metadata: Record<string, unknown>): string | undefined =>
    run([{ type: 'agent_response', content: 'x', metadata, timestamp: T, sequence: 1 } as ServerMessage]).entries[0]?.remark;
  assert.equal(end({ stopped: true }), 'Stopped');
  assert.equal(end({ limit: 'max_steps' }), 'Ended by the limit max_steps');
  assert.equal(end({}), '');
});

test('an error ends the turn and says what to do; a session that ended stays ended', () => {
  const view = run([{ type: 'error', error: 'Missing key', details: 'Set ANTHROPIC_API_KEY.', timestamp: T, sequence: 3 } as ServerMessage, status('ended')]);
  assert.equal(view.entries[0]?.text, 'Missing key: Set ANTHROPIC_API_KEY.');
  assert.equal(run([status('idle')], view).ended, true);
});

test('history and live events together keep the order of time and repeat nothing', () => {
  const session = { id: 's', name: 'N', status: 'active', created_at: T, steps: 1, config: { max_cost_usd: 2 } } as SessionSummary;
  const history = [
    { id: 'm2', role: 'assistant' as const, content: 'Done.', timestamp: '2024-01-15T10:31:09Z', metadata: {} },
    { id: 'm1', role: 'user' as const, content: 'Click it', timestamp: '2024-01-15T10:31:01Z', metadata: {} }
  ];
  const steps = [{ tool_use_id: 't1', step: 1, tool: 'left_click', arguments: {}, status: 'completed', timestamp: T, result: { image_path: '/a.png' } }];
  const fresh = merge(emptyView('s'), session, history, steps);
  const told = merge(emptyView('s'), session, history, steps.map(step => ({ ...step, said: 'I will click.' })));
  assert.deepEqual(told.entries.map(entry => entry.text), ['Click it', 'I will click.', '', 'Done.']);
  assert.deepEqual(merge(run(turn), session, history, steps.map(step => ({ ...step, said: 'I will click.' }))).entries.filter(entry => entry.text === 'I will click.').length, 1);
  assert.deepEqual(fresh.entries.map(entry => entry.kind), ['user', 'actions', 'agent']);
  assert.equal(fresh.maxCost, 2);
  const again = merge(run(turn), session, history, steps);
  assert.equal(again.entries.filter(entry => entry.kind === 'user').length, 1);
  assert.equal(again.entries.filter(entry => entry.text === 'Done.').length, 1);
  assert.equal(again.steps.size, 1);
});
