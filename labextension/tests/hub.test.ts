import { settled } from './page';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Api } from '../shared/api';
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
