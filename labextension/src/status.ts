import { Signal } from '@lumino/signaling';
import { Widget } from '@lumino/widgets';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { Roster } from '../shared/roster';
import { money } from '../shared/text';
import { agentIcon } from './icon';

const BUSY = ['thinking', 'acting'];

/** "2 agents working · $0.42" in the status bar; a click shows the list. */
export class StatusItem extends Widget {
  private readonly button = document.createElement('button');
  private readonly words = document.createElement('span');
  /** Whether there is anything to tell. */
  active = false;
  readonly activeChanged = new Signal<this, void>(this);

  constructor(
    private readonly trans: TranslationBundle,
    show: () => void
  ) {
    super();
    this.addClass('jp-Cambio-statusbar');
    this.button.type = 'button';
    this.button.onclick = show;
    agentIcon.element({ container: this.button, stylesheet: 'statusBar' });
    this.button.append(this.words);
    this.node.append(this.button);
  }

  refresh(roster: Roster): void {
    const rows = [...roster.rows.values()].filter(row => !row.ended);
    const busy = rows.filter(row => BUSY.includes(row.status)).length;
    const waiting = rows.filter(row => row.status === 'waiting_approval').length;
    const paused = rows.filter(row => row.status === 'paused').length;
    const spent = rows.reduce((sum, row) => sum + row.cost, 0);
    const parts = [this.trans._n('%1 agent', '%1 agents', rows.length, rows.length)];
    if (busy) parts.push(this.trans.__('%1 working', busy));
    if (waiting) parts.push(this.trans.__('%1 waiting', waiting));
    if (paused) parts.push(this.trans.__('%1 paused', paused));
    parts.push(money(spent));
    this.words.textContent = parts.join(' · ');
    this.button.setAttribute('aria-label', `${this.trans.__('Agents')}: ${parts.join(', ')}`);
    if (this.active === rows.length > 0) return;
    this.active = rows.length > 0;
    this.activeChanged.emit();
  }
}
