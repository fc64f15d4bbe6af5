/** Whether the agent is at work on a message (also while it is paused or waits). */
export function working(status: string): boolean {
  return ['thinking', 'acting', 'waiting_approval', 'waiting', 'paused'].includes(status);
}
