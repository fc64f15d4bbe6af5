/** A recorded run (`.cambio`), read in the browser: a zip of JSON Lines and screenshots; docs/runs.md has the layout. */

import { trans } from './language';
import { strFromU8, unzipSync } from 'fflate';
import { boxOf } from './actions';
import type { Json } from './messages';
import type { Box } from './schema';

export interface RunStep {
  step: number;
  id: string;
  tool: string;
  arguments: Json;
  status: string;
  text: string;
  /** Digest of the screenshot that the model saw, "" without one. */
  screenshot: string;
  width: number;
  height: number;
  /** Milliseconds. */
  timing: { action: number; settle: number; encode: number; total: number; model: number };
  /** Seconds since the run began. */
  at: number;
  tokens: number;
  cost: number;
  browser: boolean;
  box: Box | null;
  human: boolean;
  /** What the session saw beside what the model was shown: the screen's digest, the page's tree; "" without. */
  unseen: string;
  tree: string;
}

export interface RunEntry {
  kind: 'user' | 'agent' | 'error' | 'step';
  text: string;
  /** Index into the steps, for `step`. */
  step: number;
  at: number;
}

export interface RunTotals {
  steps: number;
  seconds: number;
  tokens: number;
  cost: number;
}

export class RunRefused extends Error {}

/** Bytes of text, and of one screenshot, that a page is ready to hold. */
const LARGEST_TEXT = 256 * 1024 ** 2;
const LARGEST_PICTURE = 32 * 1024 ** 2;

export class RecordedRun {
  readonly name: string;
  readonly model: string;
  readonly complete: boolean;
  readonly steps: readonly RunStep[];
  readonly entries: readonly RunEntry[];
  readonly totals: RunTotals;
  private readonly urls = new Map<string, string>();

  constructor(private readonly bytes: Uint8Array) {
    const files = readText(bytes);
    const manifest = json(files.get('manifest.json') ?? 'null');
    if (manifest?.['format'] !== 'cambio-run') throw new RunRefused(trans.__('This file is not a recorded run.'));
    const version = Number(manifest['version']);
    if (version !== 1) throw new RunRefused(trans.__('This run has format version %1; this viewer reads version 1.', version));
    const session = (manifest['session'] ?? {}) as Json;
    this.name = text(session['name']) || trans.__('Recorded run');
    this.model = text(manifest['model']);
    this.complete = manifest['complete'] !== false;
    const events = lines(files.get('events.jsonl'));
    const begin = number(session['created_at']) || number(events[0]?.['time']);
    const replies = repliesOf(events);
    const [unseen, ended] = ['Unseen', 'ToolFinished'].map(
      kind => new Map(events.filter(one => one['kind'] === kind).map(one => [text(one['tool_use_id']), one]))
    );
    this.steps = lines(files.get('steps.jsonl')).map(row => {
      const id = text(row['tool_use_id']);
      const of = ended?.get(id);
      const box = boxOf(of?.['box']);
      return { ...stepOf(row, begin, replies.get(id)), ...unseenOf(unseen?.get(id)), browser: of?.['toolset'] === 'browser', box };
    });
    this.entries = entriesOf(events, this.steps, begin);
    const usage = (manifest['usage'] ?? {}) as Json;
    const last = Math.max(0, number(events.at(-1)?.['time']) - begin);
    this.totals = { steps: this.steps.length, seconds: last, tokens: tokensOf(usage), cost: number(usage['cost_usd']) };
  }

  /** An object URL of a screenshot; "" when the bundle does not have it. Kept until `close()`. */
  screenshot(digest: string): string {
    if (!/^[0-9a-f]{64}$/.test(digest)) return '';
    const known = this.urls.get(digest);
    if (known !== undefined) return known;
    const found = unzipSync(this.bytes, { filter: file => file.name.includes(digest) && file.originalSize <= LARGEST_PICTURE });
    const [name, data] = Object.entries(found)[0] ?? [];
    const type = name?.endsWith('.jpg') ? 'image/jpeg' : name?.endsWith('.webp') ? 'image/webp' : 'image/png';
    const url = data ? URL.createObjectURL(new Blob([data.slice().buffer], { type })) : '';
    this.urls.set(digest, url);
    return url;
  }

  close(): void {
    for (const url of this.urls.values()) if (url) URL.revokeObjectURL(url);
    this.urls.clear();
  }
}

