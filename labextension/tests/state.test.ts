import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SessionSummary } from '../shared/api';
import type { ServerMessage } from '../shared/messages';
import { prepend, restore } from '../shared/history';
import { outcome } from '../shared/step';
import { emptyView, reduce, type SessionView } from '../shared/state';

const T = '2024-01-15T10:31:05Z';
const status = (value: string, metadata: Record<string, unknown> = {}, sequence = 1): ServerMessage =>
  ({ type: 'status', status: value, content: value, metadata, timestamp: T, sequence }) as ServerMessage;
const delta = (content: string, kind = 'text'): ServerMessage => ({ type: 'agent_delta', content, metadata: { kind } }) as ServerMessage;
const tool = (id: string, value: string, result?: object): ServerMessage =>
  ({
    type: 'tool_execution',
    tool: 'left_click',
    status: value,
    tool_use_id: id,
    step: 1,
    arguments: { coordinate: [1, 2] },
    result,
    timestamp: T
  }) as ServerMessage;
const run = (messages: ServerMessage[], from: SessionView = emptyView('s')): SessionView => messages.reduce(reduce, from);

const turn: ServerMessage[] = [
  status('thinking', { event: 'user_message', message_id: 'm1', message: 'Click it' }),
  delta('I will '),
  delta('click.'),
  status('thinking', { event: 'usage', usage: { requests: 1 }, said: 'I will click.' }),
  tool('t1', 'started'),
  tool('t1', 'completed', { image_path: '/a.png', dimensions: '1280x800', text: 'ok', timing: { total_ms: 90 } }),
  delta('Done'),
  status('thinking', { event: 'usage', usage: { requests: 2 }, said: 'Done.' }),
  {
    type: 'agent_response',
    content: 'Done.',
    timestamp: T,
    sequence: 9,
    metadata: { message_id: 'm2', tool_calls: ['left_click'], unfinished: '' }
  }
];

test('a turn becomes: what was asked, what was said before, what was done, the answer', () => {
  const view = run(turn);
  assert.deepEqual(
    view.entries.map(entry => [entry.kind, entry.text]),
    [
      ['user', 'Click it'],
      ['agent', 'I will click.'],
      ['actions', ''],
      ['agent', 'Done.']
    ]
  );
  assert.equal(view.draft, '');
  const step = view.steps.get('t1');
  assert.deepEqual([step?.status, step?.image, step?.width, step?.timing.total_ms], ['completed', '/a.png', 1280, 90]);
});

test('text streams into the draft, which the whole reply replaces, and a started call the announcement', () => {
  let view = run([delta('left_click', 'announce'), delta('a'), delta('b'), delta('hm', 'thinking')]);
  assert.deepEqual([view.draft, view.thinking], ['ab', 'hm']);
  view = run([tool('h1', 'completed')], view); // a person's step in the middle of a reply cuts it nowhere
  assert.equal(view.draft, 'ab');
  view = run([status('thinking', { event: 'usage', usage: { requests: 1 }, said: 'abc' }), tool('t1', 'started')], view);
  assert.deepEqual([view.draft, view.announced, view.thinking], ['', '', '']);
  assert.deepEqual(
    view.entries.map(entry => [entry.kind, entry.text]),
    [
      ['actions', ''],
      ['thinking', 'hm'],
      ['agent', 'abc'],
      ['actions', '']
    ]
  );
});

test('messages that come again change nothing', () => {
  const once = run(turn);
  const twice = run(
    turn.filter(message => message.type !== 'agent_delta'),
    once
  );
  assert.deepEqual(
    twice.entries.map(entry => entry.key),
    once.entries.map(entry => entry.key)
  );
});

test('an approval is shown until it is decided or the state moves on', () => {
  const asked = run([status('waiting_approval', { event: 'approval', tool_use_id: 't9', tool: 'bash', shown: 'rm -rf x', expires_at: T })]);
  assert.deepEqual(asked.approval, { toolUseId: 't9', tool: 'bash', shown: 'rm -rf x', arguments: {}, expiresAt: Date.parse(T) });
  assert.equal(run([status('acting')], asked).approval, null);
  const decided = run([status('acting', { event: 'approval_decided', verdict: 'denied' }, 2)], asked);
  assert.equal(decided.approval, null);
  assert.equal(decided.entries.at(-1)?.text, 'Denied');
});

