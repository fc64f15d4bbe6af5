/** A page for tests of views: happy-dom's window, made global before Preact looks for it. */
import { Window } from 'happy-dom';

const window = new Window({ url: 'http://localhost:8000/user/ana/lab' });

class NoObserver {
  observe(): void {}
  disconnect(): void {}
}

Object.assign(globalThis, {
  window,
  document: window.document,
  location: window.location,
  HTMLElement: window.HTMLElement,
  HTMLCanvasElement: window.HTMLCanvasElement,
  MutationObserver: window.MutationObserver,
  IntersectionObserver: NoObserver,
  requestAnimationFrame: (run: () => void) => setTimeout(run, 0),
  cancelAnimationFrame: clearTimeout,
  matchMedia: () => ({ matches: false, addEventListener: () => undefined, removeEventListener: () => undefined })
});

export const page = window.document as unknown as Document;

export function settled(milliseconds = 30): Promise<void> {
  return new Promise(done => setTimeout(done, milliseconds));
}
