/** What one can do with sessions, as commands of JupyterLab. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Clipboard, Dialog, Notification, showDialog, showErrorMessage } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { ReadonlyPartialJSONObject } from '@lumino/coreutils';
import type { Json } from '../shared/messages';
import type { Roster, Row } from '../shared/roster';
import type { Mode } from '../shared/views/panel';
import { download } from '../shared/views/download';
import { working } from '../shared/working';
import { askForNew, choose, type Choices, type Defaults } from './dialogs';
import type { Documents } from './documents';
import { agentIcon } from './icon';
import { COMMAND, SELECTOR } from './names';
import type { Records } from './records';

export interface CommandContext {
  app: JupyterFrontEnd;
  trans: TranslationBundle;
  documents: Documents;
  roster: Promise<Roster>;
  defaults: () => Defaults;
  showList: () => void;
  records: Records;
}

type Args = ReadonlyPartialJSONObject;

export function addCommands(context: CommandContext): void {
  addGeneral(context);
  addForOne(context);
}

function addGeneral({ app, trans, documents, roster, defaults, showList }: CommandContext): void {
  const { commands } = app;
  commands.addCommand(COMMAND.focus, { label: trans.__('Show agents'), icon: agentIcon, execute: showList });
  commands.addCommand(COMMAND.create, {
    label: args => (args['isPalette'] ? trans.__('New agent desktop…') : trans.__('Agent desktop')),
    caption: trans.__('A desktop of its own with an agent to talk to'),
    icon: agentIcon,
    execute: async () => {
      const list = await roster;
      const wanted = await askForNew(trans, defaults(), await choices(list));
      if (!wanted) return;
      const made = list.api.createSession(wanted.name || null, wanted.config);
      // The panel that opens says that the desktop is ready; a notification would cover its message box.
      const starting = Notification.emit(trans.__('Starting a desktop…'), 'in-progress', { autoClose: false });
      try {
        const session = await made;
        await list.load();
        documents.open(session.id, 'panel');
      } catch (error) {
        Notification.error(error instanceof Error ? error.message : String(error), { autoClose: false });
      } finally {
        Notification.dismiss(starting);
      }
    }
  });
  commands.addCommand(COMMAND.open, {
    label: trans.__('Open agent session…'),
    execute: async () => {
      const row = await choose(trans, await roster);
      if (row) documents.open(row.id, 'panel');
    }
  });
  commands.addCommand(COMMAND.stopAll, {
    label: trans.__('Stop all agents'),
    execute: async () => {
      const list = await roster;
      for (const row of list.rows.values()) if (working(row.status)) list.command('stop', row.id);
    }
  });
}

/** What the server offers; an old or busy server's form is plainer, not absent. */
async function choices(list: Roster): Promise<Choices> {
  const [table, defaults] = await Promise.all([
    list.api.models().catch(() => ({ models: [], default: '' })),
    list.api.defaults().catch((): Json => ({}))
  ]);
  const number = (name: string): number => (typeof defaults[name] === 'number' ? defaults[name] : 0);
  const models = table.models.map(model => String(model['model'] ?? ''));
  const approval = typeof defaults['approval'] === 'string' ? defaults['approval'] : 'never';
  return { models: [table.default, ...models], approval, maxSteps: number('max_steps'), maxCostUsd: number('max_cost_usd') };
}

