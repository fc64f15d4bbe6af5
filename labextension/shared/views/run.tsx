import type { ComponentChildren, VNode } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { describe } from '../actions';
import type { RecordedRun } from '../bundle';
import { trans } from '../language';
import { Markdown } from '../markdown';
import { outcome } from '../step';
import { count, duration, money, plain, shorten } from '../text';
import { Button } from './bar';
import { Shot, Thumb } from './recorded-step';

/** What the page that shows a run can do with it; what is absent has no button. */
export interface RunHost {
  /** Asks for a second run to compare with. */
  compare?: () => void;
  /** Saves the run as a video. */
  video?: () => Promise<void>;
  labels?: Labels;
}

/** Tags and note of a run, as people give them. */
export interface Labels {
  tags: readonly string[];
  note: string;
  save: (change: { tags?: string[]; note?: string }) => Promise<void>;
}

export interface RunProps {
  run: RecordedRun;
  host: RunHost;
}

export function RunView({ run, host }: RunProps): VNode {
  const [at, setAt] = useState(0);
  const more = (
    <>
      {host.compare && <Button icon="plus" label={trans.__('Compare…')} wordy onClick={host.compare} />}
      {host.video && <Video save={host.video} />}
    </>
  );
  return (
    <Walk name={run.name} last={run.steps.length - 1} at={at} setAt={setAt} more={more}>
      <div class="jp-Cambio-run-columns">
        <Column run={run} at={at} setAt={setAt} labels={host.labels} />
      </div>
    </Walk>
  );
}

interface WalkProps {
  name: string;
  last: number;
  at: number;
  setAt: (at: number) => void;
  more: ComponentChildren;
  children: ComponentChildren;
}

/** Something that has steps, with a slider, keys and a player to walk through them. */
export function Walk({ name, last, at, setAt, more, children }: WalkProps): VNode {
  const [playing, setPlaying] = useState(false);
  useEffect(() => {
    if (!playing) return undefined;
    const timer = setTimeout(() => (at < last ? setAt(at + 1) : setPlaying(false)), 700);
    return () => clearTimeout(timer);
  }, [playing, at, last, setAt]);
  const onKey = (event: KeyboardEvent): void => {
    if ((event.target as HTMLElement).matches('input, textarea')) return;
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -last, End: last }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    setAt(Math.min(last, Math.max(0, at + by)));
  };
  return (
    <section class="jp-Cambio-root jp-Cambio-run" aria-label={trans.__('Recorded run %1', name)} onKeyDown={onKey}>
      {children}
      <div class="jp-Cambio-run-slider">
        <Button
          icon={playing ? 'pause' : 'play'}
          label={playing ? trans.__('Pause') : trans.__('Play')}
          onClick={() => setPlaying(!playing)}
          disabled={last < 1}
        />
        <input
          type="range"
          min={0}
          max={Math.max(0, last)}
          value={at}
          aria-label={trans.__('Step')}
          aria-valuetext={trans.__('Step %1 of %2', at + 1, last + 1)}
          onInput={event => setAt(Number(event.currentTarget.value))}
        />
        <output class="jp-Cambio-run-at">{last < 0 ? trans.__('no steps') : `${at + 1} / ${last + 1}`}</output>
        {more}
      </div>
    </section>
  );
}

function Video({ save }: { save: () => Promise<void> }): VNode {
  const [state, setState] = useState<'' | 'making' | string>('');
  const start = (): void => {
    setState('making');
    save().then(
      () => setState(''),
      error => setState(error instanceof Error ? error.message : String(error))
    );
  };
  const making = state === 'making';
  return (
    <>
      <Button icon="film" label={making ? trans.__('Making the video…') : trans.__('Video')} wordy resting={making} onClick={start} />
      {state && !making && (
        <span class="jp-Cambio-remark" role="alert">
          {shorten(plain(state), 200)}
        </span>
      )}
    </>
  );
}

