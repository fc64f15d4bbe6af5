import assert from 'node:assert/strict';
import { test } from 'node:test';
import { page, settled } from './page';

test('a card that was answered hands its focus to the message box, so that Escape and Tab still work', async () => {
  const { render } = await import('preact');
  const { ApprovalCard } = await import('../shared/views/approval');
  const root = page.body.appendChild(page.createElement('div'));
  const approval = { toolUseId: 't1', tool: 'bash', arguments: {}, shown: 'bash ls', expiresAt: 0 };
  const draw = (asks: boolean): void =>
    render(
      <section class="jp-Cambio-panel">
        {asks && <ApprovalCard approval={approval} decide={() => undefined} />}
        <form class="jp-Cambio-composer">
          <textarea />
        </form>
      </section>,
      root
    );
  draw(true);
  await settled();
  root.querySelector('button')?.focus();
  assert.equal(page.activeElement?.textContent, 'Approve');
  draw(false);
  assert.equal(page.activeElement?.tagName, 'TEXTAREA');
  root.remove();
});
