import type { VNode } from 'preact';
import { useRef, useState } from 'preact/hooks';
import { policyWords } from '../approval';
import type { SessionModel } from '../hub';
import { trans } from '../language';
import type { ShowScreen } from '../screen';
import { count, money } from '../text';
import { working } from '../working';
import { ApprovalCard } from './approval';
import { Button, StatusBadge } from './bar';
import { Boundary } from './boundary';
import { Chat } from './chat';
import { ConnectionNotice, ControlButton, driver, TurnButtons } from './controls';
import { Desktop } from './desktop';
import { download } from './download';
import { toggleFullScreen } from './fullscreen';
import { composing, useModel } from './hooks';
import { Ended } from './ended';
import { QuestionCard } from './question';
import { StepDetail, Timeline } from './timeline';

export type Mode = 'panel' | 'desktop' | 'chat';

export interface PanelProps {
  model: SessionModel;
  show: ShowScreen;
  mode: Mode;
  /** Inside a notebook, whose one-letter shortcuts would otherwise act on cells. */
  embedded: boolean;
  /** Said above everything else, for a panel that works in a lesser way. */
  remark?: string;
}

export function Panel({ model, show, mode, embedded, remark }: PanelProps): VNode {
  useModel(model);
  const root = useRef<HTMLElement>(null);
  const [selected, setSelected] = useState<string | null>(null);
  const { view } = model;
  const step = selected ? view.steps.get(selected) : undefined;
  const onKey = (event: KeyboardEvent): void => {
    if (event.key === 'Escape' && !event.shiftKey && !composing(event) && working(view.status)) model.stop();
  };
  const name = view.name || trans.__('Agent session');
  const detail = step && (
    <Boundary key={step.id} what={trans.__('This step')}>
      <StepDetail model={model} step={step} close={() => setSelected(null)} />
    </Boundary>
  );
  const desktop = (
    <div class="jp-Cambio-stage">
      {detail}
      <Desktop
        show={show}
        interactive={model.interactive}
        focused={model.controls}
        driver={driver(model)}
        ended={view.ended}
        rest={view.ended && <Ended model={model} />}
      />
    </div>
  );
  return (
    <section
      ref={root}
      class={`jp-Cambio-root jp-Cambio-panel jp-Cambio-mode-${mode}${embedded ? ' jp-Cambio-embedded' : ''}`}
      aria-label={name}
      onKeyDown={onKey}
      data-session={view.id}
      data-lm-suppress-shortcuts={embedded || undefined}
    >
      <div class="jp-Cambio-bar" role="toolbar" aria-label={trans.__('Session')}>
        <span class="jp-Cambio-name" title={view.id}>
          {name}
        </span>
        <StatusBadge status={model.missing ? 'missing' : view.ended ? 'ended' : view.status} text={view.statusText} />
        <span class="jp-Cambio-space" />
        {view.recordsText && !view.ended && (
          <span class="jp-Cambio-recording" title={trans.__('Mouse, keyboard and the text you type on the desktop are recorded')}>
            <span aria-hidden="true">●</span> {trans.__('Recording what you type')}
          </span>
        )}
        {view.model === 'demo' && (
          <Words kind="scripted" words={trans.__('scripted demo, not Claude')} about={trans.__('This model is a script')} />
        )}
        <Isolation desktop={view.desktop} />
        <Policy policy={view.policy} />
        <Meter model={model} />
        <TurnButtons model={model} />
        {mode !== 'chat' && (
          <>
            <ControlButton model={model} />
            <Button icon="camera" label={trans.__('Save a screenshot')} disabled={view.ended} onClick={() => void save(model)} />
            <Button icon="expand" label={trans.__('Full screen')} onClick={() => root.current && void toggleFullScreen(root.current)} />
          </>
        )}
      </div>
      {remark && <p class="jp-Cambio-notice">{remark}</p>}
      <ConnectionNotice model={model} />
      {mode === 'desktop' && view.approval && <ApprovalCard approval={view.approval} steps={view.steps} decide={model.decide} />}
      {mode === 'desktop' && view.question && <QuestionCard question={view.question} answer={model.answer} />}
      <div class="jp-Cambio-body">
        {mode !== 'chat' && (
          <div class="jp-Cambio-left">
            {desktop}
            {mode === 'panel' && <Timeline model={model} selected={selected} select={setSelected} />}
          </div>
        )}
        {mode === 'chat' && detail}
        {mode !== 'desktop' && <Chat model={model} select={id => setSelected(id)} />}
      </div>
    </section>
  );
}

/** What keeps the agent's programs from this machine, or that nothing does. */
function Isolation({ desktop }: { desktop: string }): VNode | null {
  const known: Record<string, string> = {
    docker: trans.__('docker (isolated)'),
    sandbox: trans.__('sandbox (isolated)'),
    local: trans.__('local (not isolated)')
  };
  const words = known[desktop]; // as `/health` and `cambio-lab doctor` say it
  if (!words) return null;
  return <Words kind="isolation" words={words} about={trans.__('Where the programs of this desktop run')} />;
}

/** A short text of the bar, which is cut where there is no room; its title has all of it. */
function Words({ kind, words, about }: { kind: string; words: string; about: string }): VNode {
  return (
    <span class={`jp-Cambio-${kind}`} title={`${words}. ${about}`}>
      {words}
    </span>
  );
}

/** Which actions wait for a person: the effective policy, wherever it was set. */
function Policy({ policy }: { policy: unknown }): VNode | null {
  const words = policyWords(policy);
  if (!words) return null;
  return <Words kind="policy" words={trans.__('Approval: %1', words)} about={trans.__('Which actions wait for approval')} />;
}

/** Tokens and money of the session, and how much of the allowance is used. */
function Meter({ model }: { model: SessionModel }): VNode {
  const { usage, maxCost, stepCount } = model.view;
  const tokens =
    (usage.input_tokens ?? 0) +
    (usage.output_tokens ?? 0) +
    (usage.cache_read_input_tokens ?? 0) +
    (usage.cache_creation_input_tokens ?? 0);
  const cost = usage.cost_usd ?? 0;
  const steps = trans._n('%1 step', '%1 steps', stepCount);
  const words = trans.__('%1, %2 tokens, %3', steps, count(tokens), money(cost));
  const title = maxCost ? trans.__('%1 of at most %2', words, money(maxCost)) : words;
  return (
    <span class="jp-Cambio-meter" title={title} role="img" aria-label={title}>
      <span>{steps}</span>
      <span>{trans.__('%1 tok', count(tokens))}</span>
      <span>{money(cost)}</span>
      {maxCost > 0 && (
        <span class="jp-Cambio-gauge">
          <span style={{ width: `${Math.min(100, (100 * cost) / maxCost)}%` }} />
        </span>
      )}
    </span>
  );
}

async function save(model: SessionModel): Promise<void> {
  try {
    const blob = await model.api.screenshot(model.id);
    const stamp = new Date().toISOString().slice(0, 19).replaceAll(':', '-');
    download(blob, `${model.view.name || 'desktop'} ${stamp}.png`);
    model.say('');
  } catch (error) {
    model.say(error instanceof Error ? error.message : String(error));
  }
}
