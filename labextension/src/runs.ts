/** `.cambio` files open in a viewer, and two of them beside each other. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ILayoutRestorer } from '@jupyterlab/application';
import { InputDialog, showErrorMessage, WidgetTracker } from '@jupyterlab/apputils';
import { ABCWidgetFactory, DocumentWidget, type DocumentRegistry } from '@jupyterlab/docregistry';
import type { Contents } from '@jupyterlab/services';
import { ITranslator, nullTranslator, type TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';
import type { RunViewer } from '../panel/runs';
import { address, loadPanel, loadRuns } from './frontend';
import { runIcon } from './icon';
import { COMMAND, PLUGIN } from './names';
import { saveVideo } from './records';

const FACTORY = 'Recorded run';
const FILE_TYPE = 'cambio-run';

function decode(base64: string): Uint8Array {
  const text = atob(base64.replace(/\s/g, ''));
  return Uint8Array.from(text, character => character.charCodeAt(0));
}

export class RunContent extends Widget {
  private viewer: RunViewer | null = null;

  constructor(
    private readonly context: DocumentRegistry.Context,
    private readonly compare: (content: RunContent) => void
  ) {
    super();
    this.addClass('jp-Cambio-document');
    void context.ready.then(() => this.refresh());
    context.model.contentChanged.connect(this.refresh, this);
  }

  compareWith(base64: string): void {
    this.viewer?.compareWith(decode(base64));
  }

  get path(): string {
    return this.context.path;
  }

  override dispose(): void {
    this.viewer?.close();
    this.viewer = null;
    super.dispose();
  }

  private async refresh(): Promise<void> {
    try {
      const [runs, panel] = await Promise.all([loadRuns(), loadPanel()]);
      await panel.ensureStyle(address());
      if (this.isDisposed) return;
      this.viewer?.close();
      const run = decode(this.context.model.toString());
      const name =
        this.path
          .split('/')
          .pop()
          ?.replace(/\.cambio$/, '') ?? 'run';
      const video = (): Promise<void> => saveVideo(new panel.Api(address()), run, name);
      this.viewer = runs.mountRun(this.node, run, { compare: () => this.compare(this), video });
    } catch (error) {
      this.node.textContent = `The viewer could not be loaded from the server (${String(error)}).`;
    }
  }
}

type RunDocument = DocumentWidget<RunContent, DocumentRegistry.ICodeModel>;

class RunFactory extends ABCWidgetFactory<RunDocument, DocumentRegistry.ICodeModel> {
  constructor(
    options: DocumentRegistry.IWidgetFactoryOptions<RunDocument>,
    private readonly compare: (content: RunContent) => void
  ) {
    super(options);
  }

  protected override createNewWidget(context: DocumentRegistry.IContext<DocumentRegistry.ICodeModel>): RunDocument {
    const content = new RunContent(context, this.compare);
    content.title.icon = runIcon;
    return new DocumentWidget({ content, context });
  }
}

const documents: JupyterFrontEndPlugin<void> = {
  id: PLUGIN.runs,
  description: 'Recorded runs (.cambio): filmstrip, transcript, timings, comparison.',
  autoStart: true,
  optional: [ILayoutRestorer, ITranslator],
  activate: (app: JupyterFrontEnd, restorer: ILayoutRestorer | null, translator: ITranslator | null) => {
    const trans = (translator ?? nullTranslator).load('cambio_lab');
    const tracker = new WidgetTracker<RunDocument>({ namespace: 'cambio-lab-runs' });
    app.docRegistry.addFileType({
      name: FILE_TYPE,
      displayName: trans.__('Recorded agent run'),
      extensions: ['.cambio'],
      mimeTypes: ['application/vnd.cambio.run+zip'],
      contentType: 'file',
      fileFormat: 'base64',
      icon: runIcon
    });
    const factory = new RunFactory(
      {
        name: FACTORY,
        label: trans.__('Recorded run'),
        modelName: 'base64',
        fileTypes: [FILE_TYPE],
        defaultFor: [FILE_TYPE],
        readOnly: true
      },
      content => void app.commands.execute(COMMAND.compare, { path: content.path })
    );
    factory.widgetCreated.connect((_, widget) => void tracker.add(widget));
    app.docRegistry.addWidgetFactory(factory);
    void restorer?.restore(tracker, {
      command: 'docmanager:open',
      args: widget => ({ path: widget.context.path, factory: FACTORY }),
      name: widget => widget.context.path
    });
    app.commands.addCommand(COMMAND.compare, {
      label: trans.__('Compare with another run…'),
      isEnabled: () => tracker.currentWidget !== null,
      execute: () => tracker.currentWidget && compareWith(app, trans, tracker.currentWidget.content)
    });
  }
};

/** Asks which run of the same folder to show beside this one. */
async function compareWith(app: JupyterFrontEnd, trans: TranslationBundle, content: RunContent): Promise<void> {
  const { contents } = app.serviceManager;
  const folder = content.path.split('/').slice(0, -1).join('/');
  try {
    const listing = (await contents.get(folder)).content as Contents.IModel[];
    const names = listing.map(item => item.path).filter(path => path.endsWith('.cambio') && path !== content.path);
    const answer = await InputDialog.getText({
      title: trans.__('Compare with which run?'),
      label: names.length ? trans.__('In this folder: %1', names.join(', ')) : trans.__('Path of a .cambio file'),
      text: names[0] ?? ''
    });
    if (!answer.button.accept || !answer.value) return;
    const file = await contents.get(answer.value, { type: 'file', format: 'base64', content: true });
    content.compareWith(String(file.content));
  } catch (error) {
    await showErrorMessage(trans.__('The runs cannot be compared'), error as Error);
  }
}

export const runs: JupyterFrontEndPlugin<void>[] = [documents];
