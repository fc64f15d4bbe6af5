/** Values of the server's JSON, looked at before they are used. */

export function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

export function number(value: unknown): number {
  return typeof value === 'number' ? value : 0;
}

/** A time of the server (seconds, or ISO 8601) as milliseconds; `otherwise` when there is none. */
export function moment(value: unknown, otherwise = Date.now()): number {
  if (typeof value === 'number') return value * 1000;
  return (typeof value === 'string' && Date.parse(value)) || otherwise;
}
