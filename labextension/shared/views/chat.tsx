import type { VNode } from 'preact';
import { useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import { announce, describe } from '../actions';
import { ownCards } from '../cards';
import type { SessionModel } from '../hub';
import { trans } from '../language';
import { Markdown } from '../markdown';
import type { Step } from '../messages';
import { questionKey, type Entry } from '../state';
import { outcome } from '../step';
import { plain, shorten } from '../text';
import { working } from '../working';
import { ApprovalCard } from './approval';
import { Button } from './bar';
import { Boundary } from './boundary';
import { Composer } from './composer';
import { QuestionCard } from './question';
import { Screenshot } from './screenshot';

const SHOWN = 100;

export interface ChatProps {
  model: SessionModel;
  select: (step: string) => void;
}

export function Chat({ model, select }: ChatProps): VNode {
  const { view } = model;
  return (
    <section class="jp-Cambio-chat" aria-label={trans.__('Conversation')}>
      <Log model={model} select={select} />
      {view.approval && <ApprovalCard approval={view.approval} steps={view.steps} decide={model.decide} />}
      {view.question && <QuestionCard question={view.question} answer={model.answer} />}
      <Queued model={model} />
      <Outgoing model={model} />
      <Composer model={model} />
    </section>
  );
}

function Log({ model, select }: ChatProps): VNode {
  const { view } = model;
  const own = useMemo(() => ownCards([...view.steps.values()]), [view.steps]);
  const [shown, setShown] = useState(SHOWN);
  const list = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  useLayoutEffect(() => {
    if (follows.current && list.current) list.current.scrollTop = list.current.scrollHeight;
  });
  const onScroll = (): void => {
    const element = list.current;
    if (element) follows.current = element.scrollHeight - element.scrollTop - element.clientHeight < 40;
  };
  const hidden = Math.max(0, view.entries.length - shown);
  const showEarlier = (): void => {
    follows.current = false;
    setShown(shown + SHOWN);
    if (hidden < SHOWN) void model.loadEarlier();
  };
  return (
    <div class="jp-Cambio-log" ref={list} onScroll={onScroll} tabIndex={0} role="log" aria-label={trans.__('Messages')}>
      {(hidden > 0 || model.earlier) && (
        <button type="button" class="jp-Cambio-link" onClick={showEarlier}>
          {trans.__('Show earlier messages')}
        </button>
      )}
      {view.entries.length === 0 && !view.draft && <Welcome model={model} />}
      {view.entries
        .slice(hidden)
        .filter(entry => entry.key !== questionKey(view.question?.toolUseId ?? ''))
        .map(entry => (
          <Boundary key={entry.key} what={trans.__('This message')}>
            <EntryView entry={entry} model={model} own={own} select={select} />
          </Boundary>
        ))}
      <Draft model={model} />
    </div>
  );
}

function Welcome({ model }: { model: SessionModel }): VNode | null {
  if (model.missing) return null;
  return (
    <p class="jp-Cambio-empty jp-Cambio-dim">
      {model.view.loaded
        ? trans.__('Say what the agent shall do on this desktop. You can stop it or take the mouse at any time.')
        : trans.__('Loading the conversation…')}
    </p>
  );
}

interface EntryProps extends ChatProps {
  entry: Entry;
  /** Steps with a card of their own: a look at the screen after an action has none. */
  own: ReadonlySet<string>;
}

function EntryView({ entry, model, own, select }: EntryProps): VNode {
  switch (entry.kind) {
    case 'actions':
      return <Actions entry={entry} model={model} own={own} select={select} />;
    case 'user':
      return (
        <article class="jp-Cambio-message jp-Cambio-user" aria-label={trans.__('You')}>
          <div class="jp-Cambio-plain">{plain(entry.text)}</div>
          {entry.images && (
            <div class="jp-Cambio-attached">
              {entry.images.map(digest => (
                <Screenshot
                  key={digest}
                  api={model.api}
                  path={`sessions/${model.id}/screenshots/${digest}`}
                  width={0}
                  height={0}
                  mark={null}
                  alt={trans.__('An image of this message')}
                />
              ))}
            </div>
          )}
          {entry.remark && <p class="jp-Cambio-remark">{entry.remark}</p>}
        </article>
      );
    case 'agent':
      return (
        <article class="jp-Cambio-message jp-Cambio-reply" aria-label={trans.__('Agent')}>
          <Markdown text={entry.text} />
          {entry.remark && <p class="jp-Cambio-remark">{entry.remark}</p>}
        </article>
      );
    case 'error':
      return (
        <article class="jp-Cambio-message jp-Cambio-error" aria-label={trans.__('Error')}>
          <div class="jp-Cambio-plain">{shorten(plain(entry.text), 4000)}</div>
        </article>
      );
    case 'thinking':
      return (
        <details class="jp-Cambio-thinking">
          <summary class="jp-Cambio-dim">{trans.__('Thinking')}</summary>
          <div class="jp-Cambio-plain">{shorten(plain(entry.text), 20_000)}</div>
        </details>
      );
    case 'note':
      if (entry.steps.some(id => model.view.steps.get(id)?.status === 'completed' && !own.has(id))) return <></>; // its step is not shown either
      return <p class="jp-Cambio-note jp-Cambio-dim">{plain(entry.text)}</p>;
  }
}

/** What the agent did between two things that it said; a long list shows its end. */
function Actions({ entry, model, own, select }: EntryProps): VNode {
  const [all, setAll] = useState(false);
  const steps = entry.steps.filter(id => own.has(id) && !isTold(model.view.steps.get(id)));
  if (!steps.length) return <></>;
  const from = all || steps.length <= 8 ? 0 : steps.length - 6;
  return (
    <ul class="jp-Cambio-actions" aria-label={trans.__('Actions')}>
      {from > 0 && (
        <li>
          <button type="button" class="jp-Cambio-link" onClick={() => setAll(true)}>
            {trans.__('%1 earlier actions', from)}
          </button>
        </li>
      )}
      {steps.slice(from).map(id => {
        const step = model.view.steps.get(id);
        if (!step) return null;
        return (
          <li key={id} data-status={step.status}>
            <button type="button" class="jp-Cambio-action" onClick={() => select(id)}>
              <span class="jp-Cambio-dot" aria-hidden="true" />
              {step.human && `${trans.__('A person')}: `}
              {[describe(step.tool, step.arguments, step.text).label, outcome(step.status)].filter(Boolean).join(' – ')}
            </button>
          </li>
        );
      })}
    </ul>
  );
}

/** Whether the question of a step is told in words beside it. */
function isTold(step: Step | undefined): boolean {
  return step !== undefined && ['started', 'completed'].includes(step.status) && ['ask_user', 'hand_over'].includes(step.tool);
}

/** What is being said right now. Not announced piece by piece: the finished message is. */
function Draft({ model }: { model: SessionModel }): VNode | null {
  const { draft, thinking, announced, status, approval, question } = model.view;
  if (!working(status) && !draft) return null;
  const hint =
    approval || question
      ? ''
      : announced
        ? trans.__('About to: %1', announce(announced))
        : status === 'thinking'
          ? trans.__('Thinking…')
          : '';
  return (
    <div aria-live="off" aria-busy="true">
      {thinking && !draft && <p class="jp-Cambio-thinking jp-Cambio-dim">{shorten(plain(thinking.slice(-600)), 600)}</p>}
      {draft && (
        <article class="jp-Cambio-message jp-Cambio-reply jp-Cambio-draft">
          <Markdown text={draft} />
        </article>
      )}
      {hint && (
        <p class="jp-Cambio-note jp-Cambio-dim">
          <span class="jp-Cambio-spinner" aria-hidden="true" />
          {hint}
        </p>
      )}
    </div>
  );
}

/** Messages that the server has, and the agent not yet. */
function Queued({ model }: { model: SessionModel }): VNode {
  return (
    <>
      {[...model.view.queued].map(([id, words]) => (
        <div key={id} class="jp-Cambio-outgoing jp-Cambio-queued">
          <span class="jp-Cambio-plain">{shorten(plain(words), 200)}</span>
          <span class="jp-Cambio-dim">{trans.__('Waits for the agent’s next request')}</span>
          <Button icon="cross" label={trans.__('Take back')} onClick={() => model.withdraw(id)} />
        </div>
      ))}
    </>
  );
}

/** A message that the server has not confirmed: never in the conversation before it is. */
function Outgoing({ model }: { model: SessionModel }): VNode | null {
  const { outgoing } = model;
  if (!outgoing || outgoing.state === 'returned') return null;
  const waiting = outgoing.state === 'waiting';
  return (
    <div class="jp-Cambio-outgoing" role="status">
      <span class="jp-Cambio-spinner" aria-hidden="true" />
      <span class="jp-Cambio-plain">{shorten(plain(outgoing.text), 200)}</span>
      {outgoing.images.length > 0 && <span class="jp-Cambio-dim">{trans._n('%1 image', '%1 images', outgoing.images.length)}</span>}
      <span class="jp-Cambio-dim">{waiting ? trans.__('Waiting for the connection') : trans.__('Sending')}</span>
      {waiting && <Button icon="cross" label={trans.__('Take back')} onClick={() => model.takeBack()} />}
    </div>
  );
}
