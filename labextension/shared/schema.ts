// Written by scripts/describe_api.py: change its models, then run it.

export type Json = Record<string, unknown>;

export type SessionStatus = 'active' | 'inactive' | 'error';

export type State = 'idle' | 'thinking' | 'acting' | 'waiting_approval' | 'waiting' | 'paused' | 'stopped' | 'ended' | 'error';

/** A piece of text, with ?stream=true. */
export interface AgentDelta {
  /** UTC, `2024-01-15T10:30:00Z` */
  timestamp: string;
  type: 'agent_delta';
  /** The pieces since the last tool call add up to the final text. */
  content: string;
  metadata: DeltaMetadata;
  /** Per session and kind of reader, without gaps. */
  sequence: number;
}

/** The agent's answer, once at the end of a turn. */
export interface AgentResponse {
  /** UTC, `2024-01-15T10:30:00Z` */
  timestamp: string;
  type: 'agent_response';
  content: string;
  metadata: TurnMetadata;
  /** Per session and kind of reader, without gaps. */
  sequence: number;
}

/** An element, in pixels of its page's viewport, which begins at `page_left`, `page_top` of the screen. */
export interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
  page_left: number;
  page_top: number;
}

/** Whose call it is. */
export interface CallMetadata {
  toolset?: string | null;
  /** What the reply cost, with its first call only. */
  cost_usd?: number;
  /** A person did it with mouse or keyboard. */
  actor?: 'human';
  /** A person denied the call, or did not approve it in time. */
  denied?: boolean;
  /** It never ran, or was stopped in the middle. */
  ended?: 'skipped' | 'interrupted';
}

/** What a person does to a turn. */
export interface Command {
  type: 'stop' | 'take_back' | 'pause' | 'resume' | 'approve' | 'deny' | 'take_control' | 'give_back' | 'answer';
  /** Of the call or question that waits; without it, whichever does. */
  tool_use_id?: string | null;
  /** Of an answer; may be empty when the desktop is handed back. */
  text?: string;
  /** Of the turn to stop (without it, the running one), or of the queued message to take back. */
  message_id?: string | null;
  /** The name that /vnc was opened with. */
  viewer?: string | null;
  /** On /ws only. */
  session_id?: string | null;
}

/** What a piece is part of. */
export interface DeltaMetadata {
  kind?: 'text' | 'thinking' | 'announce';
  tool?: string;
  tool_use_id?: string;
}

/** A turn that failed (with sequence), or a message that was refused (without). */
export interface ErrorMessage {
  /** UTC, `2024-01-15T10:30:00Z` */
  timestamp: string;
  type: 'error';
  error: string;
  details: string;
  metadata?: Json;
  /** Per session and kind of reader, without gaps. */
  sequence?: number;
  /** On /ws only. */
  session_id?: string;
}

/** Every event of a session, on this connection; `unfollow` ends it. */
export interface Follow {
  type: 'follow' | 'unfollow';
  session_id: string;
  /** The last `sequence` of the session that this client has seen. */
  after?: number | null;
}

/** Connection keep-alive, every 30 s. */
export interface Heartbeat {
  /** UTC, `2024-01-15T10:30:00Z` */
  timestamp: string;
  type: 'heartbeat';
}

/** Functions that this client runs for the agent; they replace those of an earlier offer. */
export interface OfferTools {
  type?: 'offer_tools';
  tools: OfferedTool[];
}

/** A function that the client runs for the agent. */
export interface OfferedTool {
  name: string;
  description?: string;
  /** A JSON schema with `"type": "object"`. */
  input_schema: Json;
  /** Seconds. */
  timeout?: number;
}

/** What a call gave. */
export interface Result {
  /** A path on this server that returns the screenshot. */
  image_path?: string;
  dimensions?: string;
  text?: string;
  timing?: Timing;
  /** The element that a reference named. */
  box?: Box;
}

/** A session, live or ended. */
export interface Session {
  id: string;
  status: SessionStatus;
  vnc_url: string;
  websocket_url: string;
  /** UTC, `2024-01-15T10:30:00Z` */
  created_at: string;
  name?: string;
  state?: State;
  /** UTC, `2024-01-15T10:30:00Z` */
  ended_at?: string | null;
  end_reason?: string | null;
  model?: string;
  desktop?: string;
  steps?: number;
  usage?: Usage;
  pinned?: boolean;
  tags?: string[];
  note?: string;
  /** null for a local desktop and while none runs */
  container_id: string | null;
  vnc_port: number | null;
  /** The effective approval policy. */
  approval?: string | string[];
  /** What its creator should know: its model retires soon. */
  notice?: string | null;
  isolated?: boolean;
  display?: string;
  image_digest?: string | null;
  config?: Json;
  /** The viewer who has control; null: the agent. */
  control?: string | null;
  /** Number of the last event on `/ws`. */
  sequence?: number;
}

