/** The pages at `/vnc/{id}`, one desktop, fitted to the window, and `/cambio/run/{id}`, its run. */

import { render, type VNode } from 'preact';
import { useMemo } from 'preact/hooks';
import { makeAddress, type Address } from '../shared/address';
import { Api } from '../shared/api';
import { acquire, type SessionModel } from '../shared/hub';
import { trans } from '../shared/language';
import { vncScreen } from '../shared/screen';
import { followTheme } from '../shared/theme';
import { ApprovalCard } from '../shared/views/approval';
import { Boundary } from '../shared/views/boundary';
import { Button, StatusBadge } from '../shared/views/bar';
import { ConnectionNotice, ControlButton, driver, TurnButtons } from '../shared/views/controls';
import { Desktop } from '../shared/views/desktop';
import { download } from '../shared/views/download';
import { Ended } from '../shared/views/ended';
import { toggleFullScreen } from '../shared/views/fullscreen';
import { useModel } from '../shared/views/hooks';

interface Config {
  base_url: string;
  session_id: string;
  /** Show the run of the session. */
  run: boolean;
}

function Viewer({ model }: { model: SessionModel }): VNode {
  useModel(model);
  const show = useMemo(() => vncScreen(model.api.address, model.id, model.viewer), [model]);
  const { view } = model;
  return (
    <main class="jp-Cambio-root jp-Cambio-viewer">
      <header class="jp-Cambio-bar">
        <h1>{view.name || trans.__('Desktop')}</h1>
        <StatusBadge status={view.ended ? 'ended' : view.status} text={view.statusText} />
        <span class="jp-Cambio-space" />
        <TurnButtons model={model} />
        <ControlButton model={model} />
        <Button icon="expand" label={trans.__('Full screen')} onClick={() => toggleFullScreen(document.documentElement)} />
      </header>
      <ConnectionNotice model={model} />
      {view.approval && <ApprovalCard approval={view.approval} steps={view.steps} decide={model.decide} />}
      <Desktop
        show={show}
        interactive={model.interactive}
        focused={model.controls}
        driver={driver(model)}
        ended={view.ended}
        rest={view.ended && <Ended model={model} />}
      />
    </main>
  );
}

function showDesktop(address: Address, id: string): void {
  const [model] = acquire(address, id);
  const title = (): void => {
    document.title = model.view.name ? `${model.view.name} – cambio_lab` : 'cambio_lab';
  };
  model.subscribe(title);
  render(
    <Boundary what={trans.__('This desktop')}>
      <Viewer model={model} />
    </Boundary>,
    root
  );
}

async function showRun(address: Address, id: string): Promise<void> {
  const api = new Api(address);
  try {
    const [{ mountRun }, blob, { name }] = await Promise.all([import('../panel/runs'), api.run(id), api.session(id)]);
    document.title = `${name} – cambio_lab`;
    const run = new Uint8Array(await blob.arrayBuffer());
    mountRun(root, run, { video: async () => download(await api.convert(run, 'video'), `${name}.mp4`) });
  } catch (error) {
    root.textContent = trans.__('The run could not be opened: %1', String(error));
  }
}

const element = document.getElementById('cambio-config');
const config = JSON.parse(element?.textContent ?? '{}') as Config;
const root = document.createElement('div');
root.id = 'cambio-viewer';
document.body.append(root);
followTheme(root);
const server = makeAddress(config.base_url);
if (config.run) void showRun(server, config.session_id);
else showDesktop(server, config.session_id);
