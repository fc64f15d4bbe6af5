/** The toolbar of a session's tab: its items come from the settings, where a person can change them. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { createToolbarFactory, IToolbarWidgetRegistry, setToolbar } from '@jupyterlab/apputils';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import { CommandToolbarButton } from '@jupyterlab/ui-components';
import { COMMAND, PLUGIN, TOOLBAR } from './names';
import { IAgents, type SessionTab } from './tokens';

/** Buttons by the names that `schema/toolbar.json` gives them. */
const BUTTONS = {
  desktop: COMMAND.desktop,
  chat: COMMAND.chat,
  stop: COMMAND.stop,
  pause: COMMAND.pause,
  resume: COMMAND.resume,
  insertCode: COMMAND.attach,
  viewRun: COMMAND.view,
  downloadRun: COMMAND.download,
  exportRun: COMMAND.export,
  end: COMMAND.end
};

export const toolbar: JupyterFrontEndPlugin<void> = {
  id: PLUGIN.toolbar,
  description: "The toolbar of an agent session's tab.",
  autoStart: true,
  requires: [IAgents, IToolbarWidgetRegistry, ISettingRegistry],
  optional: [ITranslator],
  activate: (
    app: JupyterFrontEnd,
    agents: IAgents,
    registry: IToolbarWidgetRegistry,
    settings: ISettingRegistry,
    translator: ITranslator | null
  ) => {
    for (const [name, id] of Object.entries(BUTTONS)) {
      // A command alone would mean the session of the tab in front, and a click on a toolbar brings no tab there.
      registry.addFactory<SessionTab>(TOOLBAR.session, name, tab => {
        return new CommandToolbarButton({ commands: app.commands, id, args: { id: tab.content.sessionId } });
      });
    }
    const factory = createToolbarFactory(registry, settings, TOOLBAR.session, PLUGIN.toolbar, translator ?? nullTranslator);
    const equip = (tab: SessionTab): void => {
      setToolbar(tab, factory);
      tab.toolbar.show();
    };
    agents.tabs.forEach(equip);
    agents.tabs.widgetAdded.connect((_, tab) => equip(tab));
  }
};
