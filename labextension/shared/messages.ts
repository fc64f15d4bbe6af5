/** What travels over `/ws`, as docs/asyncapi describes it. Everything from the server is optional until looked at. */

export type Status =
  | 'idle'
  | 'thinking'
  | 'acting'
  | 'waiting_approval'
  | 'waiting'
  | 'paused'
  | 'stopped'
  | 'ended'
  | 'error';

export type Json = Record<string, unknown>;

export interface Usage {
  input_tokens?: number;
  output_tokens?: number;
  cache_creation_input_tokens?: number;
  cache_read_input_tokens?: number;
  thinking_tokens?: number;
  requests?: number;
  cost_usd?: number;
}

interface Envelope {
  timestamp?: string;
  sequence?: number;
  /** Which session it is about. */
  session_id?: string;
}

export interface StatusMessage extends Envelope {
  type: 'status';
  status: Status;
  content?: string;
  metadata?: Json;
}

export interface ToolTiming {
  action_ms?: number;
  settle_ms?: number;
  encode_ms?: number;
  total_ms?: number;
}

export interface ToolResult {
  image_path?: string;
  dimensions?: string;
  text?: string;
  timing?: ToolTiming;
}

export interface ToolMessage extends Envelope {
  type: 'tool_execution';
  tool: string;
  status: 'started' | 'completed' | 'failed';
  tool_use_id?: string;
  step?: number;
  arguments?: Json;
  result?: ToolResult;
  metadata?: Json;
}

export interface ResponseMessage extends Envelope {
  type: 'agent_response';
  content: string;
  metadata?: Json & { usage?: Usage };
}

export interface ErrorMessage extends Envelope {
  type: 'error';
  error: string;
  details?: string;
  metadata?: Json;
}

export interface DeltaMessage extends Envelope {
  type: 'agent_delta';
  content: string;
  metadata?: { kind?: 'text' | 'thinking' | 'announce'; tool?: string; tool_use_id?: string };
}

export interface HeartbeatMessage extends Envelope {
  type: 'heartbeat';
}

export interface ThumbnailMessage extends Envelope {
  type: 'thumbnail';
  /** A `data:` URL of a small JPEG. */
  image: string;
}

/** A followed session sends no more events, or cannot be followed; `code` as over HTTP. */
export interface UnfollowedMessage extends Envelope {
  type: 'unfollowed';
  code: number;
  reason: string;
}

export type ServerMessage =
  | StatusMessage
  | ToolMessage
  | ResponseMessage
  | ErrorMessage
  | DeltaMessage
  | HeartbeatMessage
  | ThumbnailMessage
  | UnfollowedMessage;

export type Command = 'stop' | 'pause' | 'resume' | 'approve' | 'deny' | 'take_control' | 'give_back' | 'take_back' | 'answer';

export type ClientMessage =
  /** `next`: also during a turn, before the agent's next request; `idle`: refused while a turn runs. */
  | { content: string; when: 'next' | 'idle' }
  | { type: Command; tool_use_id?: string; message_id?: string; text?: string; viewer?: string; session_id?: string }
  | { type: 'follow' | 'unfollow'; session_id: string; after?: number }
  | { type: 'watch'; sessions: string[]; width: number };

/** One step as REST lists it and as the timeline shows it. */
export interface Step {
  id: string;
  step: number;
  tool: string;
  arguments: Json;
  status: 'started' | 'completed' | 'failed' | 'denied';
  text: string;
  image: string | null;
  width: number;
  height: number;
  timing: ToolTiming;
  /** US dollars of the model's reply that asked for this step, shared among its steps; 0 when unknown. */
  cost: number;
  time: number;
}

/** `text` parsed as a server message, or null when it is none of ours. */
export function parseMessage(text: string): ServerMessage | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  if (typeof value !== 'object' || value === null || typeof (value as Json).type !== 'string') return null;
  return value as ServerMessage;
}