function readText(bytes: Uint8Array): Map<string, string> {
  let room = LARGEST_TEXT;
  try {
    const found = unzipSync(bytes, {
      filter: file => {
        if (!/(^|\/)[\w.-]+\.(json|jsonl)$/.test(file.name) || file.name.includes('exchanges')) return false;
        room -= file.originalSize;
        if (room < 0) throw new RunRefused(trans.__('This run is too large to be shown here.'));
        return true;
      }
    });
    return new Map(Object.entries(found).map(([name, data]) => [name.split('/').at(-1) ?? name, strFromU8(data)]));
  } catch (error) {
    if (error instanceof RunRefused) throw error;
    throw new RunRefused(trans.__('This file is damaged, or not a recorded run.'));
  }
}

function lines(content = ''): Json[] {
  return content
    .split('\n')
    .filter(Boolean)
    .map(json)
    .filter(row => row !== null);
}

function json(line: string): Json | null {
  try {
    return JSON.parse(line) as Json;
  } catch {
    throw new RunRefused(trans.__('This run is damaged: a line of it is not JSON.'));
  }
}

interface Reply {
  model: number;
  tokens: number;
  cost: number;
}

/** What the reply that asked for a call took and cost, shared among the calls of that reply. */
function repliesOf(events: Json[]): Map<string, Reply> {
  const found = new Map<string, Reply>();
  let calls: string[] = [];
  let reply: Reply | null = null;
  const settle = (): void => {
    for (const id of calls) {
      if (reply) found.set(id, { model: reply.model / calls.length, tokens: reply.tokens / calls.length, cost: reply.cost / calls.length });
    }
    calls = [];
  };
  for (const event of events) {
    if (event['kind'] === 'ModelReplied') {
      settle();
      const usage = (event['usage'] ?? {}) as Json;
      reply = { model: number(event['model_ms']), tokens: tokensOf(usage), cost: number(usage['cost_usd']) };
    } else if (event['kind'] === 'ToolStarted') calls.push(text(event['tool_use_id']));
  }
  settle();
  return found;
}

function unseenOf(event: Json = {}): Pick<RunStep, 'unseen' | 'tree'> {
  return { unseen: text(((event['image'] ?? {}) as Json)['sha256']), tree: text(event['tree']) };
}

function stepOf(row: Json, begin: number, reply: Reply = { model: 0, tokens: 0, cost: 0 }): RunStep {
  const timing = (row['timing'] ?? {}) as Json;
  return {
    step: number(row['step']),
    id: text(row['tool_use_id']),
    tool: text(row['tool']),
    arguments: (row['arguments'] ?? {}) as Json,
    status: text(row['status']),
    text: text(row['text']),
    screenshot: text(row['sha256']),
    width: number(row['width']),
    height: number(row['height']),
    timing: {
      action: number(timing['action']),
      settle: number(timing['settle']),
      encode: number(timing['encode']),
      total: number(timing['total']),
      model: reply.model
    },
    at: Math.max(0, number(row['started_at']) - begin),
    tokens: reply.tokens,
    cost: reply.cost,
    browser: false,
    box: null,
    human: row['actor'] === 'human',
    unseen: '',
    tree: ''
  };
}

function entriesOf(events: Json[], steps: readonly RunStep[], begin: number): RunEntry[] {
  const indices = new Map(steps.map((step, index) => [step.id, index]));
  const found: RunEntry[] = [];
  const told = new Set<string>();
  const step = (id: string, at: number): void => {
    if (!told.has(id)) found.push({ kind: 'step', text: '', step: indices.get(id) ?? -1, at });
    told.add(id);
  };
  for (const event of events) {
    const at = Math.max(0, number(event['time']) - begin);
    const add = (kind: RunEntry['kind'], words: string): void => {
      if (words.trim()) found.push({ kind, text: words, step: -1, at });
    };
    switch (event['kind']) {
      case 'UserMessage':
      case 'MessageDelivered':
        add('user', text(event['content']));
        break;
      case 'ModelReplied':
        add('agent', text(event['text']));
        break;
      case 'ToolStarted': // what a person does, and a call that does not run, only end
      case 'ToolFinished':
        step(text(event['tool_use_id']), at);
        break;
      case 'TurnFinished':
        add('agent', text(event['unfinished'])); // replies told the rest
        break;
      case 'TurnFailed':
        add('error', `${text(event['error'])}: ${text(event['details'])}`);
        break;
      default:
    }
  }
  return found;
}

function tokensOf(usage: Json): number {
  const kinds = ['input_tokens', 'output_tokens', 'cache_creation_input_tokens', 'cache_read_input_tokens'];
  return kinds.reduce((sum, kind) => sum + number(usage[kind]), 0);
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function number(value: unknown): number {
  return typeof value === 'number' ? value : 0;
}
