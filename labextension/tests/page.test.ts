import './page';
import assert from 'node:assert/strict';
import { mock, test, type TestContext } from 'node:test';
import { makeAddress } from '../shared/address';
import { backoff, explainRefusal, type ConnectionState } from '../shared/line';
import type { ServerMessage } from '../shared/messages';
import { Page, type Channel } from '../shared/page';

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
  page: Page;
  channel: Channel;
  states: ConnectionState[];
  messages: ServerMessage[];
  opened: boolean[];
  answer: { response: Response | null };
  last: () => FakeSocket;
}

/** A page that shows the session `abc`. */
function bench(context: TestContext): Bench {
  mock.timers.enable({ apis: ['setTimeout', 'setInterval', 'Date'] });
  FakeSocket.all = [];
  const states: ConnectionState[] = [];
  const messages: ServerMessage[] = [];
  const opened: boolean[] = [];
  const answer: { response: Response | null } = { response: null };
  const page = new Page({
    address: makeAddress('/base/', 'http://localhost/'),
    WebSocketClass: FakeSocket as unknown as typeof WebSocket,
    fetcher: () => (answer.response ? Promise.resolve(answer.response) : Promise.reject(new Error('down')))
  });
  const channel = page.follow('abc', {
    onMessage: message => messages.push(message),
    onState: state => states.push(state),
    onOpen: resumed => opened.push(resumed)
  });
  context.after(() => {
    channel.close();
    mock.timers.reset();
  });
  return { page, channel, states, messages, opened, answer, last: () => FakeSocket.all.at(-1) as FakeSocket };
}

const snapshot = (session_id: string, sequence: number): object => ({
  type: 'status',
  status: 'idle',
  metadata: { event: 'snapshot' },
  session_id,
  sequence
});
const soon = async (): Promise<void> => {
  for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
};

test('a lost session comes back where it stopped', async context => {
  const { last, opened, states, messages } = bench(context);
  assert.equal(last().url, 'ws://localhost/base/ws');
  last().accept();
  assert.deepEqual(last().sent, ['{"type":"follow","session_id":"abc"}']);
  assert.equal(states.at(-1)?.phase, 'connecting');
  last().say(snapshot('abc', 41));
  assert.equal(states.at(-1)?.phase, 'open');
  last().say({ type: 'heartbeat' });
  last().say({ type: 'status', status: 'acting', session_id: 'abc' }); // for the list
  last().fail();
  await soon();
  assert.equal(states.at(-1)?.phase, 'waiting');
  mock.timers.tick(1000);
  last().accept();
  assert.deepEqual(last().sent, ['{"type":"follow","session_id":"abc","after":41}']);
  last().say(snapshot('abc', 41));
  assert.deepEqual(opened, [false, true]);
  assert.equal(messages.length, 2);
});

test('many sessions and the list share one socket', context => {
  const { page, last, channel } = bench(context);
  const heard: Record<string, ServerMessage[]> = { list: [], def: [] };
  const listener = (name: string): Parameters<Page['list']>[0] => ({
    onMessage: message => heard[name]?.push(message),
    onState: () => undefined,
    onOpen: () => undefined
  });
  last().accept();
  last().say({ type: 'status', status: 'acting', session_id: 'def' });
  const others = [page.follow('def', listener('def')), page.list(listener('list'))];
  assert.equal(FakeSocket.all.length, 1);
  last().say(snapshot('def', 1));
  last().say({ type: 'status', status: 'idle', session_id: 'def' });
  last().say({ type: 'error', error: 'no', session_id: 'def' });
  last().say({ type: 'error', error: 'no', session_id: 'xyz' });
  assert.deepEqual([heard['def']?.length, heard['list']?.length], [2, 3]); // a list that joins late hears what was said
  assert.equal(channel.send({ type: 'stop' }), false); // its session is not open
  assert.equal(others[0]?.send({ type: 'stop' }), true);
  assert.equal(last().sent.at(-1), '{"type":"stop","session_id":"def"}');
  others.forEach(other => other.close());
  assert.equal(last().sent.at(-1), '{"type":"unfollow","session_id":"def"}');
  assert.equal(page.closed, false);
  channel.close();
  assert.equal(page.closed, true);
});

test('a session that is over, unknown or away is said, and the socket stays', context => {
  const { page, last, states } = bench(context);
  last().accept();
  for (const [code, refusal] of [
    [404, 'missing'],
    [409, 'ended']
  ] as const) {
    const seen: ConnectionState[] = [];
    page.follow(`s${code}`, { onMessage: () => undefined, onState: state => seen.push(state), onOpen: () => undefined });
    last().say({ type: 'unfollowed', session_id: `s${code}`, code, reason: '' });
    assert.deepEqual([seen.at(-1)?.phase, seen.at(-1)?.refusal], ['closed', refusal]);
  }
  last().say({ type: 'unfollowed', session_id: 'abc', code: 503, reason: 'Not now.' });
  assert.deepEqual([states.at(-1)?.phase, states.at(-1)?.reason], ['waiting', 'Not now.']);
  mock.timers.tick(1000);
  assert.equal(last().sent.at(-1), '{"type":"follow","session_id":"abc"}');
  assert.equal(FakeSocket.all.length, 1);
});

test('what cannot be sent is refused and never sent later', context => {
  const { channel, last } = bench(context);
  assert.equal(channel.send({ content: 'one', when: 'idle' }), false);
  assert.equal(channel.send({ type: 'stop' }), false);
  last().accept();
  assert.equal(channel.send({ type: 'stop' }), false);
  last().say(snapshot('abc', 1));
  assert.equal(channel.send({ type: 'stop' }), true);
  assert.deepEqual(last().sent.slice(1), ['{"type":"stop","session_id":"abc"}']);
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

for (const status of [401, 403]) {
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

test('a silent line is given up', context => {
  const { last } = bench(context);
  last().accept();
  mock.timers.tick(60_000);
  last().say({ type: 'heartbeat' });
  mock.timers.tick(74_000);
  assert.equal(FakeSocket.all.length, 1);
  mock.timers.tick(7000);
  assert.equal(FakeSocket.all.length, 2);
});

test('a computer that slept connects again at once', context => {
  const { last } = bench(context);
  last().accept();
  mock.timers.setTime(Date.now() + 600_000); // the clock went on, timers did not
  last().say({ type: 'heartbeat' });
  mock.timers.tick(5000);
  assert.equal(FakeSocket.all.length, 2);
});

test('what is not a message is ignored', context => {
  const { last, messages } = bench(context);
  last().accept();
  for (const data of ['', '{', '[]', 'null', '{"type":1}']) last().onmessage?.({ data });
  assert.equal(messages.length, 0);
});

test('waiting times double up to fifteen seconds', () => {
  assert.deepEqual(
    [1, 2, 3, 4, 5, 6, 20].map(n => backoff(n, 0.5)),
    [500, 1000, 2000, 4000, 8000, 15_000, 15_000]
  );
  assert.equal(explainRefusal(new Response('', { status: 400 })), null);
});
