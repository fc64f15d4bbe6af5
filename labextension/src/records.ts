/** Recorded runs from the list of sessions: view, compare two by click, export in any format, delete. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Dialog, InputDialog, MainAreaWidget, showDialog, showErrorMessage } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';
import type { RunViewer } from '../panel/runs';
import type { Roster, Row } from '../shared/roster';
import { download } from '../shared/views/download';
import { address, loadPanel, loadRuns } from './frontend';
import { runIcon } from './icon';

type Bytes = () => Promise<Uint8Array>;

/** One run, or two beside each other, in a tab. */
class RecordContent extends Widget {
  private viewer: RunViewer | null = null;

  constructor(private readonly load: Bytes[]) {
    super();
    this.addClass('jp-Cambio-document');
    void this.mount();
  }

  override dispose(): void {
    this.viewer?.close();
    this.viewer = null;
    super.dispose();
  }

  private async mount(): Promise<void> {
    try {
      const [runs, panel, ...found] = await Promise.all([loadRuns(), loadPanel(), ...this.load.map(one => one())]);
      await panel.ensureStyle(address());
      const [first, second] = found;
      if (this.isDisposed || !first) return;
      this.viewer = runs.mountRun(this.node, first, null);
      if (second) this.viewer.compareWith(second);
    } catch (error) {
      this.node.textContent = `The run could not be loaded from the server (${String(error)}).`;
    }
  }
}

export class Records {
  /** The run that was selected to be compared with another one. */
  selected: Row | null = null;

  constructor(
    private readonly app: JupyterFrontEnd,
    private readonly trans: TranslationBundle
  ) {}

  view(row: Row, list: Roster): void {
    this.open(row.name, [bytes(row, list)]);
  }

  /** The first click selects, the second one compares. */
  compare(row: Row, list: Roster): void {
    const first = this.selected;
    if (!first || first.id === row.id) {
      this.selected = first ? null : row;
      return;
    }
    this.selected = null;
    this.open(`${first.name} – ${row.name}`, [bytes(first, list), bytes(row, list)]);
  }

  compareLabel(row: Row | undefined): string {
    if (!this.selected) return this.trans.__('Select to compare');
    if (this.selected.id === row?.id) return this.trans.__('Do not compare');
    return this.trans.__('Compare with %1', this.selected.name);
  }

  async export(row: Row, list: Roster): Promise<void> {
    try {
      const formats = await list.api.formats();
      const items = formats.map(one => `${one.name} (${one.ending}): ${one.summary}`);
      const answer = await InputDialog.getItem({ title: this.trans.__('Export %1 as', row.name), items });
      const chosen = formats[items.indexOf(answer.value ?? '')];
      if (!answer.button.accept || !chosen) return;
      const { name, blob } = await list.api.exportRun(row.id, chosen.name);
      download(blob, `${row.name}${name.slice(name.indexOf('.'))}`);
    } catch (error) {
      await showErrorMessage(this.trans.__('The run could not be exported'), error as Error);
    }
  }

  async delete(row: Row, list: Roster): Promise<void> {
    const answer = await showDialog({
      title: this.trans.__('Delete the run of %1?', row.name),
      body: this.trans.__('Its conversation, steps and screenshots are deleted for good.'),
      buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: this.trans.__('Delete') })]
    });
    if (!answer.button.accept) return;
    try {
      await list.api.deleteRun(row.id);
    } catch (error) {
      await showErrorMessage(this.trans.__('The run could not be deleted'), error as Error);
    }
    await list.load();
  }

  private open(label: string, load: Bytes[]): void {
    const widget = new MainAreaWidget({ content: new RecordContent(load) });
    widget.title.label = label;
    widget.title.icon = runIcon;
    this.app.shell.add(widget, 'main');
    this.app.shell.activateById(widget.id);
  }
}

function bytes(row: Row, list: Roster): Bytes {
  return async () => new Uint8Array(await (await list.api.run(row.id)).arrayBuffer());
}
