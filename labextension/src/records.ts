/** Recorded runs from the list of sessions: view, compare two by click, export in any format, delete. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Dialog, InputDialog, MainAreaWidget, Notification, showDialog, showErrorMessage } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';
import type { RunViewer } from '../panel/runs';
import type { Api } from '../shared/api';
import type { Json } from '../shared/messages';
import type { Roster, Row } from '../shared/roster';
import { download } from '../shared/views/download';
import type { Labels } from '../shared/views/run';
import type { Cell, Walls } from '../shared/walls';
import { address, loadAgents, loadPanel, loadRuns } from './frontend';
import { runIcon } from './icon';

/** A run that can be shown: of a session, or of a cell of an experiment. */
interface Source {
  id: string;
  name: string;
  load: () => Promise<Uint8Array>;
  labels: Labels;
}

/** One run, or two beside each other, in a tab. */
class RecordContent extends Widget {
  private viewer: RunViewer | null = null;

  constructor(
    private readonly api: Api,
    private readonly sources: Source[],
    private readonly trans: TranslationBundle
  ) {
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
      const [runs, panel, ...found] = await Promise.all([loadRuns(), loadPanel(), ...this.sources.map(one => one.load())]);
      await panel.ensureStyle(address());
      const [first, second] = found;
      const source = this.sources[0];
      if (this.isDisposed || !first || !source) return;
      this.viewer = runs.mountRun(this.node, first, { video: () => saveVideo(this.api, first, source.name), labels: source.labels });
      if (second) this.viewer.compareWith(second);
    } catch (error) {
      this.node.textContent = this.trans.__('The run could not be loaded from the server (%1).', String(error));
    }
  }
}

/** The desktop of a cell that runs; its run takes its place. */
class CellContent extends Widget {
  private unmount: (() => void) | null = null;

  constructor(walls: Walls, id: string, cell: string, done: (cell: Cell) => void) {
    super();
    this.addClass('jp-Cambio-document');
    void Promise.all([loadAgents(), loadPanel()]).then(async ([agents, panel]) => {
      await panel.ensureStyle(address());
      if (!this.isDisposed) this.unmount = agents.mountCell(this.node, walls, id, cell, done);
    });
  }

  override dispose(): void {
    this.unmount?.();
    this.unmount = null;
    super.dispose();
  }
}

/** Makes the run a video on the server and offers it as a file. */
export async function saveVideo(api: Api, run: Uint8Array, name: string): Promise<void> {
  download(await api.convert(run, 'video'), `${name}.mp4`);
}

export class Records {
  /** The run that was selected to be compared with another one. */
  private first: Source | null = null;

  constructor(
    private readonly app: JupyterFrontEnd,
    private readonly trans: TranslationBundle
  ) {}

  get selected(): string {
    return this.first?.id ?? '';
  }

  view(row: Row, list: Roster): void {
    this.open(list.api, [ofSession(row, list)]);
  }

  /** The run of a session that the list may not have. */
  async viewRun(id: string, list: Roster): Promise<void> {
    try {
      const { name, tags = [], note = '' } = await list.api.session(id);
      this.open(list.api, [ofSession({ id, name, tags, note }, list)]);
    } catch (error) {
      await showErrorMessage(this.trans.__('The run could not be opened'), error as Error);
    }
  }

  /** The first click selects, the second one compares. */
  compare(row: Row, list: Roster): void {
    this.pair(list.api, ofSession(row, list));
  }

  /** The run of a cell, or its desktop while it runs. */
  viewCell(walls: Walls, id: string, cell: Cell): void {
    if (cell.run) return this.open(walls.api, [ofCell(walls, id, cell)]);
    const content = new CellContent(walls, id, cell.id, done => {
      widget.dispose();
      this.viewCell(walls, id, done);
    });
    const widget = this.add(content, cell.id);
    return undefined;
  }

  compareCell(walls: Walls, id: string, cell: Cell): void {
    this.pair(walls.api, ofCell(walls, id, cell));
  }

  compareLabel(row: Row | undefined): string {
    if (!this.first) return this.trans.__('Select to compare');
    if (this.first.id === row?.id) return this.trans.__('Do not compare');
    return this.trans.__('Compare with %1', this.first.name);
  }

  async export(row: Row, list: Roster): Promise<void> {
    try {
      const formats = await list.api.formats();
      const items = formats.map(one => `${one.name} (${one.ending}): ${one.summary}`);
      const answer = await InputDialog.getItem({
        title: this.trans.__('Export %1 as', row.name),
        items,
        current: Math.max(
          0,
          formats.findIndex(one => one.name === 'html')
        ),
        okLabel: this.trans.__('Export')
      });
      const chosen = formats[items.indexOf(answer.value ?? '')];
      if (!answer.button.accept || !chosen) return;
      const making = Notification.emit(this.trans.__('Exporting %1…', row.name), 'in-progress', { autoClose: false });
      try {
        const { name, blob } = await list.api.exportRun(row.id, chosen.name);
        download(blob, `${row.name}${name.slice(name.indexOf('.'))}`);
      } finally {
        Notification.dismiss(making);
      }
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

  private pair(api: Api, source: Source): void {
    const first = this.first;
    this.first = first ? null : source;
    if (first && first.id !== source.id) this.open(api, [first, source]);
  }

  private open(api: Api, sources: Source[]): void {
    this.add(new RecordContent(api, sources, this.trans), sources.map(one => one.name).join(' – '));
  }

  private add(content: Widget, label: string): MainAreaWidget {
    const widget = new MainAreaWidget({ content });
    widget.title.label = label;
    widget.title.icon = runIcon;
    this.app.shell.add(widget, 'main');
    this.app.shell.activateById(widget.id);
    return widget;
  }
}

function ofSession(row: Pick<Row, 'id' | 'name' | 'tags' | 'note'>, list: Roster): Source {
  const save = async (change: Json): Promise<void> => {
    await list.api.changeSession(row.id, change);
    await list.load();
  };
  const { id, name, tags, note } = row;
  return { id, name, load: async () => bytes(await list.api.run(id)), labels: { tags, note, save } };
}

function ofCell(walls: Walls, id: string, cell: Cell): Source {
  const { tags, note } = cell;
  const labels = { tags, note, save: (change: { tags?: string[]; note?: string }) => walls.annotate(id, cell.id, change) };
  return { id: `${id}/${cell.id}`, name: cell.id, load: async () => bytes(await walls.api.cellRun(id, cell.run)), labels };
}

async function bytes(blob: Blob): Promise<Uint8Array> {
  return new Uint8Array(await blob.arrayBuffer());
}
