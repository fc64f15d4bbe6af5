import './page';
import assert from 'node:assert/strict';
import { mock, test, type TestContext } from 'node:test';
import { makeAddress } from '../shared/address';
import { Connection } from '../shared/connection';
import { backoff, explainRefusal, type ConnectionState } from '../shared/line';
import type { ServerMessage } from '../shared/messages';

class FakeSocket {
  static all: FakeSocket[] = [];
  readyState = 0;
  sent: string[] = [];
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  constructor(readonly url: string) {
    FakeSocket.all.push(this);
  }
  send(text: string): void {
    this.sent.push(text);
  }
  close(): void {
    this.readyState = 3;
  }
  accept(): void {
    this.readyState = 1;
    this.onopen?.();
  }
  say(message: object): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }
  fail(code = 1006, reason = ''): void {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }
}

interface Bench {
  line: Connection;
  states: ConnectionState[];
  messages: ServerMessage[];
  opened: boolean[];
  answer: { response: Response | null };
  last: () => FakeSocket;
}

function bench(context: TestContext): Bench {
  mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  FakeSocket.all = [];
  const states: ConnectionState[] = [];
  const messages: ServerMessage[] = [];
  const opened: boolean[] = [];
  const answer: { response: Response | null } = { response: null };
  const line = new Connection({
    address: makeAddress('/base/', 'http://localhost/'),
    path: 'ws/abc',
    stream: true,
    onMessage: message => messages.push(message),
    onState: state => states.push(state),
    onOpen: resumed => opened.push(resumed),
    WebSocketClass: FakeSocket as unknown as typeof WebSocket,
    fetcher: () => (answer.response ? Promise.resolve(answer.response) : Promise.reject(new Error('down')))
  });
  context.after(() => {
    line.close();
    mock.timers.reset();
  });
  return { line, states, messages, opened, answer, last: () => FakeSocket.all.at(-1) as FakeSocket };
}

const soon = async (): Promise<void> => {
  for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
};

test('a lost line comes back where it stopped', async context => {
  const { last, opened, states } = bench(context);
  assert.equal(last().url, 'ws://localhost/base/ws/abc?stream=true');
  last().accept();
  last().say({ type: 'status', status: 'idle', sequence: 41 });
  last().say({ type: 'heartbeat' });
  last().fail();
  await soon();
  assert.equal(states.at(-1)?.phase, 'waiting');
  mock.timers.tick(1000);
  assert.equal(last().url, 'ws://localhost/base/ws/abc?stream=true&after=41');
  last().accept();
  assert.deepEqual(opened, [false, true]);
});

test('what cannot be sent is refused and never sent later', async context => {
  const { line, last } = bench(context);
  assert.equal(line.send({ content: 'one', when: 'idle' }), false);
  assert.equal(line.send({ type: 'stop' }), false);
  last().accept();
  assert.deepEqual(last().sent, []);
  assert.equal(line.send({ type: 'stop' }), true);
  assert.deepEqual(last().sent, ['{"type":"stop"}']);
});

test('a 429 waits as told', async context => {
  const { last, answer, states } = bench(context);
  answer.response = new Response('{}', { status: 429, headers: { 'Retry-After': '37' } });
  last().fail();
  await soon();
  assert.equal(states.at(-1)?.phase, 'waiting');
  mock.timers.tick(36_900);
  assert.equal(FakeSocket.all.length, 1);
  mock.timers.tick(200);
  assert.equal(FakeSocket.all.length, 2);
});

for (const status of [401, 403, 404, 409]) {
  test(`${status} is final`, async context => {
    const { last, answer, states } = bench(context);
    answer.response = new Response('{}', { status });
    last().fail();
    await soon();
    mock.timers.tick(120_000);
    assert.equal(FakeSocket.all.length, 1);
    assert.equal(states.at(-1)?.phase, 'closed');
  });
}

test('an ended session is not connected to again', async context => {
  const { last, answer, states } = bench(context);
  last().accept();
  answer.response = new Response('{}', { status: 409 });
  last().fail(1000);
  await soon();
  mock.timers.tick(60_000);
  assert.equal(states.at(-1)?.phase, 'closed');
  assert.equal(FakeSocket.all.length, 1);
});

test('a silent line is given up', context => {
  const { last } = bench(context);
  last().accept();
  mock.timers.tick(60_000);
  last().say({ type: 'heartbeat' });
  mock.timers.tick(74_000);
  assert.equal(FakeSocket.all.length, 1);
  mock.timers.tick(2000);
  assert.equal(FakeSocket.all.length, 2);
});

test('what is not a message is ignored', context => {
  const { last, messages } = bench(context);
  last().accept();
  for (const data of ['', '{', '[]', 'null', '{"type":1}']) last().onmessage?.({ data });
  assert.equal(messages.length, 0);
});

test('waiting times double up to fifteen seconds', () => {
  assert.deepEqual([1, 2, 3, 4, 5, 6, 20].map(n => backoff(n, 0.5)), [500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
  assert.equal(explainRefusal(new Response('', { status: 400 })), null);
});
