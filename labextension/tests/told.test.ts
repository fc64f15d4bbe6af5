import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SessionSummary } from '../shared/api';
import { restore } from '../shared/history';
import type { ServerMessage } from '../shared/messages';
import { emptyView, reduce, type SessionView } from '../shared/state';

const T = '2024-01-15T10:31:05Z';
const session = { id: 's', name: 'N', status: 'active', created_at: T } as SessionSummary;
const status = (value: string, metadata: Record<string, unknown>): ServerMessage =>
  ({ type: 'status', status: value, content: value, metadata, timestamp: T }) as ServerMessage;
const delta = (content: string): ServerMessage => ({ type: 'agent_delta', content, metadata: { kind: 'text' } }) as ServerMessage;
const tool = (id: string, value: string): ServerMessage =>
  ({ type: 'tool_execution', tool: 'ask_user', status: value, tool_use_id: id, step: 1, arguments: {}, timestamp: T }) as ServerMessage;
const usage = (requests: number, more = {}): ServerMessage => status('thinking', { event: 'usage', usage: { requests }, ...more });
const run = (messages: ServerMessage[]): SessionView => messages.reduce(reduce, emptyView('s'));
const told = (view: SessionView): string[] => view.entries.map(entry => entry.text || entry.steps.join());

const asks = (id: string, name: string): ServerMessage =>
  status('waiting', { event: 'question', tool: name, tool_use_id: id, question: 'Which?', choices: [] });
const waits: [string, ServerMessage[]][] = [
  [
    'approval',
    [
      status('waiting_approval', { event: 'approval', tool_use_id: 't1', tool: 'key', shown: 'key' }),
      status('acting', { event: 'approval_decided', tool_use_id: 't1', verdict: 'stopped' })
    ]
  ],
  ...['ask_user', 'hand_over'].map((name): [string, ServerMessage[]] => [
    name,
    [
      tool('t1', 'started'),
      asks('t1', name),
      status('acting', { event: 'question_answered', tool_use_id: 't1', outcome: 'stopped', answer: '' })
    ]
  ]),
  [
    'an answer and another question',
    [
      asks('t0', 'ask_user'),
      status('acting', { event: 'question_answered', tool_use_id: 't0', outcome: 'answered', answer: 'a' }),
      tool('t0', 'completed'),
      usage(3),
      asks('t1', 'ask_user')
    ]
  ],
  ['a queued message', [status('thinking', { event: 'message_delivered', message_id: 'm9', message: 'Be quick' })]]
];

for (const [name, waiting] of waits) {
  for (const end of [{ stopped: true }, { limit: 'max_seconds' }, 'error']) {
    test(`what was said before ${name} is told once when the turn ends by ${JSON.stringify(end)}, also after a reload`, () => {
      const said = [
        status('thinking', { event: 'user_message', message: 'Go', message_id: 'm1' }),
        delta('I am not'),
        delta(' sure.'),
        usage(1, { said: 'I am not sure.' })
      ];
      const over =
        end === 'error'
          ? { type: 'error', error: 'Lost', timestamp: T }
          : {
              type: 'agent_response',
              content: 'I am not sure.',
              timestamp: T,
              metadata: { ...(end as object), message_id: 'r1', unfinished: '' }
            };
      const live = [...said, ...waiting, over as ServerMessage];
      const kept = live.filter(message => message.type !== 'agent_delta');
      assert.equal(told(run(live)).filter(words => words === 'I am not sure.').length, 1);
      assert.equal(told(run(live)).indexOf('I am not sure.'), 1);
      assert.deepEqual(told(restore(session, kept, [], '')), told(run(live)));
      assert.deepEqual(told(restore(session, kept, kept, '')), told(run(live)));
    });
  }
}

test('a reply that a stop broke off is told as far as it came', () => {
  const stopped = {
    type: 'agent_response',
    content: 'First. Then I',
    timestamp: T,
    metadata: { stopped: true, message_id: 'r1', unfinished: 'Then I' }
  } as ServerMessage;
  const live = [delta('First.'), usage(1, { said: 'First.' }), delta('Then'), stopped];
  assert.deepEqual(told(run(live)), ['First.', 'Then I']);
  assert.deepEqual(
    told(
      restore(
        session,
        live.filter(message => message.type !== 'agent_delta'),
        [],
        ''
      )
    ),
    ['First.', 'Then I']
  );
});
