import type { VNode } from 'preact';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { trans } from '../language';
import { elementNamed } from '../actions';
import type { Approval } from '../approval';
import type { Step } from '../messages';
import { escapeInvisible } from '../text';
import { Button } from './bar';
import { useCountdown } from './hooks';

/** Milliseconds that a call is shown before it can be answered: a double click is no answer to the next one. */
const UNSEEN = 400;
/** Milliseconds until an answer that had no effect may be given again. */
const UNANSWERED = 3000;

export interface ApprovalProps {
  approval: Approval;
  /** What was done before: it may name the element that the call is about. */
  steps?: ReadonlyMap<string, Step>;
  decide: (approve: boolean, shown: Approval) => void;
}

/** What waits for a person: exactly what will run, and the two answers. */
export function ApprovalCard({ approval, steps, decide }: ApprovalProps): VNode {
  const left = useCountdown(approval.expiresAt);
  const card = useRef<HTMLDivElement>(null);
  const [resting, rest] = useState(UNSEEN);
  useEffect(() => rest(UNSEEN), [approval.toolUseId]);
  useEffect(() => {
    const timer = setTimeout(() => rest(0), resting);
    return () => clearTimeout(timer);
  }, [resting, approval.toolUseId]);
  const answer = (approve: boolean): void => {
    rest(UNANSWERED);
    decide(approve, approval);
  };
  useLayoutEffect(() => {
    const shown = card.current;
    return () => leave(shown);
  }, []);
  useEffect(() => card.current?.scrollIntoView({ block: 'nearest' }), [approval.toolUseId]);
  const element = elementNamed(
    approval.arguments,
    [...(steps?.values() ?? [])].map(step => step.text)
  );
  const minutes = left >= 60 ? trans.__('%1 min %2 s', Math.floor(left / 60), left % 60) : trans.__('%1 s', left);
  return (
    <div class="jp-Cambio-approval" ref={card} role="group" aria-label={trans.__('Approval request')}>
      <p role="alert">
        <strong>{trans.__('The agent asks for permission: %1', escapeInvisible(approval.tool).replaceAll('_', ' '))}</strong>
        {left > 0 && <span class="jp-Cambio-dim"> {trans.__('Denied in %1 without an answer.', minutes)}</span>}
      </p>
      <pre class="jp-Cambio-shown" tabIndex={0} aria-label={trans.__('What will run')}>
        {escapeInvisible(approval.shown)}
      </pre>
      {element && <p class="jp-Cambio-dim">{trans.__('The page calls this element %1.', element)}</p>}
      <div class="jp-Cambio-row">
        <Button icon="check" label={trans.__('Approve')} kind="primary" wordy resting={resting > 0} onClick={() => answer(true)} />
        <Button icon="cross" label={trans.__('Deny')} wordy resting={resting > 0} onClick={() => answer(false)} />
      </div>
    </div>
  );
}

/** A card that goes hands its focus on: without one, Escape would not reach the panel, nor Tab go on from here. */
function leave(card: HTMLElement | null): void {
  if (!card?.contains(document.activeElement)) return;
  const place = card.closest('.jp-Cambio-agent, .jp-Cambio-panel');
  place?.querySelector<HTMLElement>('.jp-Cambio-agent-open, .jp-Cambio-composer textarea, .jp-Cambio-bar button:enabled')?.focus();
}
