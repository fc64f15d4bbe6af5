/** What a viewer knows about one session: a pure function of the messages that came. */

import { working } from './working';
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
  /** The id of the message that the agent works on; empty between turns. */
  turn: string;
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
    turn: '',
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
    turn: working(message.status) ? text(data['message_id']) || view.turn : '',
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

export function remark(data: Json): string {
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

export function stepOf(id: string, row: Json, before?: Step): Step {
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

export function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

export function number(value: unknown): number {
  return typeof value === 'number' ? value : 0;
}

/** A time of the server, which is seconds or ISO 8601, as milliseconds; 0 when there is none. */
function seconds(value: unknown): number {
  if (typeof value === 'number') return value * 1000;
  return typeof value === 'string' ? Date.parse(value) || 0 : 0;
}

export function moment(time: string | undefined): number {
  return (time && Date.parse(time)) || Date.now();
}
