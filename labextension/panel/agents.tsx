/** The list of sessions, for JupyterLab's sidebar and status bar. */

import { render } from 'preact';
import { Roster } from '../shared/roster';
import { followTheme } from '../shared/theme';
import { Agents, type AgentActions } from '../shared/views/agents';

export { useTranslation } from '../shared/language';
export { money } from '../shared/text';
export { Roster };

/** Shows the list in `element` until the returned function is called. */
export function mountAgents(element: HTMLElement, roster: Roster, actions: AgentActions): () => void {
  const unfollow = followTheme(element);
  render(<Agents roster={roster} actions={actions} />, element);
  return () => {
    render(null, element);
    unfollow();
  };
}
