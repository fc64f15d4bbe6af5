/** Opening another session from within a view: the host listens; a page of its own goes there. */

const OPEN = 'cambio-lab:open';

export function openSession(id: string): void {
  const taken = !document.dispatchEvent(new CustomEvent(OPEN, { detail: id, cancelable: true }));
  if (!taken) location.assign(location.pathname.includes('/vnc/') ? encodeURIComponent(id) : location.href);
}

/** `open` is called with the id of a session that a view asks for. */
export function onOpenSession(open: (id: string) => void): void {
  document.addEventListener(OPEN, event => {
    event.preventDefault();
    open(String((event as CustomEvent<unknown>).detail));
  });
}
