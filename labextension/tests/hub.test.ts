import { settled } from './page';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeAddress } from '../shared/address';
import { Api } from '../shared/api';
import { SessionModel } from '../shared/hub';
import type { ServerMessage } from '../shared/messages';

const told = {
  type: 'status',
  status: 'idle',
  metadata: { event: 'user_message', message: 'Hello', message_id: 'm1' }
} as unknown as ServerMessage;
const api = { session: async () => ({ id: 'a1', name: '', status: 'active', sequence: 1 }), events: async () => [told] } as unknown as Api;

test('what was read is shown although the browser draws no frame', async () => {
  const frames = globalThis.requestAnimationFrame;
  globalThis.requestAnimationFrame = () => 0;
  try {
    const model = new SessionModel(api, 'a1', () => ({ send: () => true, retry: () => undefined, close: () => undefined }));
    const seen: string[][] = [];
    model.subscribe(() => seen.push(model.view.entries.map(entry => entry.text)));
    model.onOpen(false);
    await settled(250);
    assert.deepEqual(seen.at(-1), ['Hello']);
    model.onMessage({ ...told, metadata: { event: 'user_message', message: 'Again', message_id: 'm2' } } as unknown as ServerMessage);
    await settled(250);
    assert.deepEqual(seen.at(-1), ['Hello', 'Again']);
    assert.equal(seen.length, 2, 'once for what came together');
  } finally {
    globalThis.requestAnimationFrame = frames;
  }
});

test('a history that was begun before the line was open is read again', async () => {
  const answers: (() => void)[] = [];
  let sequence = 0;
  const slow = {
    session: () => new Promise(done => answers.push(() => done({ id: 'a1', name: '', status: 'active', sequence }))),
    events: async (_: string, after: number, last: number) => (last > after ? [told] : [])
  } as unknown as Api;
  const model = new SessionModel(slow, 'a1', () => ({ send: () => true, retry: () => undefined, close: () => undefined }));
  model.onState({ phase: 'waiting', reason: 'Too many connections', retryAt: 0 });
  const before = answers.shift();
  before?.(); // the server has answered, and the answer is on its way
  sequence = 1;
  model.onOpen(false);
  await settled();
  answers.shift()?.();
  await settled();
  assert.deepEqual(
    model.view.entries.map(entry => entry.text),
    ['Hello']
  );
});

test('a read without an answer is tried again, and nothing else', async () => {
  const asked: string[] = [];
  const failing = (async (url: string, init: RequestInit) => {
    asked.push(`${init.method} ${url}`);
    if (asked.length < 3) throw new TypeError('Failed to fetch');
    return new Response('{"id": "a1"}');
  }) as unknown as typeof fetch;
  const address = makeAddress('/', 'http://localhost:8000/lab');
  assert.equal((await new Api(address, undefined, failing).session('a1')).id, 'a1');
  assert.equal(asked.length, 3);
  asked.length = 0;
  await assert.rejects(new Api(address, undefined, failing).stop('a1', ''), TypeError);
  assert.equal(asked.length, 1);
});

test('a read that is not answered is given up and sent again', async t => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let asked = 0;
  const silent = ((_: string, init: RequestInit) => {
    asked += 1;
    if (asked > 1) return Promise.resolve(new Response('{"id": "a1"}'));
    return new Promise((_done, fail) => init.signal?.addEventListener('abort', () => fail(new DOMException('aborted', 'AbortError'))));
  }) as unknown as typeof fetch;
  const read = new Api(makeAddress('/', 'http://localhost:8000/lab'), undefined, silent).session('a1');
  t.mock.timers.tick(10_000);
  await new Promise(done => setImmediate(done));
  t.mock.timers.tick(10_000);
  assert.equal((await read).id, 'a1');
  assert.equal(asked, 2);
});
