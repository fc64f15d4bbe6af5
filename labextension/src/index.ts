/** The JupyterLab plugins: agents (sidebar, tabs, commands, notifications) and recorded runs. */

import { ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette, Notification, showErrorMessage } from '@jupyterlab/apputils';
import { ILauncher } from '@jupyterlab/launcher';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator, nullTranslator, type TranslationBundle } from '@jupyterlab/translation';
import type { Translations } from '../shared/language';
import { onOpen } from '../shared/open';
import type { Walls } from '../shared/walls';
import type { Roster } from '../shared/roster';
import type { AgentActions } from '../shared/views/agents';
import { working } from '../shared/working';
import { addCommands } from './commands';
import type { Defaults } from './dialogs';
import { Documents } from './documents';
import { address, loadAgents, loadPanel } from './frontend';
import { COMMAND, NAMESPACE, PLUGIN, SELECTOR } from './names';
import { announce } from './news';
import { runs } from './runs';
import { Sidebar } from './sidebar';
import { Records } from './records';
import { StatusItem } from './status';
import { IAgents } from './tokens';
import { toolbar } from './toolbar';

export { IAgents };

interface Preferences extends Defaults {
  approvals: boolean;
  turns: boolean;
  statusBar: boolean;
}

const PREFERENCES: Preferences = { model: '', approval: '', maxSteps: 0, maxCostUsd: 0, approvals: true, turns: true, statusBar: true };

const agents: JupyterFrontEndPlugin<IAgents> = {
  id: PLUGIN.agents,
  description: 'Agents with desktops of their own: list, tabs, notifications.',
  autoStart: true,
  provides: IAgents,
  optional: [ICommandPalette, ILauncher, ILayoutRestorer, ISettingRegistry, IStatusBar, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    palette: ICommandPalette | null,
    launcher: ILauncher | null,
    restorer: ILayoutRestorer | null,
    registry: ISettingRegistry | null,
    statusBar: IStatusBar | null,
    translator: ITranslator | null
  ) => {
    const trans = (translator ?? nullTranslator).load('cambio_lab');
    const preferences = { ...PREFERENCES };
    const roster = loadRoster(app, trans);
    const records = new Records(app, trans);
    let list: Roster | undefined;
    const documents = new Documents(app, trans, id => list?.rows.get(id)?.name ?? id.slice(0, 8));
    const { commands } = app;
    const actions: AgentActions = {
      create: () => void commands.execute(COMMAND.create),
      openDesktop: id => void commands.execute(COMMAND.desktop, { id }),
      openChat: id => void commands.execute(COMMAND.chat, { id }),
      menu: (id, x, y) => openMenu(id, x, y),
      pair: id => commands.execute(COMMAND.pair, { id }).then(() => undefined),
      pairCell: (id, cell) => walls.then(found => records.compareCell(found, id, cell)),
      openCell: (id, cell) => void walls.then(found => records.viewCell(found, id, cell)),
      selected: () => records.selected
    };
    const walls = roster.then(async loaded => new (await loadAgents()).Walls(loaded.api));
    onCell((id, cell) => void walls.then(found => openCell(trans, found, records, id, cell)));
    const sidebar = new Sidebar(trans, roster, walls, actions);
    app.shell.add(sidebar, 'left', { rank: 450 });
    const showList = (): void => app.shell.activateById(sidebar.id);
    addCommands({ app, trans, documents, roster, defaults: () => preferences, showList, records });
    restorer?.add(sidebar, sidebar.id);
    if (restorer) documents.restore(restorer);
    launcher?.add({ command: COMMAND.create, category: trans.__('Other'), rank: 10 });
    addToPalette(palette, trans);
    void readSettings(registry, preferences);

    const item = new StatusItem(trans, showList);
    statusBar?.registerStatusItem('cambio-lab:agents', {
      item,
      align: 'left',
      rank: 30,
      isActive: () => preferences.statusBar && item.active,
      activeStateChanged: item.activeChanged
    });
    const visible = (id: string): boolean => isShown(`.jp-Cambio-panel[data-session="${CSS.escape(id)}"]`);
    const listed = (id: string): boolean => isShown(`${SELECTOR}[data-session-id="${CSS.escape(id)}"]`);
    const told = (name: string): boolean => isShown('.cambio-record', record => record.querySelector('strong')?.textContent === name);
    onOpen(({ kind, id }) => {
      if (kind === 'run') void roster.then(loaded => records.viewRun(id, loaded));
      else void roster.then(loaded => loaded.load()).then(() => actions.openDesktop(id));
    });
    void roster.then(loaded => {
      list = loaded;
      announce({
        notify: Notification,
        roster: loaded,
        trans,
        open: actions.openDesktop,
        visible,
        listed,
        told,
        enabled: () => preferences
      });
      let known = '';
      const refresh = (): void => {
        item.refresh(loaded);
        documents.retitle();
        const states = [...loaded.rows.values()].map(row => [row.id, working(row.status), row.status === 'paused', row.ended]).join();
        if (states !== known) commands.notifyCommandChanged(); // buttons of toolbars rest and wake with their sessions
        known = states;
      };
      loaded.subscribe(refresh);
      refresh();
    });
    return { tabs: documents.tracker, roster, open: (id, mode = 'panel') => documents.open(id, mode) };
  }
};

