import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';
import type { Roster } from '../shared/roster';
import type { AgentActions } from '../shared/views/agents';
import type { Walls } from '../shared/walls';
import { address, loadAgents, loadPanel } from './frontend';
import { agentIcon } from './icon';

/** The "Agents" side bar. Its list is drawn only while it can be seen. */
export class Sidebar extends Widget {
  private unmount: (() => void) | null = null;

  constructor(
    private readonly trans: TranslationBundle,
    private readonly roster: Promise<Roster>,
    private readonly walls: Promise<Walls>,
    private readonly actions: AgentActions
  ) {
    super();
    this.id = 'cambio-lab-agents';
    this.addClass('jp-Cambio-sidebar');
    this.title.icon = agentIcon;
    const title = trans.__('Agents');
    this.title.caption = title;
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', title);
  }

  protected override onBeforeShow(): void {
    void this.mount();
  }

  protected override onAfterHide(): void {
    this.unmount?.();
    this.unmount = null;
  }

  override dispose(): void {
    this.onAfterHide();
    super.dispose();
  }

  private async mount(): Promise<void> {
    try {
      const [agents, panel, roster, walls] = await Promise.all([loadAgents(), loadPanel(), this.roster, this.walls]);
      await panel.ensureStyle(address());
      if (!this.unmount && this.isVisible) this.unmount = agents.mountAgents(this.node, roster, walls, this.actions);
    } catch (error) {
      this.node.textContent = this.trans.__('The list of agents could not be loaded from the server (%1).', String(error));
    }
  }
}
