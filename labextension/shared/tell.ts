/** The browser's own notifications: for a person who looks at another tab or window. */

import { shorten } from './text';

/** Asks for the permission, once; to be called from a click. */
export function askToTell(): void {
  if ('Notification' in globalThis && Notification.permission === 'default') void Notification.requestPermission();
}

/** Tells while this tab is hidden, if the person allowed it; a click brings the tab to the front and calls `open`. */
export function tellWhenHidden(title: string, words: string, open: () => void): void {
  if (!document.hidden || !('Notification' in globalThis) || Notification.permission !== 'granted') return;
  const shown = new Notification(shorten(title, 80), { body: shorten(words, 200), tag: title });
  shown.onclick = () => {
    window.focus();
    open();
    shown.close();
  };
}
