/**
 * The panel, for each place with an element to put it in: the notebook's widget, JupyterLab's documents, any page of the
 * same server. Loaded from the server's static route, so that all of them share one copy.
 */

import { moduleUrl, type Address } from '../shared/address';
import { acquire } from '../shared/hub';
import { useTranslation } from '../shared/language';
import { vncScreen } from '../shared/screen';
import type { Mode } from '../shared/views/panel';
import { draw } from './draw';

export { findServer, makeAddress } from '../shared/address';
export { Api } from '../shared/api';
export { acquire, useTranslation };

export interface PanelOptions {
  address: Address;
  sessionId: string;
  mode: Mode;
  /** Pixels; 0 fills the element. */
  height: number;
}

let style: Promise<void> | undefined;

/** Loads our style sheet into the page, once. */
export function ensureStyle(address: Address): Promise<void> {
  style ??= new Promise(done => {
    const link = document.createElement('link');
    link.rel = 'stylesheet';
    link.href = moduleUrl(address, 'panel.css');
    link.onload = () => done();
    link.onerror = () => {
      style = undefined; // the next panel tries again
      link.remove();
      done();
    };
    document.head.append(link);
  });
  return style;
}

/** Shows a session in `element` until the returned function is called. */
export async function mountPanel(element: HTMLElement, options: PanelOptions): Promise<() => void> {
  const { address, sessionId, mode, height } = options;
  const [model, release] = acquire(address, sessionId);
  await ensureStyle(address);
  const unmount = draw(element, model, vncScreen(address, sessionId, model.viewer), mode, height);
  return () => {
    unmount();
    release();
  };
}
