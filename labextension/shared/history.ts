/** What REST remembers from before a connection, brought together with what came over it. */

import type { HistoryMessage, SessionSummary } from './api';
import type { Json, Step } from './messages';
import { moment, number, remark, stepOf, text, type Entry, type SessionView } from './state';

/** The view with what REST remembers from before this connection, in the order of time. */
export function merge(view: SessionView, session: SessionSummary, history: HistoryMessage[], steps: Json[]): SessionView {
  const all = new Map(view.steps);
  for (const row of steps) {
    const id = stepKey(row);
    all.set(id, stepOf(id, row, all.get(id)));
  }
  const messages: Entry[] = history.map(row => ({
    key: row.id,
    kind: row.role === 'user' ? 'user' : row.metadata['error'] ? 'error' : 'agent',
    text: row.content,
    time: moment(row.timestamp),
    steps: [],
    remark: remark(row.metadata)
  }));
  for (const row of steps) {
    const words = text(row['said']);
    const step = words.trim() ? all.get(stepKey(row)) : undefined;
    if (step) messages.push({ key: `before-${step.id}`, kind: 'agent', text: words, time: step.time, steps: [], remark: '' });
  }
  const config = session.config ?? {};
  return {
    ...view,
    name: session.name || view.name,
    model: session.model ?? view.model,
    desktop: session.desktop ?? view.desktop,
    ended: view.ended || session.status !== 'active',
    usage: session.usage ?? view.usage,
    stepCount: Math.max(session.steps ?? 0, view.stepCount),
    maxCost: number(config['max_cost_usd']),
    entries: arrange(messages, view.entries, all),
    steps: new Map([...all].sort(([, a], [, b]) => a.step - b.step)),
    loaded: true
  };
}

function stepKey(row: Json): string {
  return text(row['tool_use_id']) || text(row['id']) || `step-${number(row['step'])}`;
}

/** Times are whole seconds, so steps keep the order of their numbers, each behind what was said before it. */
function arrange(messages: Entry[], live: readonly Entry[], steps: ReadonlyMap<string, Step>): Entry[] {
  const known = new Map([...messages, ...live].filter(entry => entry.kind !== 'actions').map(entry => [entry.key, entry]));
  const done: Entry[] = [];
  for (const step of [...steps.values()].sort((a, b) => a.step - b.step)) {
    const time = Math.max(step.time, done.at(-1)?.time ?? 0);
    const said = known.get(`before-${step.id}`);
    if (said) done.push({ ...said, time });
    known.delete(`before-${step.id}`);
    done.push({ key: `actions-${step.id}`, kind: 'actions', text: '', time, steps: [step.id], remark: '' });
  }
  const order = { user: 0, actions: 1, note: 1, error: 2, agent: 2 };
  const rank = (entry: Entry): number => (entry.key.startsWith('before-') ? order.actions : order[entry.kind]);
  const sorted = [...done, ...known.values()].sort((a, b) => a.time - b.time || rank(a) - rank(b));
  const grouped: Entry[] = [];
  for (const entry of sorted) {
    const last = grouped.at(-1);
    if (entry.kind === 'actions' && last?.kind === 'actions') last.steps.push(...entry.steps);
    else grouped.push(entry);
  }
  return grouped;
}
