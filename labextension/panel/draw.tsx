import { render } from 'preact';
import type { SessionModel } from '../shared/hub';
import type { ShowScreen } from '../shared/screen';
import { trans } from '../shared/language';
import { followTheme } from '../shared/theme';
import { Boundary } from '../shared/views/boundary';
import { Panel, type Mode } from '../shared/views/panel';

/** Draws the panel into `element` until the returned function is called. `height` in pixels; 0 fills the element. */
export function draw(element: HTMLElement, model: SessionModel, show: ShowScreen, mode: Mode, height: number, remark = ''): () => void {
  const unfollow = followTheme(element);
  element.classList.add('jp-Cambio-host');
  element.style.height = height ? 'auto' : '100%';
  element.style.setProperty('--jp-cambio-height', height ? `min(${height}px, max(360px, 100vh - 150px))` : '100%'); // the window's own bars are about 150 px
  render(
    <Boundary what={trans.__('This panel')}>
      <Panel model={model} show={show} mode={mode} embedded={height > 0} remark={remark} />
    </Boundary>,
    element
  );
  return () => {
    render(null, element);
    unfollow();
  };
}
