/**
 * Strings are English; a host with translations (JupyterLab) puts its own bundle here. Call it as `trans.__('…')` and
 * `trans._n('…', '…', count)` with literals only: by these names JupyterLab's tools collect what is to be translated.
 */

export interface Translations {
  /** `text` in the person's language; `%1`, `%2` in it are replaced by `values`. */
  __(text: string, ...values: unknown[]): string;
  /** `one` or `many`, as the language wants for `count`, which is `%1` in them. */
  _n(one: string, many: string, count: number): string;
}

function fill(text: string, values: unknown[]): string {
  return text.replace(/%(\d)/g, (all, index: string) => {
    const value = values[Number(index) - 1];
    return value === undefined ? all : String(value);
  });
}

let current: Translations = {
  __: (text, ...values) => fill(text, values),
  _n: (one, many, count) => fill(count === 1 ? one : many, [count])
};

/** Follows the host, whenever it comes: so call it when the words are shown, not when a module is loaded. */
export const trans: Translations = {
  __: (text, ...values) => current.__(text, ...values),
  _n: (one, many, count) => current._n(one, many, count)
};

export function useTranslation(host: Translations): void {
  current = host;
}
