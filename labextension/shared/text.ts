/** Text that a desktop may have spoken through an agent: made harmless before anything shows it. */

// OSC, CSI and two-character escape sequences; then C0/C1 controls except tab and newline; then characters that
// reorder or hide text (bidirectional overrides and isolates, zero-width marks that are not joiners).

const ESCAPES =
  /\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[\u001b\u009b][[\]()#;?]*(?:\d{1,4}(?:[;:]\d{0,4})*)?[\dA-PR-TZcf-nq-uy=><~]|\u001b./g;

const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;
const REORDERING = /[\u202a-\u202e\u2066-\u2069\u200e\u200f\ufeff]/g;

/** `text` without terminal escapes, control characters and marks that reorder it. */
export function plain(text: string): string {
  return text.replace(/\r\n?/g, '\n').replace(ESCAPES, '').replace(CONTROLS, '').replace(REORDERING, '');
}

const INVISIBLE = /(?![\n ])[\p{C}\p{Z}\p{Default_Ignorable_Code_Point}\u2800]/gu;

/** `text` with each character that a reader cannot see, or that reorders others, as its code: what is approved is what runs. */
export function escapeInvisible(text: string): string {
  return text.replace(INVISIBLE, character => (character === '\t' ? '\\t' : `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`));
}

/** The beginning of `text`, cut at a character boundary, with an ellipsis when something was cut. */
export function shorten(text: string, length: number): string {
  if (text.length <= length) return text;
  const cut = text.slice(0, length - 1);
  return `${/[\ud800-\udbff]$/.test(cut) ? cut.slice(0, -1) : cut}…`;
}

export function money(dollars: number): string {
  if (dollars === 0) return '$0';
  return dollars < 0.1 ? `$${dollars.toFixed(4)}` : `$${dollars.toFixed(2)}`;
}

export function count(number: number): string {
  if (number < 10_000) return String(number);
  return number < 1_000_000 ? `${(number / 1000).toFixed(number < 100_000 ? 1 : 0)}k` : `${(number / 1e6).toFixed(1)}M`;
}

export function duration(milliseconds: number): string {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  const seconds = milliseconds / 1000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

/** "3 min", "2 h", "5 d": how long ago `time` (ISO 8601) was. */
export function age(time: string, now: number = Date.now()): string {
  const minutes = Math.max(0, (now - Date.parse(time)) / 60_000);
  if (!Number.isFinite(minutes)) return '';
  if (minutes < 1) return 'now';
  if (minutes < 60) return `${Math.floor(minutes)} min`;
  return minutes < 48 * 60 ? `${Math.floor(minutes / 60)} h` : `${Math.floor(minutes / 1440)} d`;
}