/** Session status updates. */
export interface StatusMessage {
  /** UTC, `2024-01-15T10:30:00Z` */
  timestamp: string;
  type: 'status';
  status: State;
  /** The state in words. */
  content: string;
  metadata: Json;
  /** Per session and kind of reader, without gaps. */
  sequence?: number;
  /** On /ws only. */
  session_id?: string;
}

/** A small image of a watched session's screen, whenever it has changed. */
export interface Thumbnail {
  /** UTC, `2024-01-15T10:30:00Z` */
  timestamp: string;
  type: 'thumbnail';
  session_id: string;
  /** data: URL of a JPEG. */
  image: string;
}

/** Where the time of a call went, in milliseconds. */
export interface Timing {
  action_ms?: number;
  settle_ms?: number;
  encode_ms?: number;
  total_ms?: number;
}

/** The agent calls an offered function. */
export interface ToolCall {
  /** UTC, `2024-01-15T10:30:00Z` */
  timestamp: string;
  type: 'tool_call';
  tool: string;
  tool_use_id: string;
  arguments: Json;
}

/** Tool execution status. */
export interface ToolExecution {
  /** UTC, `2024-01-15T10:30:00Z` */
  timestamp: string;
  type: 'tool_execution';
  tool: string;
  status: 'started' | 'completed' | 'failed';
  tool_use_id: string;
  step: number;
  arguments: Json;
  result?: Result;
  metadata?: CallMetadata;
  /** Per session and kind of reader, without gaps. */
  sequence: number;
}

/** The result of a tool_call. */
export interface ToolResult {
  type?: 'tool_result';
  tool_use_id: string;
  text: string;
  is_error?: boolean;
  /** Digest of an image uploaded to this session. */
  image?: string | null;
}

/** Answer to offer_tools. */
export interface ToolsOffered {
  /** UTC, `2024-01-15T10:30:00Z` */
  timestamp: string;
  type: 'tools_offered';
  tools: string[];
}

/** How a turn went. */
export interface TurnMetadata {
  tool_calls: string[];
  /** Seconds. */
  processing_time: number;
  usage: Json;
  stopped: boolean;
  /** The limit that ended the turn. */
  limit?: string | null;
  needs_input?: boolean;
  /** The final text as a value, if the message came with an `answer_schema`. */
  answer?: unknown;
  message_id?: string | null;
  /** Of the text: what no `status` with `metadata.said` told, of a reply that the end broke off. */
  unfinished?: string;
}

/** A followed session sends no more events, or cannot be followed. */
export interface Unfollowed {
  /** UTC, `2024-01-15T10:30:00Z` */
  timestamp: string;
  type: 'unfollowed';
  session_id: string;
  /** As over HTTP: 404 unknown, 409 over, 422 a bad `after`, 503 not now. */
  code: number;
  reason: string;
}

/** Tokens by kind, requests and money. */
export interface Usage {
  input_tokens?: number;
  output_tokens?: number;
  cache_creation_input_tokens?: number;
  cache_read_input_tokens?: number;
  thinking_tokens?: number;
  requests?: number;
  cost_usd?: number;
}

/** A message to the agent. */
export interface UserMessage {
  type?: 'message';
  content: string;
  /** `options` in it change model, effort and limits for this turn. */
  metadata?: Json | null;
  /** During a turn: queued for the agent's next request, refused, or sent after a stop. */
  when?: 'next' | 'idle' | 'now';
  /** On /ws only. */
  session_id?: string | null;
  /** A JSON schema that the final text has to fit; refused during a turn. */
  answer_schema?: Json | null;
  /** Digests of images uploaded to this session; refused during a turn. */
  images?: string[];
}

/** A cell of an experiment. */
export interface WallCell {
  id: string;
  task: string;
  /** Model, and setting where there are several. */
  column: string;
  state: 'open' | 'running' | 'success' | 'failure' | 'none';
  /** Of the verdict, or what the cell is doing. */
  reason: string;
  /** The name of its run file. */
  run: string;
  cost_usd: number;
  tags: string[];
  /** What a person noted. */
  note: string;
}

/** A desktop that is at work; `thumbnail` is a JPEG in base64. */
export interface WallDesktop {
  id: string;
  state: string;
  steps: number;
  cost_usd: number;
  thumbnail: string;
}

/** Whose thumbnails this client shows now. */
export interface Watch {
  type?: 'watch';
  sessions: string[];
  width?: number;
}

/** An experiment with its cells. */
export interface WholeWall {
  id: string;
  name: string;
  directory: string;
  words: string;
  ended: string;
  total: number;
  done: number;
  success: number;
  failed: number;
  running: number;
  /** Desktops that run and are not in `live`. */
  more?: number;
  cells: WallCell[];
  live: WallDesktop[];
}
