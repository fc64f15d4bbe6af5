import type { VNode } from 'preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { describe, pictured } from '../actions';
import { firstDifference, type RecordedRun, type RunStep } from '../bundle';
import { translate as t } from '../language';
import { Markdown } from '../markdown';
import { count, duration, money, plain, shorten } from '../text';
import { Button } from './bar';
import { Overlay } from './picture';

export interface RunProps {
  run: RecordedRun;
  other: RecordedRun | null;
  /** Asks for a second run to compare with; absent where the host cannot. */
  compare: (() => void) | null;
  /** Stops comparing. */
  single: () => void;
}

export function RunView({ run, other, compare, single }: RunProps): VNode {
  const [at, setAt] = useState(0);
  const [playing, setPlaying] = useState(false);
  const last = Math.max(run.steps.length, other?.steps.length ?? 0) - 1;
  const parts = useMemo(() => (other ? firstDifference(run, other) : -1), [run, other]);
  useEffect(() => {
    if (!playing) return undefined;
    const timer = setTimeout(() => (at < last ? setAt(at + 1) : setPlaying(false)), 700);
    return () => clearTimeout(timer);
  }, [playing, at, last]);
  const onKey = (event: KeyboardEvent): void => {
    if ((event.target as HTMLElement).matches('input, textarea')) return;
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -last, End: last }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    setAt(Math.min(last, Math.max(0, at + by)));
  };
  return (
    <section class="cl-root cl-run" aria-label={t('Recorded run %1', run.name)} onKeyDown={onKey}>
      <div class={`cl-run-columns${other ? ' cl-two' : ''}`}>
        <Column run={run} at={at} setAt={setAt} />
        {other && <Column run={other} at={at} setAt={setAt} />}
      </div>
      <div class="cl-run-slider">
        <Button icon={playing ? 'pause' : 'play'} label={playing ? t('Pause') : t('Play')} onClick={() => setPlaying(!playing)} disabled={last < 1} />
        <input
          type="range"
          min={0}
          max={Math.max(0, last)}
          value={at}
          aria-label={t('Step')}
          aria-valuetext={t('Step %1 of %2', at + 1, last + 1)}
          onInput={event => setAt(Number(event.currentTarget.value))}
        />
        <output class="cl-run-at">
          {last < 0 ? t('no steps') : `${at + 1} / ${last + 1}`}
        </output>
        {parts >= 0 && (
          <button type="button" class="cl-link" onClick={() => setAt(parts)}>
            {t('They part at step %1', parts + 1)}
          </button>
        )}
        {other && parts < 0 && <span class="cl-dim">{t('Same actions')}</span>}
        {other ? (
          <Button icon="cross" label={t('Close comparison')} onClick={single} />
        ) : (
          compare && <Button icon="plus" label={t('Compare…')} wordy onClick={compare} />
        )}
      </div>
    </section>
  );
}

interface ColumnProps {
  run: RecordedRun;
  at: number;
  setAt: (at: number) => void;
}

function Column({ run, at, setAt }: ColumnProps): VNode {
  const step = run.steps[at];
  const { totals } = run;
  return (
    <div class="cl-run-column">
      <header class="cl-bar">
        <span class="cl-name" title={run.name}>
          {run.name}
        </span>
        <span class="cl-dim">{run.model}</span>
        <span class="cl-space" />
        <span class="cl-meter">
          {t('%1 steps', totals.steps)} · {duration(totals.seconds * 1000)} · {t('%1 tok', count(totals.tokens))} · {money(totals.cost)}
        </span>
      </header>
      {!run.complete && <p class="cl-notice">{t('The session was still going on, or a part of its record is missing: this is the truth up to the last step.')}</p>}
      <div class="cl-run-body">
        <div class="cl-run-left">
          {step ? <Shot run={run} step={step} /> : <p class="cl-empty cl-dim">{t('This run has no such step.')}</p>}
          <Strip run={run} at={at} setAt={setAt} />
        </div>
        <Transcript run={run} at={at} setAt={setAt} />
      </div>
    </div>
  );
}

/** The step whose picture stands for the one at `index`. */
function shownAt(run: RecordedRun, index: number): RunStep | undefined {
  return run.steps[pictured(run.steps, index, step => step.picture !== '')];
}

