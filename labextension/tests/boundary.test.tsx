import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { page, settled } from './page';

test('a part that throws is replaced by a line, and its neighbours stay', async () => {
  const { render } = await import('preact');
  const { Boundary } = await import('../shared/views/boundary');
  const logged = mock.method(console, 'error', () => undefined);
  const Broken = (): never => {
    throw new Error('odd step');
  };
  const root = page.createElement('div');
  render(
    <div>
      <Boundary what="This step">
        <Broken />
      </Boundary>
      <button type="button">Stop</button>
    </div>,
    root
  );
  await settled();
  assert.equal(root.querySelector('p')?.textContent, 'This step cannot be shown.');
  assert.equal(root.querySelector('button')?.textContent, 'Stop');
  assert.equal(logged.mock.callCount(), 1);
});
