/** What travels over `/ws`. Of what the server sends, all but what is named here is optional until looked at. */

import type * as schema from './schema';
import type { Json, State, Timing, Usage } from './schema';

export type { Json, Usage };
export type Status = State;
export type ToolTiming = Timing;
export type ToolResult = schema.Result;

/** A message of which only `Needed` is sure to be there; over /ws it says which session it is about. */
type Received<Message extends { type: string }, Needed extends keyof Message = 'type'> = Pick<Message, Needed | 'type'> &
  Partial<Message> & { timestamp?: string; sequence?: number; session_id?: string };

export type StatusMessage = Received<schema.StatusMessage, 'status'>;
export type ToolMessage = Received<schema.ToolExecution, 'tool' | 'status'>;
export type ResponseMessage = Received<Omit<schema.AgentResponse, 'metadata'>, 'content'> & {
  metadata?: Partial<schema.TurnMetadata> & { usage?: Usage };
};
export type ErrorMessage = Received<schema.ErrorMessage, 'error'>;
export type DeltaMessage = Received<schema.AgentDelta, 'content'>;
export type HeartbeatMessage = Received<schema.Heartbeat>;
export type ThumbnailMessage = Received<schema.Thumbnail, 'image'>;
export type UnfollowedMessage = Received<schema.Unfollowed, 'code' | 'reason'>;

export type ServerMessage =
  StatusMessage | ToolMessage | ResponseMessage | ErrorMessage | DeltaMessage | HeartbeatMessage | ThumbnailMessage | UnfollowedMessage;

export type Command = schema.Command['type'];
export type ClientMessage = schema.UserMessage | schema.Command | schema.Follow | schema.Watch;

/** One step as REST lists it and as the timeline shows it. */
export interface Step {
  id: string;
  step: number;
  tool: string;
  arguments: Json;
  status: 'started' | 'completed' | 'failed' | 'denied' | 'skipped' | 'interrupted';
  text: string;
  image: string | null;
  width: number;
  height: number;
  timing: ToolTiming;
  /** Of the browser toolset: its screenshots show the page's viewport alone. */
  browser: boolean;
  /** The element that a reference named. */
  box: schema.Box | null;
  /** A person made the step with mouse or keyboard. */
  human: boolean;
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
