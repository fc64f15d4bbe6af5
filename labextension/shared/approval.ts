/** A call that waits for a person, as the server tells it in statuses of one session and of all. */

import type { Json } from './messages';
import { moment, text } from './values';

export interface Approval {
  toolUseId: string;
  tool: string;
  /** The whole call, as it will run. */
  shown: string;
  arguments: Json;
  /** Milliseconds since the epoch; 0 when it does not expire. */
  expiresAt: number;
}

/** The pending approval in a status's metadata: its own event, or the one of a snapshot or summary. */
export function pendingApproval(data: Json): Approval | null {
  const source = data['event'] === 'approval' ? data : (data['approval'] as Json | null | undefined);
  if (!source || typeof source !== 'object' || !text(source['tool_use_id'])) return null;
  return {
    toolUseId: text(source['tool_use_id']),
    tool: text(source['tool']),
    arguments: (source['arguments'] ?? {}) as Json,
    shown: shownText(source) || JSON.stringify(source['arguments'] ?? {}),
    expiresAt: moment(source['expires_at'], 0)
  };
}

/** What will run, as the server writes it; a call without arguments is only its name. */
function shownText(data: Json): string {
  const shown = text(data['shown']);
  return shown === `${text(data['tool'])} {}` ? text(data['tool']) : shown;
}

/** An approval policy in words: the name of a policy, or the tools that it asks about. */
export function policyWords(policy: unknown): string {
  if (Array.isArray(policy)) return policy.map(text).join(', ');
  return text(policy);
}