/** Calls `open` when a cell of an experiment's grid in a notebook is clicked. */
function onCell(open: (id: string, cell: string) => void): void {
  document.addEventListener(
    'click',
    event => {
      const cell = (event.target as Element | null)?.closest<HTMLElement>('[data-cambio-cell]')?.dataset['cambioCell'];
      const id = (event.target as Element | null)?.closest<HTMLElement>('[data-cambio-experiment]')?.dataset['cambioExperiment'];
      if (!cell || !id) return;
      event.preventDefault();
      event.stopPropagation();
      open(id, cell);
    },
    true
  );
}

/** Opens the run of a cell wherever the experiment's folder lies, or the desktop that it runs on. */
async function openCell(trans: TranslationBundle, walls: Walls, records: Records, id: string, cell: string): Promise<void> {
  try {
    const found = (await walls.api.experiment(id)).cells.find(one => one.id === cell);
    if (found) records.viewCell(walls, id, found);
  } catch (error) {
    await showErrorMessage(trans.__('The run could not be opened'), error as Error);
  }
}

/** Whether such an element is on the screen. */
function isShown(selector: string, fits: (element: Element) => boolean = () => true): boolean {
  return (
    !document.hidden &&
    [...document.querySelectorAll(selector)].some(element => {
      const box = element.getBoundingClientRect();
      return box.width > 0 && box.bottom > 0 && box.top < innerHeight && fits(element);
    })
  );
}

/** The list of sessions, once the page is up: nothing of ours delays JupyterLab's own start. */
async function loadRoster(app: JupyterFrontEnd, trans: TranslationBundle): Promise<Roster> {
  await app.started;
  const [module, panel] = await Promise.all([loadAgents(), loadPanel()]);
  // JupyterLab puts the count in front of the values, except where no plural forms are known.
  /* eslint-disable no-restricted-syntax -- hands on what the views collect */
  const host: Translations = { __: (...words) => trans.__(...words), _n: (one, many, count) => trans._n(one, many, count, count) };
  /* eslint-enable no-restricted-syntax */
  module.useTranslation(host);
  panel.useTranslation(host);
  void panel.ensureStyle(address()); // so that the list, or a panel, opens without a wait
  return new module.Roster(address());
}

/** The application's own context menu, from a row's button (so also from the keyboard). */
function openMenu(id: string, x: number, y: number): void {
  const row = document.querySelector(`${SELECTOR}[data-session-id="${CSS.escape(id)}"]`);
  row?.dispatchEvent(new MouseEvent('contextmenu', { bubbles: true, cancelable: true, clientX: x, clientY: y, detail: 1 }));
}

function addToPalette(palette: ICommandPalette | null, trans: TranslationBundle): void {
  const category = trans.__('Agents');
  for (const command of [
    COMMAND.create,
    COMMAND.open,
    COMMAND.stopAll,
    COMMAND.focus,
    COMMAND.stop,
    COMMAND.pause,
    COMMAND.resume,
    COMMAND.chat
  ]) {
    palette?.addItem({ command, category, args: { isPalette: true } });
  }
}

async function readSettings(registry: ISettingRegistry | null, preferences: Preferences): Promise<void> {
  if (!registry) return;
  try {
    const settings = await registry.load(PLUGIN.agents);
    const apply = (): void => void Object.assign(preferences, settings.composite);
    settings.changed.connect(apply);
    apply();
  } catch (error) {
    console.warn(`${NAMESPACE}: settings could not be read`, error);
  }
}

export default [agents, toolbar, ...runs];
