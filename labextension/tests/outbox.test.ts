import './page';
import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import type { ClientMessage, ServerMessage } from '../shared/messages';
import { Outbox, PATIENCE } from '../shared/outbox';

interface Bench {
  outbox: Outbox;
  sent: ClientMessage[];
  notices: string[];
  connected: { yes: boolean };
}

function bench(yes: boolean): Bench {
  const connected = { yes };
  const sent: ClientMessage[] = [];
  const notices: string[] = [];
  const outbox = new Outbox(
    message => connected.yes && sent.push(message) > 0,
    notice => notice && notices.push(notice)
  );
  return { outbox, sent, notices, connected };
}

const status = (value: string, metadata = {}): ServerMessage => ({ type: 'status', status: value, metadata }) as ServerMessage;

test('a message written before the connection stands is sent when it does, and gone when the server says it', () => {
  const { outbox, sent, connected } = bench(false);
  assert.equal(outbox.put('hello'), true);
  assert.equal(outbox.current?.state, 'waiting');
  connected.yes = true;
  outbox.hear(status('idle', { event: 'snapshot' }));
  assert.deepEqual([sent, outbox.current?.state], [[{ content: 'hello', when: 'idle' }], 'sent']);
  outbox.hear(status('thinking', { event: 'user_message', message: 'hello' }));
  assert.equal(outbox.current, null);
});

test('a message that would meet another turn is given back', () => {
  const { outbox, sent, notices } = bench(false);
  outbox.put('hello');
  outbox.hear(status('acting', { event: 'snapshot' }));
  assert.deepEqual([sent.length, outbox.current?.state], [0, 'returned']);
  assert.match(notices[0] ?? '', /at work/);
});

test('a refused message is given back', () => {
  const { outbox } = bench(true);
  outbox.put('hello');
  outbox.hear({ type: 'error', error: 'Limit reached' });
  assert.deepEqual(outbox.current, { text: 'hello', images: [], state: 'returned' });
});

test('a message is never sent late: after a while it is given back', context => {
  mock.timers.enable({ apis: ['setTimeout'] });
  context.after(() => mock.timers.reset());
  const { outbox, sent, notices, connected } = bench(false);
  outbox.put('hello');
  assert.equal(outbox.put('another'), false);
  mock.timers.tick(PATIENCE);
  connected.yes = true;
  outbox.hear(status('idle'));
  assert.deepEqual([sent.length, outbox.current?.state], [0, 'returned']);
  assert.match(notices[0] ?? '', /no connection/);
});

test('images go with the message by their digests, and come back with it', () => {
  const { outbox, sent } = bench(true);
  const image = { digest: 'a'.repeat(64), url: 'blob:x', name: 'shot.png' };
  outbox.put('look', 'idle', [image]);
  assert.deepEqual(sent, [{ content: 'look', when: 'idle', images: [image.digest] }]);
  outbox.hear({ type: 'error', error: 'Limit reached' });
  assert.deepEqual(outbox.current?.images, [image]);
});
