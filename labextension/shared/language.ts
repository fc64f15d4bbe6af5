/** Strings are English; a host with translations (JupyterLab) puts its own function here. */

export type Translate = (text: string, ...values: unknown[]) => string;

function fill(text: string, values: unknown[]): string {
  return text.replace(/%(\d)/g, (all, index: string) => {
    const value = values[Number(index) - 1];
    return value === undefined ? all : String(value);
  });
}

let current: Translate = (text, ...values) => fill(text, values);

/** `%1`, `%2` in `text` are replaced by `values`, after the translation. */
export const translate: Translate = (text, ...values) => current(text, ...values);

export function useTranslation(host: Translate): void {
  current = host;
}
