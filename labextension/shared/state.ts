/** What a viewer knows about one session: a pure function of the messages that came. */

import { pendingApproval, type Approval } from './approval';
import { trans } from './language';
import type {
  DeltaMessage,
  ErrorMessage,
  Json,
  ResponseMessage,
  ServerMessage,
  Status,
  StatusMessage,
  Step,
  ToolMessage,
  Usage
} from './messages';
import { noteOf } from './notes';
import { pendingQuestion, type Question } from './question';
import { stepOf } from './step';
import { moment, number, text } from './values';
import { working } from './working';

export type { Approval } from './approval';

export interface Entry {
  key: string;
  kind: 'user' | 'agent' | 'thinking' | 'error' | 'note' | 'actions';
  text: string;
  time: number;
  /** Keys of steps: for `actions`, and of the call that a `note` is about. */
  steps: string[];
  /** Says how a turn ended, when not in the ordinary way. */
  remark: string;
  /** Digests of the images that a message came with. */
  images?: string[];
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
  /** Why it ended, in the server's words. */
  endReason: string;
  desktop: string;
  entries: readonly Entry[];
  /** Messages that wait on the server for the agent's next request, by id. */
  queued: ReadonlyMap<string, string>;
  draft: string;
  thinking: string;
  announced: string;
  steps: ReadonlyMap<string, Step>;
  stepCount: number;
  approval: Approval | null;
  question: Question | null;
  /** The effective approval policy; null until known. */
  policy: unknown;
  control: string | null;
  /** The name of this page's own viewer. */
  viewer: string;
  usage: Usage;
  maxCost: number;
  /** What people type on the desktop is recorded word by word. */
  recordsText: boolean;
  /** A pause that the model's service forces upon the agent. */
  waiting: { until: number; reason: string } | null;
  loaded: boolean;
}

export function emptyView(id: string, viewer = ''): SessionView {
  return {
    id,
    name: '',
    model: '',
    status: 'idle',
    statusText: '',
    turn: '',
    ended: false,
    endReason: '',
    desktop: '',
    entries: [],
    queued: new Map(),
    draft: '',
    thinking: '',
    announced: '',
    steps: new Map(),
    stepCount: 0,
    approval: null,
    question: null,
    policy: null,
    control: null,
    viewer,
    usage: {},
    maxCost: 0,
    recordsText: false,
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
      return onError(view, message);
    default:
      return view;
  }
}

function onStatus(view: SessionView, message: StatusMessage): SessionView {
  const data = message.metadata ?? {};
  const waits = message.status === 'waiting_approval';
  const next: SessionView = {
    ...view,
    ...facts(data),
    status: message.status,
    statusText: message.content ?? '',
    turn: working(message.status) ? turnOf(data) || view.turn : '',
    ended: view.ended || message.status === 'ended',
    approval: waits ? (pendingApproval(data) ?? view.approval) : null,
    question: message.status === 'waiting' ? (pendingQuestion(data) ?? view.question) : null,
    waiting: null
  };
  if (message.status === 'ended') {
    next.control = null;
    next.endReason = text(data['reason']) || view.endReason;
  }
  return addNote(onStatusEvent(next, message, data), message);
}

/** The message that a turn answers, where a status names it; messages that are queued in it have ids of their own. */
function turnOf(data: Json): string {
  return ['snapshot', 'user_message', 'usage'].includes(text(data['event'])) ? text(data['message_id']) : '';
}

function onStatusEvent(view: SessionView, message: StatusMessage, data: Json): SessionView {
  switch (data['event']) {
    case 'user_message':
      return withImages(addEntry(view, 'user', text(data['message']), message.timestamp, text(data['message_id'])), data);
    case 'message_queued':
      return { ...view, queued: new Map(view.queued).set(text(data['message_id']), text(data['message'])) };
    case 'message_delivered':
      if (data['note'] === true)
        return addEntry(
          view,
          'note',
          trans.__('The agent is told: %1', text(data['message']).replace(/^Note: /, '')),
          message.timestamp,
          text(data['message_id'])
        );
      return addEntry(unqueue(view, data), 'user', text(data['message']), message.timestamp, text(data['message_id']));
    case 'message_withdrawn':
      return unqueue(view, data);
    case 'question': {
      const words = data['tool'] === 'hand_over' ? trans.__('Hands the desktop over to you') : trans.__('Asks you');
      const id = text(data['tool_use_id']);
      return addEntry(view, 'agent', text(data['question']), message.timestamp, questionKey(id), words);
    }
    case 'question_answered':
      return onAnswer(view, message, data);
    case 'control':
      return { ...view, control: text(data['viewer']) || null };
    case 'retry':
      return {
        ...view,
        draft: '',
        thinking: '',
        announced: '',
        waiting: { until: moment(data['retry_at'], Date.now() + 1000 * number(data['delay_seconds'])), reason: text(data['reason']) }
      };
    case 'usage':
      return onReply(view, message, data);
    case 'cleared':
      return { ...view, entries: [], draft: '', thinking: '', announced: '' };
    default:
      return view;
  }
}

/** The key of the entry that tells a question; while it waits, its card is shown instead. */
export function questionKey(toolUseId: string): string {
  return `question-${toolUseId}`;
}

