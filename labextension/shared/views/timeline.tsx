import type { VNode } from 'preact';
import { useEffect, useMemo, useRef } from 'preact/hooks';
import { describe, markOn } from '../actions';
import { cardsOf, type StepCard } from '../cards';
import type { SessionModel } from '../hub';
import { trans } from '../language';
import type { Step } from '../messages';
import { outcome } from '../step';
import { duration, money, plain, shorten } from '../text';
import { Button } from './bar';
import { Boundary } from './boundary';
import { Screenshot } from './screenshot';

/** Steps that are shown; earlier ones are in the recorded run. */
const SHOWN = 200;

export interface TimelineProps {
  model: SessionModel;
  selected: string | null;
  select: (id: string | null) => void;
}

/** One card for each step, the newest at the end. Arrow keys walk through them. */
export function Timeline({ model, selected, select }: TimelineProps): VNode {
  const strip = useRef<HTMLOListElement>(null);
  const { steps } = model.view;
  const cards = useMemo(() => cardsOf([...steps.values()].slice(-SHOWN)), [steps]);
  const newest = cards.at(-1)?.step.id;
  const follows = useRef(true);
  const toEnd = (): void => strip.current?.scrollTo(strip.current.scrollWidth, strip.current.scrollHeight);
  useEffect(() => {
    if (!selected) toEnd();
  }, [newest, selected]);
  useEffect(() => {
    if (!strip.current) return undefined;
    const observer = new ResizeObserver(() => follows.current && toEnd());
    observer.observe(strip.current);
    return () => observer.disconnect();
  }, []);
  const onScroll = ({ currentTarget: list }: { currentTarget: HTMLElement }): void => {
    follows.current = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  };
  const walk = (event: KeyboardEvent): void => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const buttons = [...(strip.current?.querySelectorAll('button') ?? [])];
    buttons[buttons.indexOf(document.activeElement as HTMLButtonElement) + by]?.focus();
  };
  return (
    <section class="jp-Cambio-timeline" aria-label={trans.__('Steps')}>
      {cards.length === 0 && <p class="jp-Cambio-empty jp-Cambio-dim">{trans.__('Steps of the agent appear here.')}</p>}
      <ol ref={strip} onKeyDown={walk} onScroll={onScroll}>
        {cards.map(card => (
          <li key={card.step.id}>
            <Boundary what={trans.__('This step')}>
              <Card model={model} {...card} selected={selected === card.step.id} select={select} />
            </Boundary>
          </li>
        ))}
      </ol>
    </section>
  );
}

interface CardProps extends StepCard {
  model: SessionModel;
  selected: boolean;
  select: TimelineProps['select'];
}

function Card({ model, step, shown, selected, select }: CardProps): VNode {
  const { label } = describe(step.tool, step.arguments, step.text);
  const total = step.timing.total_ms;
  return (
    <button
      type="button"
      class="jp-Cambio-card"
      data-status={step.status}
      data-human={step.human || undefined}
      aria-pressed={selected}
      aria-label={[trans.__('Step %1: %2', step.step, label), outcome(step.status)].filter(Boolean).join(', ')}
      title={label}
      onClick={() => select(selected ? null : step.id)}
    >
      {shown?.image ? (
        <Screenshot api={model.api} path={shown.image} width={shown.width} height={shown.height} mark={markOn(step, shown)} alt="" />
      ) : (
        <span class="jp-Cambio-screenshot jp-Cambio-words">{shorten(plain(step.text) || label, 120)}</span>
      )}
      <span class="jp-Cambio-caption">
        <b>{step.step}</b> {step.human && `${trans.__('A person')}: `}
        {label}
      </span>
      <span class="jp-Cambio-caption jp-Cambio-dim">
        {step.status === 'started' ? trans.__('running') : outcome(step.status) || (total ? duration(total) : '')}
        {step.cost > 0 && ` ${total || outcome(step.status) || step.status === 'started' ? '· ' : ''}${money(step.cost)}`}
      </span>
    </button>
  );
}

/** One step in full: the screenshot with the action on it, what came back, where the time went. */
export function StepDetail({ model, step, close }: { model: SessionModel; step: Step; close: () => void }): VNode {
  const { label } = describe(step.tool, step.arguments, step.text);
  const { steps } = model.view;
  const cards = useMemo(() => cardsOf([...steps.values()]), [steps]);
  const shown = cards.find(card => card.step.id === step.id)?.shown ?? step;
  const alt = shown.step >= step.step ? trans.__('The desktop after: %1', label) : trans.__('The desktop before: %1', label);
  const { action_ms: action, settle_ms: settle, encode_ms: encode, total_ms: total } = step.timing;
  return (
    <section class="jp-Cambio-detail" aria-label={trans.__('Step %1: %2', step.step, label)}>
      <header class="jp-Cambio-row">
        <strong>
          {step.step}. {label}
        </strong>
        <span class="jp-Cambio-space" />
        <Button icon="screen" label={trans.__('Back to live')} wordy onClick={close} />
      </header>
      {shown.image && (
        <Screenshot api={model.api} path={shown.image} width={shown.width} height={shown.height} mark={markOn(step, shown)} alt={alt} />
      )}
      {step.text && (
        <pre class="jp-Cambio-shown" tabIndex={0}>
          {shorten(plain(step.text), 20_000)}
        </pre>
      )}
      {!!total && (
        <p class="jp-Cambio-dim">
          {action || settle || encode
            ? trans.__(
                '%1 in all: action %2, settling %3, encoding %4',
                duration(total),
                duration(action ?? 0),
                duration(settle ?? 0),
                duration(encode ?? 0)
              )
            : trans.__('%1 in all', duration(total))}
        </p>
      )}
    </section>
  );
}