test('the snapshot tells a newcomer of the pending approval, the money and who has the mouse', () => {
  const view = run([
    status('waiting_approval', {
      event: 'snapshot',
      name: 'Flights',
      steps: 4,
      usage: { cost_usd: 0.5 },
      viewer: 'ana',
      approval: { tool_use_id: 't', tool: 'key', shown: 'ctrl+w', expires_at: T }
    })
  ]);
  assert.deepEqual(
    [view.name, view.stepCount, view.usage.cost_usd, view.control, view.approval?.shown],
    ['Flights', 4, 0.5, 'ana', 'ctrl+w']
  );
  assert.equal(run([status('paused', { event: 'control', viewer: null })], view).control, null);
});

test('a retry says until when, and the next text ends it', () => {
  const view = run([status('thinking', { event: 'retry', delay_seconds: 4, retry_at: T, reason: 'overloaded' })]);
  assert.deepEqual(view.waiting, { until: Date.parse(T), reason: 'overloaded' });
  assert.equal(run([delta('x')], view).waiting, null);
});

test('text of a reply that broke off disappears when the reply is begun again', () => {
  const retry = status('thinking', { event: 'retry', delay_seconds: 1, dropped_text: 5 });
  const view = run([delta('First I'), delta(' wo🙂'), delta('left_click', 'announce'), retry]);
  assert.deepEqual([view.draft, view.announced], ['', '']);
  assert.equal(run([delta('again')], view).draft, 'again');
});

test('how a turn ended is remarked', () => {
  const end = (metadata: Record<string, unknown>): string | undefined =>
    run([{ type: 'agent_response', content: 'x', metadata, timestamp: T, sequence: 1 } as ServerMessage]).entries[0]?.remark;
  assert.equal(end({ stopped: true }), 'Stopped');
  assert.equal(end({ limit: 'max_steps' }), 'Ended by the limit max_steps');
  assert.equal(end({}), '');
});

test('an error ends the turn and says what to do; a session that ended stays ended', () => {
  const view = run([
    { type: 'error', error: 'Missing key', details: 'Set ANTHROPIC_API_KEY.', timestamp: T, sequence: 3 } as ServerMessage,
    status('ended')
  ]);
  assert.equal(view.entries[0]?.text, 'Missing key: Set ANTHROPIC_API_KEY.');
  assert.equal(run([status('idle')], view).ended, true);
});

const session = {
  id: 's',
  name: 'N',
  status: 'active',
  created_at: T,
  steps: 2,
  approval: 'risky',
  config: { max_cost_usd: 2 }
} as SessionSummary;
const usage = (requests: number, more = {}): ServerMessage =>
  status('thinking', { event: 'usage', usage: { requests, cost_usd: requests / 10 }, ...more });
const call = (step: number, state: string, more = {}): ServerMessage =>
  ({
    type: 'tool_execution',
    tool: 'left_click',
    tool_use_id: `t${step}`,
    step,
    status: state,
    arguments: {},
    timestamp: T,
    ...more
  }) as ServerMessage;
const answer = (words: string, id: string): ServerMessage =>
  ({ type: 'agent_response', content: words, metadata: { message_id: id }, timestamp: T }) as ServerMessage;
const story: ServerMessage[] = [
  status('thinking', { event: 'user_message', message: 'Go', message_id: 'm1' }),
  usage(1, { thinking: 'Where?', said: 'Now 1' }),
  call(1, 'started'),
  call(1, 'completed'),
  usage(2),
  status('waiting_approval', { event: 'approval', tool_use_id: 't2', tool: 'left_click', shown: 'left_click {}' }),
  status('acting', { event: 'approval_decided', tool_use_id: 't2', verdict: 'denied' }),
  call(2, 'failed', { metadata: { denied: true } }),
  answer('One.', 'r1'),
  status('thinking', { event: 'user_message', message: 'Again', message_id: 'm2' }),
  answer('Two.', 'r2')
];
const told = (view: SessionView): string[] => view.entries.map(entry => entry.text || entry.steps.join());
const TOLD = ['Go', 'Where?', 'Now 1', 't1', 'Denied', 't2', 'One.', 'Again', 'Two.'];

test('a story of one second is told in its order, thinking and denials included', () => {
  const view = restore(session, story, [], '');
  assert.deepEqual(told(view), TOLD);
  assert.deepEqual([view.maxCost, view.policy, view.steps.get('t2')?.status, view.usage.cost_usd], [2, 'risky', 'denied', 0.2]);
});

test('what comes from the history and over the line is told once', () => {
  const live = [...story.slice(0, 1), delta('Now 1'), ...story.slice(1)];
  assert.deepEqual(told(run(live)), TOLD);
  assert.deepEqual(told(restore(session, story, live.slice(4), '')), TOLD);
});

