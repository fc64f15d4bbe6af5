/** The viewer of recorded runs, for JupyterLab's and Notebook's `.cambio` documents. */

import { render } from 'preact';
import { RecordedRun, RunRefused } from '../shared/bundle';
import { trans } from '../shared/language';
import { plain } from '../shared/text';
import { followTheme } from '../shared/theme';
import { Boundary } from '../shared/views/boundary';
import { CompareView } from '../shared/views/compare';
import { RunView, type RunHost } from '../shared/views/run';

export type { RunHost };

export { useTranslation } from '../shared/language';

export interface RunViewer {
  /** Shows another run beside the first. */
  compareWith(bytes: Uint8Array): void;
  close(): void;
}

/** Shows a run in `element`; `host` says what else can be done with it there. */
export function mountRun(element: HTMLElement, bytes: Uint8Array, host: RunHost): RunViewer {
  const unfollow = followTheme(element);
  element.classList.add('jp-Cambio-host');
  let run: RecordedRun;
  try {
    run = new RecordedRun(bytes);
  } catch (error) {
    refuse(element, error);
    return { compareWith: () => undefined, close: unfollow };
  }
  let other: RecordedRun | null = null;
  const single = (): void => {
    other?.close();
    other = null;
    draw();
  };
  const draw = (): void =>
    render(
      <Boundary what={trans.__('This run')}>
        {other ? <CompareView run={run} other={other} single={single} /> : <RunView run={run} host={host} />}
      </Boundary>,
      element
    );
  draw();
  return {
    compareWith: more => {
      const next = new RecordedRun(more);
      other?.close();
      other = next;
      draw();
    },
    close: () => {
      render(null, element);
      run.close();
      other?.close();
      unfollow();
    }
  };
}

function refuse(element: HTMLElement, error: unknown): void {
  const words = error instanceof RunRefused ? error.message : trans.__('This run cannot be shown: %1', String(error));
  render(
    <section class="jp-Cambio-root jp-Cambio-run">
      <p class="jp-Cambio-notice" role="alert">
        {plain(words)}
      </p>
    </section>,
    element
  );
}
