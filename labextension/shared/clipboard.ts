/** Whether this browser's clipboard and those of desktops are one: asked once, remembered by the browser. */

const KEY = 'cambio-lab-clipboard';

export type Consent = 'yes' | 'no' | 'ask';

export function clipboardConsent(storage: Storage | undefined = globalThis.localStorage): Consent {
  try {
    const known = storage?.getItem(KEY);
    return known === 'yes' || known === 'no' ? known : 'ask';
  } catch {
    return 'ask'; // storage is forbidden: asked in each page
  }
}

export function rememberConsent(yes: boolean, storage: Storage | undefined = globalThis.localStorage): void {
  try {
    storage?.setItem(KEY, yes ? 'yes' : 'no');
  } catch (error) {
    console.warn('cambio_lab: the answer about the clipboard cannot be remembered', error);
  }
}
