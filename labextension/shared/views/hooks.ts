import { useEffect, useReducer, useRef, useState } from 'preact/hooks';
import type { SessionModel } from '../hub';

/** Draws the component again when the model says that it changed. */
export function useModel(model: SessionModel): void {
  const [, redraw] = useReducer((value: number) => value + 1, 0);
  useEffect(() => model.subscribe(() => redraw(undefined)), [model]);
}

/** Whole seconds until `time` (milliseconds since the epoch), counted down; 0 when it is over or 0. */
export function useCountdown(time: number): number {
  const [, tick] = useReducer((value: number) => value + 1, 0);
  // eslint-disable-next-line react-hooks/purity -- a countdown is a function of the clock; `tick` draws it again
  const left = time ? Math.max(0, Math.ceil((time - Date.now()) / 1000)) : 0;
  useEffect(() => {
    if (!left) return undefined;
    const timer = setTimeout(() => tick(undefined), 1000);
    return () => clearTimeout(timer);
  });
  return left;
}

/** Whether the element is on the screen; an element that was never looked at counts as hidden. */
export function useVisible<T extends Element>(): [{ current: T | null }, boolean] {
  const element = useRef<T>(null);
  const [visible, setVisible] = useState(false);
  useEffect(() => {
    if (!element.current) return undefined;
    const observer = new IntersectionObserver(entries => setVisible(entries.at(-1)?.isIntersecting ?? false));
    observer.observe(element.current);
    return () => observer.disconnect();
  }, []);
  return [element, visible];
}

/** Whether a key belongs to an input method. Safari ends a composition before its last key, which it marks as 229. */
export function composing(event: KeyboardEvent): boolean {
  return event.isComposing || event.keyCode === 229;
}