function onAnswer(view: SessionView, message: StatusMessage, data: Json): SessionView {
  const answer = text(data['answer']);
  if (data['outcome'] !== 'answered' || !answer) return view; // a note says it
  const by = text(data['by']);
  const remark = by === view.viewer ? '' : trans.__('Answered by another client');
  return addEntry(view, 'user', answer, message.timestamp, `answer-${text(data['tool_use_id'])}`, remark);
}

function unqueue(view: SessionView, data: Json): SessionView {
  return { ...view, queued: new Map([...view.queued].filter(([id]) => id !== data['message_id'])) };
}

/** Facts that a snapshot or a status may carry beside its event. */
function facts(data: Json): Partial<SessionView> {
  const usage = data['usage'] as Usage | undefined;
  const policy = data['approval_policy'] ?? (data['event'] === 'approval_policy' ? data['approval'] : undefined);
  return {
    ...(usage ? { usage } : {}),
    ...(typeof data['steps'] === 'number' ? { stepCount: data['steps'] } : {}),
    ...(data['event'] === 'snapshot' ? { control: text(data['viewer']) || null } : {}),
    ...(policy === undefined ? {} : { policy }),
    ...(typeof data['name'] === 'string' ? { name: data['name'] } : {}),
    ...(typeof data['model'] === 'string' ? { model: data['model'] } : {})
  };
}

/** A whole reply: what was thought and said becomes part of the conversation, in place of the pieces that came. */
function onReply(view: SessionView, message: StatusMessage, data: Json): SessionView {
  const reply = `${number((data['usage'] as Usage | undefined)?.requests)}-${message.timestamp}`;
  const thought = text(data['thinking']) || view.thinking;
  const said = text(data['said']);
  let next: SessionView = { ...view, draft: '', thinking: '' };
  if (thought.trim()) next = addEntry(next, 'thinking', thought, message.timestamp, `thinking-${reply}`);
  if (said.trim()) next = addEntry(next, 'agent', said, message.timestamp, `said-${reply}`);
  return next;
}

function onTool(view: SessionView, message: ToolMessage): SessionView {
  const id = message.tool_use_id ?? `step-${message.step ?? view.steps.size + 1}`;
  const before = view.steps.get(id);
  const step = stepOf(id, message, before);
  const steps = new Map(view.steps).set(id, step);
  const next = { ...view, steps, stepCount: Math.max(view.stepCount, step.step), announced: '' };
  return before ? next : addAction(next, id, step.time);
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
  const key = text(data['message_id']) || `response-${message.timestamp ?? view.entries.length}`;
  const [words, remarks, ended] = [data.unfinished ?? message.content, remark(data), settleTurn(view, data)];
  return words.trim() || remarks ? addEntry(ended, 'agent', words, message.timestamp, key, remarks) : ended; // replies told the rest
}

function settleTurn(view: SessionView, data: Json): SessionView {
  const usage = (data['session_usage'] as Usage | undefined) ?? view.usage;
  return { ...view, usage, draft: '', thinking: '', announced: '', waiting: null, approval: null, question: null };
}

function remark(data: Json): string {
  if (data['stopped'] === true) return trans.__('Stopped');
  if (typeof data['limit'] === 'string' && data['limit']) return trans.__('Ended by the limit %1', data['limit']);
  return data['needs_input'] === true ? trans.__('The agent asks you something') : '';
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

function onError(view: SessionView, { error, details = '', timestamp, metadata = {} }: ErrorMessage): SessionView {
  // The details often begin with the short form.
  const words = details.startsWith(error.replace(/\.$/, '')) ? details : [error, details].filter(Boolean).join(': ');
  return addEntry(settleTurn(view, metadata), 'error', words, timestamp, `error-${timestamp}-${words}`);
}

/** The words of the note are part of its key: the same message comes from the history and over the line. */
function addNote(view: SessionView, message: StatusMessage): SessionView {
  const words = noteOf(message, view.viewer);
  if (!words) return view;
  const about = text(message.metadata?.['tool_use_id']);
  return addEntry(view, 'note', words, message.timestamp, `note-${about || message.timestamp}-${words}`, '', about ? [about] : []);
}

function addEntry(
  view: SessionView,
  kind: Entry['kind'],
  words: string,
  time: string | undefined,
  key: string,
  note = '',
  steps: string[] = []
): SessionView {
  const id = key || `${kind}-${time}-${view.entries.length}`;
  if (view.entries.some(entry => entry.key === id)) return view;
  const entry: Entry = { key: id, kind, text: words, time: moment(time), steps, remark: note };
  return { ...view, entries: [...view.entries, entry] };
}

/** `view` with the images that came with its newest message. */
function withImages(view: SessionView, data: Json): SessionView {
  const rows = Array.isArray(data['images']) ? (data['images'] as (Json | null)[]) : [];
  const images = rows.map(row => text(row?.['sha256'])).filter(digest => /^[0-9a-f]{64}$/.test(digest));
  const last = view.entries.at(-1);
  return images.length && last ? { ...view, entries: [...view.entries.slice(0, -1), { ...last, images }] } : view;
}
