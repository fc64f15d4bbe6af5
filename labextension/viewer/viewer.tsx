/** The page at `/vnc/{id}`: one desktop, fitted to the window. */

import { render, type VNode } from 'preact';
import { useMemo } from 'preact/hooks';
import { makeAddress } from '../shared/address';
import { acquire, type SessionModel } from '../shared/hub';
import { translate as t } from '../shared/language';
import { vncScreen } from '../shared/screen';
import { followTheme } from '../shared/theme';
import { ApprovalCard } from '../shared/views/approval';
import { Button, StatusBadge } from '../shared/views/bar';
import { ConnectionNotice, ControlButton, driver, TurnButtons } from '../shared/views/controls';
import { Desktop } from '../shared/views/desktop';
import { toggleFullScreen } from '../shared/views/fullscreen';
import { useModel } from '../shared/views/hooks';

interface Config {
  base_url: string;
  session_id: string;
}

function Viewer({ model }: { model: SessionModel }): VNode {
  useModel(model);
  const show = useMemo(() => vncScreen(model.api.address, model.id, model.viewer), [model]);
  const { view } = model;
  return (
    <main class="jp-Cambio-root jp-Cambio-viewer">
      <header class="jp-Cambio-bar">
        <h1>{view.name || t('Desktop')}</h1>
        <StatusBadge status={view.ended ? 'ended' : view.status} text={view.statusText} />
        <span class="jp-Cambio-space" />
        <TurnButtons model={model} />
        <ControlButton model={model} />
        <Button icon="expand" label={t('Full screen')} onClick={() => toggleFullScreen(document.documentElement)} />
      </header>
      <ConnectionNotice model={model} />
      {view.approval && <ApprovalCard approval={view.approval} steps={view.steps} decide={model.decide} />}
      <Desktop show={show} interactive={model.interactive} focused={model.controls} driver={driver(model)} ended={view.ended} />
    </main>
  );
}

const element = document.getElementById('cambio-config');
const config = JSON.parse(element?.textContent ?? '{}') as Config;
const root = document.createElement('div');
root.id = 'cambio-viewer';
document.body.append(root);
followTheme(root);
const [model] = acquire(makeAddress(config.base_url), config.session_id);
const title = (): void => {
  document.title = model.view.name ? `${model.view.name} – cambio_lab` : 'cambio_lab';
};
model.subscribe(title);
render(<Viewer model={model} />, root);
