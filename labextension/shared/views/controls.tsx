import type { VNode } from 'preact';
import type { SessionModel } from '../hub';
import { trans } from '../language';
import { working } from '../working';
import { Button } from './bar';
import { useCountdown } from './hooks';

/** Who holds the mouse, in words. */
export function driver(model: SessionModel): string {
  if (model.controls) return trans.__('You have control · Shift+Esc leaves the desktop');
  if (model.view.question?.handsOver && !model.view.control) return trans.__('The desktop is yours until you hand it back');
  if (model.view.control) return trans.__('Another viewer has control');
  return working(model.view.status) ? trans.__('The agent has control') : ''; // idle: the desktop's own corner is seen
}

export function TurnButtons({ model, wordy }: { model: SessionModel; wordy?: boolean }): VNode {
  const { status, ended } = model.view;
  const busy = working(status) && !ended;
  const paused = status === 'paused';
  return (
    <>
      <Button
        icon="stop"
        label={trans.__('Stop')}
        kind="danger"
        keys="Escape"
        wordy={wordy ?? false}
        disabled={!busy}
        onClick={() => model.stop()}
      />
      <Button
        icon={paused ? 'play' : 'pause'}
        label={paused ? trans.__('Resume') : trans.__('Pause')}
        disabled={!busy}
        onClick={() => model.command(paused ? 'resume' : 'pause')}
      />
    </>
  );
}

export function ControlButton({ model, wordy = true }: { model: SessionModel; wordy?: boolean }): VNode | null {
  const mine = model.controls;
  if (model.api.relayed) return null; // screenshots come, but neither mouse nor keyboard go
  return (
    <Button
      icon={mine ? 'back' : 'mouse'}
      label={mine ? trans.__('Give back') : trans.__('Take control')}
      wordy={wordy}
      kind={mine ? 'primary' : ''}
      disabled={model.view.ended || model.connection.phase !== 'open'}
      onClick={() => model.command(mine ? 'give_back' : 'take_control')}
    />
  );
}

/** Nothing while all is well; otherwise what is wrong and what happens next. */
export function ConnectionNotice({ model }: { model: SessionModel }): VNode {
  const { phase, reason, retryAt } = model.connection;
  const left = useCountdown(retryAt);
  const wait = useCountdown(model.view.waiting?.until ?? 0);
  const bad = phase !== 'open' && !(phase === 'closed' && model.view.ended);
  return (
    <div class="jp-Cambio-notices" role="status">
      {bad && (
        <p class="jp-Cambio-notice" data-phase={phase}>
          {phase === 'connecting' && <span class="jp-Cambio-spinner" aria-hidden="true" />}
          {reason} {left > 0 && trans.__('Next try in %1 s.', left)}
          {phase === 'waiting' && (
            <button type="button" class="jp-Cambio-link" onClick={() => model.retry()}>
              {trans.__('Try now')}
            </button>
          )}
        </p>
      )}
      {model.view.waiting && (
        <p class="jp-Cambio-notice">
          {trans.__('The model service is busy (%1).', model.view.waiting.reason)} {wait > 0 && trans.__('Trying again in %1 s.', wait)}
        </p>
      )}
      {model.notice && <p class="jp-Cambio-notice">{model.notice}</p>}
    </div>
  );
}
