/** `.cambio` files open in a viewer, and two of them beside each other. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ILayoutRestorer } from '@jupyterlab/application';
import { createToolbarFactory, InputDialog, IToolbarWidgetRegistry, showErrorMessage, WidgetTracker } from '@jupyterlab/apputils';
import { ABCWidgetFactory, DocumentWidget, type DocumentRegistry } from '@jupyterlab/docregistry';
import type { Contents } from '@jupyterlab/services';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { ITranslator, nullTranslator, type TranslationBundle } from '@jupyterlab/translation';
import { CommandToolbarButton } from '@jupyterlab/ui-components';
import { Widget } from '@lumino/widgets';
import type { RunHost, RunViewer } from '../panel/runs';
import { address, loadPanel, loadRuns } from './frontend';
import { runIcon } from './icon';
import { COMMAND, PLUGIN, TOOLBAR } from './names';
import { saveVideo } from './records';

const FILE_TYPE = 'cambio-run';

function decode(base64: string): Uint8Array {
  const text = atob(base64.replace(/\s/g, ''));
  return Uint8Array.from(text, character => character.charCodeAt(0));
}

export class RunContent extends Widget {
  private viewer: RunViewer | null = null;

  constructor(
    private readonly context: DocumentRegistry.Context,
    private readonly host: RunHost,
    private readonly trans: TranslationBundle
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
      this.viewer = runs.mountRun(this.node, run, { ...this.host, video });
    } catch (error) {
      this.node.textContent = this.trans.__('The viewer could not be loaded from the server (%1).', String(error));
    }
  }
}

type RunDocument = DocumentWidget<RunContent, DocumentRegistry.ICodeModel>;

class RunFactory extends ABCWidgetFactory<RunDocument, DocumentRegistry.ICodeModel> {
  constructor(
    options: DocumentRegistry.IWidgetFactoryOptions<RunDocument>,
    private readonly host: (path: string) => RunHost,
    private readonly trans: TranslationBundle
  ) {
    super(options);
  }

  protected override createNewWidget(context: DocumentRegistry.IContext<DocumentRegistry.ICodeModel>): RunDocument {
    const content = new RunContent(context, this.host(context.path), this.trans);
    content.title.icon = runIcon;
    return new DocumentWidget({ content, context });
  }
}

const documents: JupyterFrontEndPlugin<void> = {
  id: PLUGIN.runs,
  description: 'Recorded runs (.cambio): filmstrip, transcript, timings, comparison.',
  autoStart: true,
  optional: [ILayoutRestorer, ITranslator, IToolbarWidgetRegistry, ISettingRegistry],
  activate: (
    app: JupyterFrontEnd,
    restorer: ILayoutRestorer | null,
    translator: ITranslator | null,
    toolbars: IToolbarWidgetRegistry | null,
    settings: ISettingRegistry | null
  ) => {
    const trans = (translator ?? nullTranslator).load('cambio_lab');
    const compare = (path: string): void => void app.commands.execute(COMMAND.compare, { path });
    toolbars?.addFactory<RunDocument>(TOOLBAR.run, 'compare', ({ context }) => {
      return new CommandToolbarButton({ commands: app.commands, id: COMMAND.compare, args: { path: context.path } });
    });
    const toolbarFactory =
      toolbars && settings && createToolbarFactory(toolbars, settings, TOOLBAR.run, PLUGIN.runs, translator ?? nullTranslator);
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
        name: TOOLBAR.run,
        label: trans.__('Recorded run'),
        modelName: 'base64',
        fileTypes: [FILE_TYPE],
        defaultFor: [FILE_TYPE],
        readOnly: true,
        ...(toolbarFactory ? { toolbarFactory } : {})
      },
      path => (toolbarFactory ? {} : { compare: () => compare(path) }),
      trans
    );
    factory.widgetCreated.connect((_, widget) => {
      void tracker.add(widget).then(() => app.commands.notifyCommandChanged(COMMAND.compare));
    });
    app.docRegistry.addWidgetFactory(factory);
    void restorer?.restore(tracker, {
      command: 'docmanager:open',
      args: widget => ({ path: widget.context.path, factory: TOOLBAR.run }),
      name: widget => widget.context.path
    });
    const runAt = (path: unknown): RunDocument | null =>
      path ? (tracker.find(one => one.context.path === path) ?? null) : tracker.currentWidget;
    app.commands.addCommand(COMMAND.compare, {
      label: trans.__('Compare with another run…'),
      isEnabled: args => runAt(args['path']) !== null,
      execute: args => {
        const document = runAt(args['path']);
        return document && compareWith(app, trans, document.content);
      }
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
    const answer = await InputDialog.getItem({
      title: trans.__('Compare with which run?'),
      label: trans.__('A run of this folder, or the path of another one'),
      items: names,
      editable: true
    });
    if (!answer.button.accept || !answer.value) return;
    const file = await contents.get(answer.value, { type: 'file', format: 'base64', content: true });
    content.compareWith(String(file.content));
  } catch (error) {
    await showErrorMessage(trans.__('The runs cannot be compared'), error as Error);
  }
}

export const runs: JupyterFrontEndPlugin<void>[] = [documents];
