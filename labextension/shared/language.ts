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

type TranslatePlural = (one: string, many: string, count: number, ...values: unknown[]) => string;

let currentPlural: TranslatePlural = (one, many, count, ...values) => fill(count === 1 ? one : many, [count, ...values]);

/** `one` or `many`, as the language wants for `count`, which is `%1` in them. */
export const plural: TranslatePlural = (one, many, count, ...values) => currentPlural(one, many, count, ...values);

export function useTranslation(host: Translate, hostPlural: TranslatePlural): void {
  current = host;
  currentPlural = hostPlural;
}