test('an earlier page is put before what is shown, and cuts a turn nowhere twice', () => {
  for (let cut = 0; cut <= story.length; cut += 1) {
    const view = prepend(restore(session, story.slice(cut), [], ''), story.slice(0, cut));
    assert.deepEqual(told(view).toSorted(), TOLD.toSorted(), `cut at ${cut}`);
  }
});

test('what people did to a session is told: control and clipboard as notes, mouse and keyboard as steps', () => {
  const clicked = {
    ...tool('h1', 'completed', { image_path: '/b.png', dimensions: '1280x800' }),
    metadata: { actor: 'human' }
  } as ServerMessage;
  const notes = [
    status('paused', { event: 'control', viewer: 'me' }),
    status('paused', { event: 'human_input', viewer: 'me', key_events: 2, clipboard_events: 1 })
  ];
  const view = run([...notes, clicked], emptyView('s', 'me'));
  assert.deepEqual(told(view), ['You took control', 'You used the clipboard of the desktop', 'h1']);
  assert.equal(view.steps.get('h1')?.human, true);
  const note = status('thinking', { event: 'message_delivered', message_id: 'n1', message: 'The user clicked.', note: true });
  assert.deepEqual(
    run([note]).entries.map(entry => [entry.kind, entry.text]),
    [['note', 'The agent is told: The user clicked.']]
  );
});

test('a question waits, is answered, and both are part of the conversation', () => {
  const asked = status('waiting', { event: 'question', tool: 'ask_user', tool_use_id: 't1', question: 'Which?', choices: ['a'] });
  const answered = status('acting', { event: 'question_answered', tool_use_id: 't1', outcome: 'answered', answer: 'a', by: 'me' });
  let view = run([asked], emptyView('s', 'me'));
  assert.deepEqual([view.question?.question, view.question?.handsOver, view.status], ['Which?', false, 'waiting']);
  view = run([answered], view);
  assert.deepEqual(
    [view.question, view.entries.map(entry => [entry.kind, entry.text, entry.remark])],
    [
      null,
      [
        ['agent', 'Which?', 'Asks you'],
        ['user', 'a', '']
      ]
    ]
  );
  const alone = run(
    [asked, { ...answered, metadata: { ...(answered as { metadata: object }).metadata, by: 'program-1' } } as ServerMessage],
    emptyView('s', 'me')
  );
  assert.equal(alone.entries.at(-1)?.remark, 'Answered by another client');
  const late = run([asked, status('acting', { event: 'question_answered', tool_use_id: 't1', outcome: 'timeout', answer: 'b' })]);
  assert.equal(late.entries.at(-1)?.text, 'No answer came in time; the agent goes on with: b');
});

test('a message that is queued during a turn joins the conversation where it was delivered, and is not the turn', () => {
  const queued = status('acting', { event: 'message_queued', message_id: 'm2', message: 'Stop at 5' });
  const delivered = status('thinking', { event: 'message_delivered', message_id: 'm2', message: 'Stop at 5' });
  let view = run([story[0] as ServerMessage, queued]);
  assert.deepEqual([[...view.queued.values()], told(view), view.turn], [['Stop at 5'], ['Go'], 'm1']);
  assert.deepEqual([[...run([delivered], view).queued], told(run([delivered], view))], [[], ['Go', 'Stop at 5']]);
  view = run([status('acting', { event: 'message_withdrawn', message_id: 'm2', reason: 'taken back' })], view);
  assert.equal(view.queued.size, 0);
});

test('the last words of a turn that was stopped are told once, and its calls as what became of them', () => {
  const ended = (id: string, how: string): ServerMessage =>
    ({ ...tool(id, 'failed', { text: 'x' }), metadata: { ended: how } }) as ServerMessage;
  const stopped = {
    type: 'agent_response',
    content: 'I will click.',
    timestamp: T,
    metadata: { message_id: 'm2', stopped: true, unfinished: '' }
  } as ServerMessage;
  const view = run([...turn.slice(0, 4), tool('t1', 'started'), ended('t1', 'interrupted'), ended('t2', 'skipped'), stopped]);
  assert.deepEqual(
    view.entries.map(entry => [entry.kind, entry.text, entry.remark]),
    [
      ['user', 'Click it', ''],
      ['agent', 'I will click.', ''],
      ['actions', '', ''],
      ['agent', '', 'Stopped']
    ]
  );
  assert.deepEqual(
    [...view.steps.values()].map(step => outcome(step.status)),
    ['interrupted', 'skipped']
  );
});

test('a decision names the call that it was about', () => {
  const view = run([status('acting', { event: 'approval_decided', verdict: 'approved', tool_use_id: 't9' })]);
  assert.deepEqual(view.entries.at(-1)?.steps, ['t9']);
});
