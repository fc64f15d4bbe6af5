/** The list of sessions, for JupyterLab's sidebar and status bar. */

import { render } from 'preact';
import { Roster } from '../shared/roster';
import { trans } from '../shared/language';
import { followTheme } from '../shared/theme';
import { Agents, type AgentActions } from '../shared/views/agents';
import { Boundary } from '../shared/views/boundary';
import { LiveCell } from '../shared/views/experiments';
import { Walls, type Cell } from '../shared/walls';

export { useTranslation } from '../shared/language';
export { money } from '../shared/text';
export { Roster, Walls };

/** Shows the list in `element` until the returned function is called. */
export function mountAgents(element: HTMLElement, roster: Roster, walls: Walls, actions: AgentActions): () => void {
  const unfollow = followTheme(element);
  render(
    <Boundary what={trans.__('The list of agents')}>
      <Agents roster={roster} walls={walls} actions={actions} />
    </Boundary>,
    element
  );
  return () => {
    render(null, element);
    unfollow();
  };
}

/** Shows the desktop of a cell that runs; `done` is called with the cell once it has a run. */
export function mountCell(element: HTMLElement, walls: Walls, id: string, cell: string, done: (cell: Cell) => void): () => void {
  const unfollow = followTheme(element);
  element.classList.add('jp-Cambio-host');
  render(<LiveCell walls={walls} id={id} cell={cell} done={done} />, element);
  return () => {
    render(null, element);
    unfollow();
  };
}
