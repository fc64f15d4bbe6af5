/**
 * The panel, for whoever has an element to put it in: the notebook's widget, JupyterLab's documents, any page of the
 * same server. Loaded from the server's static route, so that all of them share one copy.
 */

import { moduleUrl, type Address } from '../shared/address';
import { acquire } from '../shared/hub';
import { useTranslation } from '../shared/language';
import { vncScreen } from '../shared/screen';
import type { Mode } from '../shared/views/panel';
import { draw } from './draw';

export { findServer, makeAddress } from '../shared/address';
export { acquire, useTranslation };

export interface PanelOptions {
  address: Address;
  sessionId: string;
  mode: Mode;
  /** Pixels; 0 fills the element. */
  height: number;
}

/** Loads our style sheet into the page, once. */
export async function ensureStyle(address: Address): Promise<void> {
  const id = 'cambio-lab-style';
  if (document.getElementById(id)) return;
  const link = document.createElement('link');
  link.id = id;
  link.rel = 'stylesheet';
  link.href = moduleUrl(address, 'panel.css');
  const loaded = new Promise(done => {
    link.onload = link.onerror = done;
  });
  document.head.append(link);
  await loaded;
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
