/** Where the server is, and what a request to it must carry. */

export interface Address {
  /** Absolute, ends with a slash: `https://hub.example.org/user/ana/`. */
  baseUrl: string;
  /** Only when the page itself was given one (a JupyterLab opened with `?token=`); never from a notebook. */
  token: string;
}

interface PageConfig {
  baseUrl?: string;
  token?: string;
}

/** JupyterLab, Notebook 7 and nbclassic say where they are in this element or on `body`. */
function pageConfig(document: Document): PageConfig | null {
  const text = document.getElementById('jupyter-config-data')?.textContent;
  if (text) {
    try {
      return JSON.parse(text) as PageConfig;
    } catch {
      return null;
    }
  }
  const baseUrl = document.body?.dataset['baseUrl'];
  return baseUrl ? { baseUrl: decodeURIComponent(baseUrl) } : null;
}

/** The Jupyter server that served this page, or null when something else did (VS Code, Colab, a saved file). */
export function findServer(document: Document = globalThis.document): Address | null {
  const config = pageConfig(document);
  if (!config?.baseUrl) return null;
  return makeAddress(config.baseUrl, document.location?.href ?? '', config.token ?? '');
}

export function makeAddress(baseUrl: string, page: string = globalThis.location.href, token = ''): Address {
  const url = new URL(baseUrl, page);
  if (!url.pathname.endsWith('/')) url.pathname += '/';
  url.search = '';
  url.hash = '';
  return { baseUrl: url.href, token };
}

/** `path` (which may begin with the base URL's own path, as the server's answers do) as an absolute URL. */
export function resolve(address: Address, path: string): string {
  if (/^(https?|data|blob):/.test(path)) return path;
  const base = new URL(address.baseUrl);
  if (path.startsWith(base.pathname)) return base.origin + path;
  return address.baseUrl + path.replace(/^\/+/, '');
}

export function socketUrl(address: Address, path: string): string {
  return resolve(address, path).replace(/^http/, 'ws');
}

/** A module of our static route. Everyone must use the same URL, so that a page loads one copy. */
export function moduleUrl(address: Address, name: string): string {
  return `${address.baseUrl}cambio/static/${name}`;
}

export function headers(address: Address, cookie: string = globalThis.document.cookie): Record<string, string> {
  if (address.token) return { Authorization: `token ${address.token}` };
  const xsrf = /(?:^|;\s*)_xsrf=([^;]*)/.exec(cookie)?.[1];
  return xsrf ? { 'X-XSRFToken': decodeURIComponent(xsrf) } : {};
}
