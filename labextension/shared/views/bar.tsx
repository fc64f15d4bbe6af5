import type { VNode } from 'preact';
import { trans } from '../language';
import { Icon, type IconName } from './icons';

export interface ButtonProps {
  icon: IconName;
  label: string;
  onClick: () => void;
  disabled?: boolean;
  /** Does nothing for a moment, and keeps the focus. */
  resting?: boolean;
  /** Shows the label beside the icon where there is room. */
  wordy?: boolean;
  kind?: 'danger' | 'primary' | '';
  pressed?: boolean;
  keys?: string;
}

export function Button({ icon, label, onClick, disabled, resting, wordy, kind = '', pressed, keys }: ButtonProps): VNode {
  return (
    <button
      type="button"
      class={`jp-Cambio-button${kind ? ` jp-Cambio-${kind}` : ''}${wordy ? ' jp-Cambio-wordy' : ''}`}
      title={keys ? `${label} (${keys})` : label}
      aria-label={label}
      aria-pressed={pressed}
      aria-keyshortcuts={keys}
      disabled={disabled}
      aria-disabled={resting || undefined}
      onClick={resting ? undefined : onClick}
    >
      <Icon name={icon} />
      {wordy && <span>{label}</span>}
    </button>
  );
}

export function statusWords(status: string): string {
  const words: Record<string, string> = {
    idle: trans.__('Idle'),
    thinking: trans.__('Thinking'),
    acting: trans.__('Acting'),
    waiting_approval: trans.__('Waiting for approval'),
    waiting: trans.__('Waiting for you'),
    paused: trans.__('Paused'),
    stopped: trans.__('Stopped'),
    ended: trans.__('Ended'),
    missing: trans.__('Not found'),
    error: trans.__('Error')
  };
  return words[status] ?? status;
}

/** The state in a word and a colour; the colour is never the only sign. */
export function StatusBadge({ status, text }: { status: string; text?: string }): VNode {
  return (
    <span class="jp-Cambio-status" data-status={status} title={text || statusWords(status)}>
      <span class="jp-Cambio-dot" aria-hidden="true" />
      {statusWords(status)}
    </span>
  );
}