function Shot({ run, step }: { run: RecordedRun; step: RunStep }): VNode {
  const { label, mark } = describe(step.tool, step.arguments);
  const shown = shownAt(run, run.steps.indexOf(step));
  const url = run.picture(shown?.picture ?? '');
  const alt = shown === step ? t('The desktop after: %1', label) : t('The desktop before: %1', label);
  const { action, settle, encode, total, model } = step.timing;
  const tool = Math.max(total, action + settle + encode);
  const share = (value: number): { width: string } => ({ width: `${(100 * value) / Math.max(1, model + tool)}%` });
  return (
    <div class="cl-shot">
      <p class="cl-shot-title">
        <b>{step.step}.</b> {label} {step.status === 'failed' && <span class="cl-remark">{t('failed')}</span>}
      </p>
      {url ? (
        <span class="cl-picture" style={{ aspectRatio: `${shown?.width || 1280} / ${shown?.height || 800}` }}>
          <img src={url} alt={alt} draggable={false} />
          {mark && <Overlay mark={mark} width={shown?.width || 1280} height={shown?.height || 800} />}
        </span>
      ) : (
        <pre class="cl-shown" tabIndex={0}>
          {shorten(plain(step.text), 20_000) || t('no output')}
        </pre>
      )}
      <p class="cl-times cl-dim">
        {t('at %1', duration(step.at * 1000))} · {t('model %1', duration(model))} · {t('action %1', duration(action))} · {t('settling %1', duration(settle))} ·{' '}
        {t('%1 tok', count(Math.round(step.tokens)))} · {money(step.cost)}
      </p>
      <span class="cl-shares" aria-hidden="true">
        <i class="cl-share-model" style={share(model)} />
        <i class="cl-share-action" style={share(action)} />
        <i class="cl-share-settle" style={share(settle)} />
        <i class="cl-share-rest" style={share(Math.max(0, tool - action - settle))} />
      </span>
    </div>
  );
}

function Strip({ run, at, setAt }: ColumnProps): VNode {
  const strip = useRef<HTMLOListElement>(null);
  useEffect(() => {
    const card = strip.current?.children[at] as HTMLElement | undefined;
    if (card && strip.current) strip.current.scrollLeft = card.offsetLeft - strip.current.clientWidth / 2 + card.clientWidth / 2;
  }, [at]);
  return (
    <div class="cl-timeline">
      <ol ref={strip} aria-label={t('Steps')}>
        {run.steps.map((step, index) => (
          <li key={step.step}>
            <Thumb run={run} step={step} chosen={index === at} choose={() => setAt(index)} near={Math.abs(index - at) < 12} />
          </li>
        ))}
      </ol>
    </div>
  );
}

/** Pictures are unpacked only near the chosen step: a run may have hundreds. */
function Thumb({ run, step, chosen, choose, near }: { run: RecordedRun; step: RunStep; chosen: boolean; choose: () => void; near: boolean }): VNode {
  const { label, mark } = describe(step.tool, step.arguments);
  const shown = near ? shownAt(run, run.steps.indexOf(step)) : undefined;
  const url = run.picture(shown?.picture ?? '');
  return (
    <button type="button" class="cl-card" aria-pressed={chosen} data-status={step.status} title={label} aria-label={t('Step %1: %2', step.step, label)} onClick={choose}>
      {url ? (
        <span class="cl-picture">
          <img src={url} alt="" decoding="async" draggable={false} />
          {mark && <Overlay mark={mark} width={shown?.width || 1280} height={shown?.height || 800} />}
        </span>
      ) : (
        <span class="cl-picture cl-words">{step.picture ? '' : shorten(plain(step.text), 100)}</span>
      )}
      <span class="cl-caption">
        <b>{step.step}</b> {label}
      </span>
    </button>
  );
}

function Transcript({ run, at, setAt }: ColumnProps): VNode {
  const list = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const line = list.current?.querySelector<HTMLElement>('[aria-current="step"]');
    if (line && list.current) list.current.scrollTop = line.offsetTop - list.current.clientHeight / 2;
  }, [at]);
  return (
    <div class="cl-log cl-transcript" ref={list} tabIndex={0} role="region" aria-label={t('Transcript')}>
      {run.entries.map((entry, index) => {
        const step = run.steps[entry.step];
        if (entry.kind === 'step') {
          return step ? (
            <button key={index} type="button" class="cl-action" data-status={step.status} aria-current={entry.step === at ? 'step' : undefined} onClick={() => setAt(entry.step)}>
              <span class="cl-dot" aria-hidden="true" />
              {step.step}. {describe(step.tool, step.arguments).label}
            </button>
          ) : null;
        }
        return (
          <article key={index} class={`cl-message cl-${entry.kind}`}>
            {entry.kind === 'agent' ? <Markdown text={entry.text} /> : <div class="cl-plain">{plain(entry.text)}</div>}
          </article>
        );
      })}
    </div>
  );
}
