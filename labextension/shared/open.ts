/** Opening another session, or a run, from within a view: the host listens; a page of its own goes there. */

const OPEN = 'cambio-lab:open';

export interface Wanted {
  kind: 'session' | 'run';
  /** Of the session, or of the one whose run it is. */
  id: string;
}

export function openSession(id: string): void {
  if (!taken({ kind: 'session', id })) location.assign(alone() ? encodeURIComponent(id) : location.href);
}

/** `page` shows the run without a host. */
export function openRun(id: string, page: string): void {
  if (taken({ kind: 'run', id })) return;
  if (alone()) location.assign(page);
  else window.open(page, '_blank', 'noopener');
}

/** `open` is called with what a view asks for. */
export function onOpen(open: (wanted: Wanted) => void): void {
  document.addEventListener(OPEN, event => {
    event.preventDefault();
    open((event as CustomEvent<Wanted>).detail);
  });
}

function taken(detail: Wanted): boolean {
  return !document.dispatchEvent(new CustomEvent(OPEN, { detail, cancelable: true }));
}

function alone(): boolean {
  return location.pathname.includes('/vnc/');
}
