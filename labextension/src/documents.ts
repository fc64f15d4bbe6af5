/** A session's desktop or chat as a tab of the main area. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import { MainAreaWidget, WidgetTracker } from '@jupyterlab/apputils';
import type { ILayoutRestorer } from '@jupyterlab/application';
import { Widget } from '@lumino/widgets';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { Mode } from '../shared/views/panel';
import { address, loadPanel } from './frontend';
import { agentIcon } from './icon';
import { COMMAND, NAMESPACE } from './names';
import type { ISessionContent, SessionTab } from './tokens';

/** Shows the panel while it is attached; a tab that was not opened yet after a reload costs nothing. */
class SessionContent extends Widget implements ISessionContent {
  private unmount: (() => void) | null = null;
  private mounting = false;

  constructor(
    readonly sessionId: string,
    readonly mode: Mode,
    private readonly trans: TranslationBundle
  ) {
    super();
    this.addClass('jp-Cambio-document');
  }

  override dispose(): void {
    this.unmount?.();
    this.unmount = null;
    super.dispose();
  }

  protected override onBeforeShow(): void {
    void this.mount();
  }

  protected override onAfterAttach(): void {
    if (this.isVisible) void this.mount();
  }

  private async mount(): Promise<void> {
    if (this.unmount || this.mounting) return;
    this.mounting = true;
    try {
      const panel = await loadPanel();
      const options = { address: address(), sessionId: this.sessionId, mode: this.mode, height: 0 };
      // An element of its own: the panel sets its height, and the height of the tab's belongs to JupyterLab.
      const element = this.node.appendChild(document.createElement('div'));
      const unmount = await panel.mountPanel(element, options);
      if (this.isDisposed) unmount();
      else this.unmount = unmount;
    } catch (error) {
      this.node.textContent = this.trans.__("The agent's panel could not be loaded from the server (%1).", String(error));
    } finally {
      this.mounting = false;
    }
  }
}

export class Documents {
  readonly tracker = new WidgetTracker<SessionTab>({ namespace: NAMESPACE });

  constructor(
    private readonly app: JupyterFrontEnd,
    private readonly trans: TranslationBundle,
    private readonly nameOf: (id: string) => string
  ) {}

  restore(restorer: ILayoutRestorer): void {
    void restorer.restore(this.tracker, {
      command: COMMAND.desktop,
      args: tab => ({ id: tab.content.sessionId, mode: tab.content.mode }),
      name: tab => `${tab.content.mode}:${tab.content.sessionId}`
    });
  }

  /** The tab of `id` in this mode, brought to the front; made when there is none. */
  open(id: string, mode: Mode, activate = true): SessionTab {
    let tab = this.tracker.find(one => one.content.sessionId === id && one.content.mode === mode);
    if (!tab) {
      tab = this.make(id, mode);
      const beside = mode === 'chat' ? this.tracker.find(one => one.content.sessionId === id) : undefined;
      this.app.shell.add(tab, 'main', beside ? { ref: beside.id, mode: 'split-right' } : {});
      void this.tracker.add(tab);
    }
    if (activate) this.app.shell.activateById(tab.id);
    return tab;
  }

  closeAll(id: string): void {
    for (const tab of this.tracker.filter(one => one.content.sessionId === id)) tab.dispose();
  }

  /** The session of the tab in front, when it is one of ours. */
  get current(): string | undefined {
    return this.tracker.currentWidget?.content.sessionId;
  }

  retitle(): void {
    this.tracker.forEach(tab => this.label(tab));
  }

  private make(id: string, mode: Mode): SessionTab {
    const tab = new MainAreaWidget({ content: new SessionContent(id, mode, this.trans) });
    tab.id = `${NAMESPACE}-${mode}-${id}`;
    tab.toolbar.hide(); // until there is something in it
    tab.title.icon = agentIcon;
    tab.title.closable = true;
    this.label(tab);
    return tab;
  }

  private label(tab: SessionTab): void {
    const name = this.nameOf(tab.content.sessionId);
    tab.title.label = tab.content.mode === 'chat' ? this.trans.__('Chat: %1', name) : name;
    tab.title.caption = this.trans.__('Agent session %1', tab.content.sessionId);
  }
}
