/** What the agent asks a person, or hands over, as the server tells it in statuses of one session and of all. */

import type { Json } from './messages';
import { moment, text } from './values';

export interface Question {
  toolUseId: string;
  /** The person has the desktop until it is handed back; `question` is the reason. */
  handsOver: boolean;
  question: string;
  choices: readonly string[];
  freeText: boolean;
  /** What the agent goes on with when no answer comes. */
  fallback: string;
  /** Milliseconds since the epoch. */
  expiresAt: number;
}

/** The question that waits in a status's metadata: its own event, or the one of a snapshot or summary. */
export function pendingQuestion(data: Json): Question | null {
  const source = data['event'] === 'question' ? data : (data['question'] as Json | null | undefined);
  if (!source || typeof source !== 'object' || !text(source['tool_use_id'])) return null;
  const choices = Array.isArray(source['choices']) ? source['choices'].map(text).filter(Boolean) : [];
  return {
    toolUseId: text(source['tool_use_id']),
    handsOver: source['tool'] === 'hand_over',
    question: text(source['question']),
    choices,
    freeText: source['free_text'] !== false,
    fallback: text(source['default']),
    expiresAt: moment(source['expires_at'], 0)
  };
}