function addForOne(context: CommandContext): void {
  const { app, trans, documents, roster, records } = context;
  let rows: Roster | undefined;
  void roster.then(list => (rows = list));
  /** The session that a command means: its argument, the row under the menu, or the tab in front. */
  const idOf = (args: Args): string =>
    String(args['id'] ?? app.contextMenuHitTest(node => node.matches(SELECTOR))?.dataset['sessionId'] ?? documents.current ?? '');
  const rowOf = (args: Args): Row | undefined => rows?.rows.get(idOf(args));
  const add = (
    name: string,
    label: string | ((args: Args) => string),
    run: (row: Row, list: Roster, args: Args) => unknown,
    fits: (row: Row) => boolean
  ): void => {
    app.commands.addCommand(name, {
      label,
      isEnabled: args => {
        const row = rowOf(args);
        return row ? fits(row) : name === COMMAND.desktop && Boolean(args['id']);
      },
      execute: async args => {
        const list = await roster;
        const id = idOf(args);
        const row = list.rows.get(id);
        if (row) return run(row, list, args);
        // A restored layout opens its tabs before the list has come.
        return id && name === COMMAND.desktop ? documents.open(id, modeOf(args), false) : undefined;
      }
    });
  };
  const alive = (row: Row): boolean => !row.ended;
  const busy = (row: Row): boolean => alive(row) && working(row.status);
  add(
    COMMAND.desktop,
    trans.__('Open desktop'),
    (row, _, args) => documents.open(row.id, modeOf(args)),
    () => true
  );
  add(
    COMMAND.chat,
    trans.__('Open chat'),
    row => documents.open(row.id, 'chat'),
    () => true
  );
  add(COMMAND.stop, trans.__('Stop'), (row, list) => list.command('stop', row.id), busy);
  add(
    COMMAND.pause,
    trans.__('Pause'),
    (row, list) => list.command('pause', row.id),
    row => busy(row) && row.status !== 'paused'
  );
  add(
    COMMAND.resume,
    trans.__('Resume'),
    (row, list) => list.command('resume', row.id),
    row => row.status === 'paused'
  );
  add(COMMAND.end, trans.__('End session…'), (row, list) => end(context, row, list), alive);
  add(
    COMMAND.copyId,
    trans.__('Copy session ID'),
    row => Clipboard.copyToSystem(row.id),
    () => true
  );
  add(
    COMMAND.download,
    trans.__('Download run'),
    (row, list) => downloadRun(trans, row, list),
    () => true
  );
  const ended = (row: Row): boolean => row.ended;
  add(
    COMMAND.view,
    trans.__('View run'),
    (row, list) => records.view(row, list),
    () => true
  );
  add(
    COMMAND.pair,
    args => records.compareLabel(rowOf(args)),
    (row, list) => records.compare(row, list),
    () => true
  );
  add(
    COMMAND.export,
    trans.__('Export run…'),
    (row, list) => records.export(row, list),
    () => true
  );
  add(COMMAND.remove, trans.__('Delete run…'), (row, list) => records.delete(row, list), ended);
  add(COMMAND.attach, trans.__('Insert code'), row => insertCode(context, row), alive);
}

function modeOf(args: Args): Mode {
  const mode = args['mode'];
  return mode === 'desktop' || mode === 'chat' ? mode : 'panel';
}

async function end({ trans, documents }: CommandContext, row: Row, list: Roster): Promise<void> {
  const answer = await showDialog({
    title: trans.__('End %1?', row.name),
    body: trans.__('Its desktop and everything on it is thrown away. The conversation and the recorded steps stay.'),
    buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: trans.__('End session') })]
  });
  if (!answer.button.accept) return;
  try {
    await list.api.endSession(row.id);
    documents.closeAll(row.id);
  } catch (error) {
    await showErrorMessage(trans.__('The session could not be ended'), error as Error);
  }
  await list.load();
}

async function downloadRun(trans: TranslationBundle, row: Row, list: Roster): Promise<void> {
  try {
    download(await list.api.run(row.id), `${row.name}.cambio`);
  } catch (error) {
    await showErrorMessage(trans.__('The run could not be downloaded'), error as Error);
  }
}

/** Into the active notebook; without one, to the clipboard. */
async function insertCode({ app, trans }: CommandContext, row: Row): Promise<void> {
  const code = `from cambio_lab import Workbench\n\nlab = Workbench()\nsession = await lab.session("${row.id}")\nsession`;
  const { commands } = app;
  if (commands.hasCommand('notebook:replace-selection') && commands.isEnabled('notebook:replace-selection')) {
    await commands.execute('notebook:insert-cell-below');
    await commands.execute('notebook:replace-selection', { text: code });
    return;
  }
  Clipboard.copyToSystem(code);
  Notification.info(trans.__('No notebook is open: the code is on the clipboard.'), { autoClose: 4000 });
}
