/** One step of a recorded run: large with its times, and as a card of the strip. */

import type { VNode } from 'preact';
import { describe, isLook, markOn, screenshotIndex } from '../actions';
import type { RecordedRun, RunStep } from '../bundle';
import { trans } from '../language';
import { outcome } from '../step';
import { count, duration, money, plain, shorten } from '../text';
import { Overlay } from './screenshot';

/** The step whose screenshot stands for the one at `index`. */
function shownAt(run: RecordedRun, index: number): RunStep | undefined {
  return run.steps[screenshotIndex(run.steps, index, step => imageOf(step) !== '')];
}

/** The look at the screen right after a step that gave none itself. */
function lookAfter(run: RecordedRun, step: RunStep): RunStep | undefined {
  const next = run.steps[run.steps.indexOf(step) + 1];
  return !imageOf(step) && next && isLook(next.tool, next.arguments) && imageOf(next) ? next : undefined;
}

/** Whether the screenshot that stands for a step shows a page's viewport: what the session took itself shows the screen. */
function onPage(step: RunStep): { browser: boolean } {
  return { browser: step.browser && step.screenshot !== '' };
}

/** The screenshot that the model saw after a step, else the one that only the session took. */
function imageOf(step: RunStep | undefined): string {
  return step?.screenshot || step?.unseen || '';
}

export function Shot({ run, step, after = false }: { run: RecordedRun; step: RunStep; after?: boolean }): VNode {
  const { label } = describe(step.tool, step.arguments, step.text);
  const shown = (after ? lookAfter(run, step) : undefined) ?? shownAt(run, run.steps.indexOf(step));
  const mark = markOn(step, shown && onPage(shown));
  const url = run.screenshot(imageOf(shown));
  const alt = (shown?.step ?? 0) >= step.step ? trans.__('The desktop after: %1', label) : trans.__('The desktop before: %1', label);
  const { action, settle, encode, total, model } = step.timing;
  const tool = Math.max(total, action + settle + encode);
  const share = (value: number): { width: string } => ({ width: `${(100 * value) / Math.max(1, model + tool)}%` });
  return (
    <div class="jp-Cambio-shot">
      <p class="jp-Cambio-shot-title">
        <b>{step.step}.</b> {label} {outcome(step.status) && <span class="jp-Cambio-remark">{outcome(step.status)}</span>}
      </p>
      {url ? (
        <span class="jp-Cambio-screenshot" style={{ aspectRatio: `${shown?.width || 1280} / ${shown?.height || 800}` }}>
          <img src={url} alt={alt} draggable={false} />
          {mark && <Overlay mark={mark} width={shown?.width || 1280} height={shown?.height || 800} />}
        </span>
      ) : (
        <pre class="jp-Cambio-shown" tabIndex={0}>
          {shorten(plain(step.text), 20_000) || trans.__('no output')}
        </pre>
      )}
      <p class="jp-Cambio-times jp-Cambio-dim">
        {trans.__('at %1', duration(step.at * 1000))} · {trans.__('model %1', duration(model))} · {trans.__('action %1', duration(action))}{' '}
        · {trans.__('settling %1', duration(settle))} · {trans.__('%1 tok', count(Math.round(step.tokens)))} · {money(step.cost)}
      </p>
      <span class="jp-Cambio-shares" aria-hidden="true">
        <i class="jp-Cambio-share-model" style={share(model)} />
        <i class="jp-Cambio-share-action" style={share(action)} />
        <i class="jp-Cambio-share-settle" style={share(settle)} />
        <i class="jp-Cambio-share-rest" style={share(Math.max(0, tool - action - settle))} />
      </span>
    </div>
  );
}

/** Screenshots are unpacked only near the chosen step: a run may have hundreds. */
export function Thumb({
  run,
  step,
  chosen,
  choose,
  near
}: {
  run: RecordedRun;
  step: RunStep;
  chosen: boolean;
  choose: () => void;
  near: boolean;
}): VNode {
  const { label } = describe(step.tool, step.arguments, step.text);
  const shown = near ? shownAt(run, run.steps.indexOf(step)) : undefined;
  const mark = markOn(step, shown && onPage(shown));
  const url = run.screenshot(imageOf(shown));
  return (
    <button
      type="button"
      class="jp-Cambio-card"
      aria-pressed={chosen}
      data-status={step.status}
      title={label}
      aria-label={trans.__('Step %1: %2', step.step, label)}
      onClick={choose}
    >
      {url ? (
        <span class="jp-Cambio-screenshot">
          <img src={url} alt="" decoding="async" draggable={false} />
          {mark && <Overlay mark={mark} width={shown?.width || 1280} height={shown?.height || 800} />}
        </span>
      ) : (
        <span class="jp-Cambio-screenshot jp-Cambio-words">{step.screenshot ? '' : shorten(plain(step.text), 100)}</span>
      )}
      <span class="jp-Cambio-caption">
        <b>{step.step}</b> {[label, outcome(step.status)].filter(Boolean).join(' – ')}
      </span>
    </button>
  );
}