function LabelFields({ labels }: { labels: Labels }): VNode {
  const [remark, setRemark] = useState('');
  const save = (change: { tags?: string[]; note?: string }): void => {
    labels.save(change).then(
      () => setRemark(trans.__('Saved')),
      error => setRemark(error instanceof Error ? error.message : String(error))
    );
  };
  return (
    <div class="jp-Cambio-labels">
      <input
        aria-label={trans.__('Tags, separated by commas')}
        placeholder={trans.__('Tags')}
        defaultValue={labels.tags.join(', ')}
        onChange={event =>
          save({
            tags: event.currentTarget.value
              .split(',')
              .map(tag => tag.trim())
              .filter(Boolean)
          })
        }
      />
      <input
        aria-label={trans.__('Note')}
        placeholder={trans.__('Note')}
        defaultValue={labels.note}
        maxLength={2000}
        onChange={event => save({ note: event.currentTarget.value })}
      />
      <span class="jp-Cambio-dim" role="status">
        {remark}
      </span>
    </div>
  );
}

interface ColumnProps {
  run: RecordedRun;
  at: number;
  setAt: (at: number) => void;
  labels?: Labels | undefined;
}

function Column({ run, at, setAt, labels }: ColumnProps): VNode {
  const step = run.steps[at];
  return (
    <div class="jp-Cambio-run-column">
      <RunHead run={run} />
      {labels && <LabelFields labels={labels} />}
      <div class="jp-Cambio-run-body">
        <div class="jp-Cambio-run-left">
          {step && <Shot run={run} step={step} />}
          <Strip run={run} at={at} setAt={setAt} />
        </div>
        <Transcript run={run} at={at} setAt={setAt} />
      </div>
    </div>
  );
}

/** A run's name, model and totals. */
export function RunHead({ run }: { run: RecordedRun }): VNode {
  const { totals } = run;
  return (
    <>
      <header class="jp-Cambio-bar">
        <span class="jp-Cambio-name" title={run.name}>
          {run.name}
        </span>
        <span class="jp-Cambio-dim">{run.model}</span>
        <span class="jp-Cambio-space" />
        <span class="jp-Cambio-meter">
          {trans._n('%1 step', '%1 steps', totals.steps)} · {duration(totals.seconds * 1000)} · {trans.__('%1 tok', count(totals.tokens))} ·{' '}
          {money(totals.cost)}
        </span>
      </header>
      {!run.complete && <p class="jp-Cambio-notice">{trans.__('Not finished when this was saved: shown up to the last step.')}</p>}
    </>
  );
}

function Strip({ run, at, setAt }: ColumnProps): VNode {
  const strip = useRef<HTMLOListElement>(null);
  useEffect(() => {
    const card = strip.current?.children[at] as HTMLElement | undefined;
    if (card && strip.current) strip.current.scrollLeft = card.offsetLeft - strip.current.clientWidth / 2 + card.clientWidth / 2;
  }, [at]);
  return (
    <div class="jp-Cambio-timeline">
      <ol ref={strip} aria-label={trans.__('Steps')}>
        {run.steps.map((step, index) => (
          <li key={step.step}>
            <Thumb run={run} step={step} chosen={index === at} choose={() => setAt(index)} near={Math.abs(index - at) < 12} />
          </li>
        ))}
      </ol>
    </div>
  );
}

function Transcript({ run, at, setAt }: ColumnProps): VNode {
  const list = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const line = list.current?.querySelector<HTMLElement>('[aria-current="step"]');
    if (line && list.current) list.current.scrollTop = line.offsetTop - list.current.clientHeight / 2;
  }, [at]);
  return (
    <div class="jp-Cambio-log jp-Cambio-transcript" ref={list} tabIndex={0} role="region" aria-label={trans.__('Transcript')}>
      {run.entries.map((entry, index) => {
        const step = run.steps[entry.step];
        if (entry.kind === 'step') {
          return step ? (
            <button
              key={index}
              type="button"
              class="jp-Cambio-action"
              data-status={step.status}
              aria-current={entry.step === at ? 'step' : undefined}
              onClick={() => setAt(entry.step)}
            >
              <span class="jp-Cambio-dot" aria-hidden="true" />
              {step.step}. {step.human && `${trans.__('A person')}: `}
              {[describe(step.tool, step.arguments, step.text).label, outcome(step.status)].filter(Boolean).join(' – ')}
            </button>
          ) : null;
        }
        return (
          <article key={index} class={`jp-Cambio-message jp-Cambio-${entry.kind}`}>
            {entry.kind === 'agent' ? <Markdown text={entry.text} /> : <div class="jp-Cambio-plain">{plain(entry.text)}</div>}
          </article>
        );
      })}
    </div>
  );
}
