/** What a viewer knows about one session: a pure function of the messages that came. */

import type { HistoryMessage, SessionSummary } from './api';
import type { DeltaMessage, Json, ResponseMessage, ServerMessage, Status, StatusMessage, Step, ToolMessage, Usage } from './messages';

export interface Entry {
  key: string;
  kind: 'user' | 'agent' | 'error' | 'note' | 'actions';
  text: string;
  time: number;
  /** Keys of steps, for `actions`. */
  steps: string[];
  /** Says how a turn ended, when not in the ordinary way. */
  remark: string;
}

export interface Approval {
  toolUseId: string;
  tool: string;
  shown: string;
  /** Milliseconds since the epoch. */
  expiresAt: number;
}

export interface SessionView {
  id: string;
  name: string;
  model: string;
  status: Status;
  statusText: string;
  ended: boolean;
  desktop: string;
  entries: readonly Entry[];
  draft: string;
  thinking: string;
  announced: string;
  steps: ReadonlyMap<string, Step>;
  stepCount: number;
  approval: Approval | null;
  control: string | null;
  usage: Usage;
  maxCost: number;
  /** A pause that the model's service forces upon the agent. */
  waiting: { until: number; reason: string } | null;
  loaded: boolean;
}

export function emptyView(id: string): SessionView {
  return {
    id,
    name: '',
    model: '',
    status: 'idle',
    statusText: '',
    ended: false,
    desktop: '',
    entries: [],
    draft: '',
    thinking: '',
    announced: '',
    steps: new Map(),
    stepCount: 0,
    approval: null,
    control: null,
    usage: {},
    maxCost: 0,
    waiting: null,
    loaded: false
  };
}

/** The view after `message`. Messages that come twice (a resumed line, a history that overlaps) change nothing. */
export function reduce(view: SessionView, message: ServerMessage): SessionView {
  switch (message.type) {
    case 'status':
      return onStatus(view, message);
    case 'tool_execution':
      return onTool(view, message);
    case 'agent_response':
      return onResponse(view, message);
    case 'agent_delta':
      return onDelta(view, message);
    case 'error':
      return onError(view, message.error, message.details ?? '', message.timestamp, message.sequence);
    default:
      return view;
  }
}

function onStatus(view: SessionView, message: StatusMessage): SessionView {
  const data = message.metadata ?? {};
  const next: SessionView = {
    ...view,
    ...facts(data, view),
    status: message.status,
    statusText: message.content ?? '',
    ended: view.ended || message.status === 'ended',
    waiting: null
  };
  if (message.status !== 'waiting_approval') next.approval = null;
  if (message.status === 'ended') next.control = null;
  return onStatusEvent(next, message, data);
}

function onStatusEvent(view: SessionView, message: StatusMessage, data: Json): SessionView {
  switch (data['event']) {
    case 'user_message':
      return addEntry(view, 'user', text(data['message']), message.timestamp, text(data['message_id']));
    case 'approval':
      return { ...view, approval: approval(data) };
    case 'control':
      return { ...view, control: typeof data['viewer'] === 'string' ? data['viewer'] : null };
    case 'retry':
      return {
        ...view,
        draft: withoutLast(view.draft, number(data['dropped_text'])),
        thinking: '',
        announced: '',
        waiting: { until: seconds(data['retry_at']) || Date.now() + 1000 * number(data['delay_seconds']), reason: text(data['reason']) }
      };
    case 'cleared':
      return { ...view, entries: [], draft: '', thinking: '', announced: '' };
    case 'approval_decided':
      return { ...addNote(settleDraft(view, message.timestamp, text(data['tool_use_id'])), verdict(data), message), approval: null };
    default:
      return view;
  }
}

/** A reply that broke off is begun again: its last `count` characters, as the server counts them, were never said. */
function withoutLast(draft: string, count: number): string {
  return count > 0 ? [...draft].slice(0, -count).join('') : draft;
}

/** Facts that a snapshot or a status may carry beside its event. */
function facts(data: Json, view: SessionView): Partial<SessionView> {
  const usage = data['usage'] as Usage | undefined;
  const pending = (data['approval'] ?? data['pending_approval']) as Json | null | undefined;
  return {
    ...(usage ? { usage } : {}),
    ...(typeof data['steps'] === 'number' ? { stepCount: data['steps'] } : {}),
    ...(data['event'] === 'snapshot' ? { control: text(data['viewer']) || null } : {}),
    ...(typeof data['name'] === 'string' ? { name: data['name'] } : {}),
    ...(typeof data['model'] === 'string' ? { model: data['model'] } : {}),
    approval: pending && typeof pending === 'object' ? approval(pending) : view.approval
  };
}

const VERDICTS: Record<string, string> = {
  approved: 'Approved',
  denied: 'Denied',
  timeout: 'Denied, because nobody answered in time',
  stopped: 'Not answered: the turn was stopped'
};

function verdict(data: Json): string {
  return VERDICTS[text(data['verdict'])] ?? text(data['verdict']);
}

/** What will run, as the server writes it; a call without arguments is only its name. */
export function shownText(data: Json): string {
  const shown = text(data['shown']);
  return shown === `${text(data['tool'])} {}` ? text(data['tool']) : shown;
}

