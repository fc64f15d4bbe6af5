import type { VNode } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { trans } from '../language';
import type { Question } from '../question';
import { plain, shorten } from '../text';
import { Button } from './bar';
import { composing, useCountdown } from './hooks';

/** What the agent asks, and the ways to answer; for a hand-over, what the person shall do and the way back. */
export function QuestionCard({ question, answer }: { question: Question; answer: (text: string, shown: Question) => void }): VNode {
  const [text, setText] = useState('');
  const card = useRef<HTMLFormElement>(null);
  useEffect(() => {
    setText('');
    card.current?.scrollIntoView({ block: 'nearest' });
  }, [question.toolUseId]);
  const { handsOver, freeText } = question;
  const ready = handsOver || text.trim() !== '';
  const send = (): void => {
    if (ready) answer(text.trim(), question);
  };
  const onKey = (event: KeyboardEvent): void => {
    if (event.key !== 'Enter' || event.shiftKey || composing(event)) return;
    event.preventDefault();
    send();
  };
  return (
    <form
      class="jp-Cambio-approval jp-Cambio-asks"
      ref={card}
      aria-label={trans.__('Question of the agent')}
      onSubmit={event => (event.preventDefault(), send())}
    >
      <p role="alert">
        <strong>{handsOver ? trans.__('The agent hands the desktop over to you') : trans.__('The agent asks you')}</strong>
        <Expiry question={question} />
      </p>
      <p class="jp-Cambio-plain jp-Cambio-asked">{shorten(plain(question.question), 4000)}</p>
      {question.choices.length > 0 && (
        <div class="jp-Cambio-row jp-Cambio-choices">
          {question.choices.map(choice => (
            <button key={choice} type="button" class="jp-Cambio-button jp-Cambio-wordy" onClick={() => answer(choice, question)}>
              {shorten(plain(choice), 200)}
            </button>
          ))}
        </div>
      )}
      {(handsOver || freeText) && (
        <div class="jp-Cambio-row">
          <textarea
            rows={1}
            value={text}
            aria-label={handsOver ? trans.__('Say something to the agent') : trans.__('Answer')}
            placeholder={handsOver ? trans.__('Note') : question.choices.length ? trans.__('Another answer') : trans.__('Answer')}
            onInput={event => setText(event.currentTarget.value)}
            onKeyDown={onKey}
          />
          <Button
            icon={handsOver ? 'back' : 'send'}
            label={handsOver ? trans.__('Hand back') : trans.__('Answer')}
            kind="primary"
            wordy
            disabled={!ready}
            onClick={send}
          />
        </div>
      )}
    </form>
  );
}

function Expiry({ question }: { question: Question }): VNode | null {
  const left = useCountdown(question.expiresAt);
  if (left <= 0) return null;
  const time = left >= 60 ? trans.__('%1 min', Math.ceil(left / 60)) : trans.__('%1 s', left);
  const words = question.fallback
    ? trans.__('Without an answer it goes on with “%1” in %2.', shorten(plain(question.fallback), 60), time)
    : trans.__('Without an answer it goes on in %1.', time);
  return <span class="jp-Cambio-dim"> {words}</span>;
}
