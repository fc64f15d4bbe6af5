import type { ComponentChildren, VNode } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { trans } from '../language';
import type { ConnectionState } from '../line';
import type { Screen, ShowScreen } from '../screen';
import { useCountdown } from './hooks';

export interface DesktopProps {
  show: ShowScreen;
  interactive: boolean;
  /** Take the keyboard when this becomes true. */
  focused: boolean;
  /** Said in the corner: who drives. */
  driver: string;
  ended: boolean;
  /** What a session that has ended leaves: its last screenshot, why it ended, what can be done with it. */
  rest?: ComponentChildren;
}

/** The live desktop, with a veil that says what is wrong when it is not live. */
export function Desktop({ show, interactive, focused, driver, ended, rest }: DesktopProps): VNode {
  const region = useRef<HTMLElement>(null);
  const holder = useRef<HTMLDivElement>(null);
  const screen = useRef<Screen | null>(null);
  const [state, setState] = useState<ConnectionState>(() => ({
    phase: 'connecting',
    reason: trans.__('Connecting to the desktop'),
    retryAt: 0
  }));
  const [ratio, setRatio] = useState('1280 / 800');
  const [asked, setAsked] = useState<((yes: boolean) => void) | null>(null);
  useEffect(() => {
    if (!holder.current) return undefined;
    const shown = show(holder.current, {
      onState: setState,
      onSize: (width, height) => width && height && setRatio(`${width} / ${height}`),
      onLeave: () => region.current?.focus(),
      onClipboard: answer => setAsked(() => answer)
    });
    screen.current = shown;
    return () => shown.close();
  }, [show]);
  useEffect(() => {
    if (!screen.current) return;
    screen.current.interactive = interactive;
    if (focused) screen.current.focus();
  }, [interactive, focused, show]);
  const live = state.phase === 'open' && !ended;
  const label = interactive
    ? trans.__('Live desktop. Mouse and keyboard go to it; Shift+Escape leaves it.')
    : trans.__('Live desktop, view only');
  return (
    <section
      ref={region}
      tabIndex={-1}
      class={`jp-Cambio-desktop${focused ? ' jp-Cambio-mine' : ''}`}
      aria-label={label}
      data-phase={state.phase}
      data-lm-suppress-shortcuts="true"
    >
      <div class="jp-Cambio-screen" ref={holder} style={{ aspectRatio: ratio }} />
      {live && driver && (
        <span class="jp-Cambio-driver" aria-hidden="true">
          {driver}
        </span>
      )}
      {live && asked && <ClipboardQuestion answer={yes => (setAsked(null), asked(yes))} />}
      {ended && rest}
      {!live && !(ended && rest) && (
        <Veil
          state={ended ? { phase: 'closed', reason: trans.__('This session has ended.'), retryAt: 0 } : state}
          retry={() => screen.current?.retry()}
        />
      )}
    </section>
  );
}

function ClipboardQuestion({ answer }: { answer: (yes: boolean) => void }): VNode {
  return (
    <div class="jp-Cambio-question" role="alertdialog" aria-label={trans.__('Clipboard')}>
      <span>
        {trans.__('Share your clipboard with desktops? Programs there can then read what you paste, and replace it with what you copy.')}
      </span>
      <button type="button" class="jp-Cambio-button jp-Cambio-primary" onClick={() => answer(true)}>
        {trans.__('Share')}
      </button>
      <button type="button" class="jp-Cambio-button" onClick={() => answer(false)}>
        {trans.__('Never')}
      </button>
    </div>
  );
}

function Veil({ state, retry }: { state: ConnectionState; retry: () => void }): VNode {
  const left = useCountdown(state.retryAt);
  return (
    <div class="jp-Cambio-veil" role="status">
      <p>
        {state.phase === 'connecting' && <span class="jp-Cambio-spinner" aria-hidden="true" />}
        {state.reason}
        {left > 0 && ` ${trans.__('Next try in %1 s.', left)}`}
      </p>
      {(state.phase === 'waiting' || state.phase === 'stuck') && (
        <button type="button" class="jp-Cambio-button" onClick={retry}>
          {state.phase === 'stuck' ? trans.__('Reload viewer') : trans.__('Try now')}
        </button>
      )}
    </div>
  );
}