function approval(data: Json): Approval {
  return {
    toolUseId: text(data['tool_use_id']),
    tool: text(data['tool']),
    shown: shownText(data) || JSON.stringify(data['arguments'] ?? {}),
    expiresAt: seconds(data['expires_at'])
  };
}

function onTool(view: SessionView, message: ToolMessage): SessionView {
  const id = message.tool_use_id ?? `step-${message.step ?? view.steps.size + 1}`;
  const before = view.steps.get(id);
  const step = stepOf(id, message as unknown as Json, before);
  const steps = new Map(view.steps).set(id, step);
  const known = settleDraft(view, message.timestamp, id);
  const next = { ...known, steps, stepCount: Math.max(view.stepCount, step.step), announced: '' };
  return before ? next : addAction(next, id, step.time);
}

/** Text that came before a tool call stays in the conversation as the agent's own words. */
function settleDraft(view: SessionView, time: string | undefined, id: string): SessionView {
  const cleared = { ...view, draft: '', thinking: '' };
  return view.draft.trim() ? addEntry(cleared, 'agent', view.draft, time, `before-${id}`) : cleared;
}

function addAction(view: SessionView, id: string, time: number): SessionView {
  const last = view.entries.at(-1);
  if (last?.kind !== 'actions') {
    const entry: Entry = { key: `actions-${id}`, kind: 'actions', text: '', time, steps: [id], remark: '' };
    return { ...view, entries: [...view.entries, entry] };
  }
  return { ...view, entries: [...view.entries.slice(0, -1), { ...last, steps: [...last.steps, id] }] };
}

function onResponse(view: SessionView, message: ResponseMessage): SessionView {
  const data = message.metadata ?? {};
  const next = { ...view, draft: '', thinking: '', announced: '', waiting: null, approval: null };
  const key = text(data['message_id']) || `response-${message.sequence ?? message.timestamp ?? view.entries.length}`;
  return addEntry(next, 'agent', message.content, message.timestamp, key, remark(data));
}

function remark(data: Json): string {
  if (data['stopped'] === true) return 'Stopped';
  if (typeof data['limit'] === 'string' && data['limit']) return `Ended by the limit ${data['limit']}`;
  return data['needs_input'] === true ? 'The agent asks you something' : '';
}

function onDelta(view: SessionView, message: DeltaMessage): SessionView {
  switch (message.metadata?.kind) {
    case 'thinking':
      return { ...view, thinking: view.thinking + message.content };
    case 'announce':
      return { ...view, announced: message.metadata.tool ?? '' };
    default:
      return { ...view, draft: view.draft + message.content, waiting: null };
  }
}

function onError(view: SessionView, error: string, details: string, time?: string, sequence?: number): SessionView {
  // The details often begin with the short form.
  const words = details.startsWith(error.replace(/\.$/, '')) ? details : [error, details].filter(Boolean).join(': ');
  const next = { ...view, draft: '', thinking: '', announced: '', waiting: null, approval: null };
  return addEntry(next, 'error', words, time, `error-${sequence ?? `${view.entries.length}-${time}`}`);
}

function addNote(view: SessionView, words: string, message: StatusMessage): SessionView {
  return addEntry(view, 'note', words, message.timestamp, `note-${message.sequence ?? message.timestamp}`);
}

function addEntry(view: SessionView, kind: Entry['kind'], words: string, time: string | undefined, key: string, note = ''): SessionView {
  const id = key || `${kind}-${time}-${view.entries.length}`;
  if (view.entries.some(entry => entry.key === id)) return view;
  const entry: Entry = { key: id, kind, text: words, time: moment(time), steps: [], remark: note };
  return { ...view, entries: [...view.entries, entry] };
}

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

function stepOf(id: string, row: Json, before?: Step): Step {
  const result = (row['result'] ?? row) as Json;
  const [width, height] = text(result['dimensions']).split('x').map(Number);
  const path = result['image_path'] ?? result['image_url'];
  return {
    id,
    step: number(row['step']) || before?.step || 0,
    tool: text(row['tool']) || before?.tool || '',
    arguments: (row['arguments'] as Json | undefined) ?? before?.arguments ?? {},
    status: (row['status'] as Step['status'] | undefined) ?? (row['is_error'] ? 'failed' : 'completed'),
    text: text(result['text']),
    image: typeof path === 'string' && path ? path : (before?.image ?? null),
    width: width || before?.width || 0,
    height: height || before?.height || 0,
    timing: (result['timing'] as Step['timing'] | undefined) ?? before?.timing ?? {},
    cost: number((row['metadata'] as Json | undefined)?.['cost_usd']) || number(row['cost_usd']) || (before?.cost ?? 0),
    time: before?.time ?? moment(text(row['timestamp']) || text(row['started_at']) || undefined)
  };
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function number(value: unknown): number {
  return typeof value === 'number' ? value : 0;
}

/** A time of the server, which is seconds or ISO 8601, as milliseconds; 0 when there is none. */
function seconds(value: unknown): number {
  if (typeof value === 'number') return value * 1000;
  return typeof value === 'string' ? Date.parse(value) || 0 : 0;
}

function moment(time: string | undefined): number {
  return (time && Date.parse(time)) || Date.now();
}
