/** What happened before a connection: the same messages, by sequence, from REST. */

import type { SessionSummary } from './api';
import type { ServerMessage } from './messages';
import { emptyView, reduce, type SessionView } from './state';
import { number } from './values';

/** The view of a session whose `events` are known, and of which `fresh` came over the line since. */
export function restore(session: SessionSummary, events: ServerMessage[], fresh: ServerMessage[], viewer: string): SessionView {
  const told = [...events, ...fresh].reduce(reduce, emptyView(session.id, viewer));
  return {
    ...told,
    name: session.name || told.name,
    model: session.model ?? told.model,
    desktop: session.desktop ?? told.desktop,
    ended: told.ended || session.status !== 'active',
    endReason: session.end_reason ?? told.endReason,
    usage: fresh.length || !session.usage ? told.usage : session.usage,
    stepCount: Math.max(session.steps ?? 0, told.stepCount),
    policy: told.policy ?? session.approval ?? null,
    maxCost: number(session.config?.['max_cost_usd']),
    recordsText: session.config?.['record_human'] === 'full',
    loaded: true
  };
}

/** `view` with what happened before it. */
export function prepend(view: SessionView, older: ServerMessage[]): SessionView {
  const past = older.reduce(reduce, emptyView(view.id, view.viewer));
  const keys = new Set(view.entries.map(entry => entry.key));
  const entries = past.entries
    .map(entry => (entry.kind === 'actions' ? { ...entry, steps: entry.steps.filter(id => !view.steps.has(id)) } : entry))
    .filter(entry => !keys.has(entry.key) && (entry.kind !== 'actions' || entry.steps.length > 0));
  const steps = new Map([...past.steps, ...view.steps]);
  return { ...view, entries: [...entries, ...view.entries], steps };
}
