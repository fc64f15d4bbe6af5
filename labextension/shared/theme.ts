/** Dark or light, as the host says: JupyterLab and Notebook 7, VS Code, or the system where no host says. */

function isDark(body: HTMLElement, system: MediaQueryList): boolean {
  const jupyter = body.dataset['jpThemeLight'];
  if (jupyter) return jupyter === 'false';
  if (/\bvscode-(dark|high-contrast)\b/.test(body.className)) return true;
  if (/\bvscode-/.test(body.className)) return false;
  return system.matches;
}

/** Keeps the class `jp-Cambio-dark` on `element` right until the returned function is called. */
export function followTheme(element: HTMLElement): () => void {
  const system = matchMedia('(prefers-color-scheme: dark)');
  const apply = (): void => void element.classList.toggle('jp-Cambio-dark', isDark(document.body, system));
  const observer = new MutationObserver(apply);
  observer.observe(document.body, { attributes: true, attributeFilter: ['data-jp-theme-light', 'class'] });
  system.addEventListener('change', apply);
  apply();
  return () => {
    observer.disconnect();
    system.removeEventListener('change', apply);
  };
}
