import type { VNode } from 'preact';
import { useEffect, useMemo, useReducer, useState } from 'preact/hooks';
import { fits } from '../filter';
import { trans } from '../language';
import type { Roster, Row } from '../roster';
import { age, money } from '../text';
import type { Cell, Walls } from '../walls';
import { working } from '../working';
import { ApprovalCard } from './approval';
import { QuestionCard } from './question';
import { Button, StatusBadge } from './bar';
import { Experiments, type CellActions } from './experiments';
import { useCountdown, useVisible } from './hooks';

/** What a host (JupyterLab) does when a person asks for it. */
export interface AgentActions extends CellActions {
  create: () => void;
  openDesktop: (id: string) => void;
  openChat: (id: string) => void;
  /** Shows the host's menu for a row, at a place on the page. */
  menu: (id: string, x: number, y: number) => void;
  /** Selects a run to be compared; with the second one both are shown. */
  pair: (id: string) => Promise<void>;
  pairCell: (id: string, cell: Cell) => Promise<void>;
  /** The id of the run, or cell, that is selected; empty when none is. */
  selected: () => string;
}

export type Filter = 'active' | 'working' | 'ended' | 'all' | 'experiments';

const filters = (): [Filter, string][] => [
  ['active', trans.__('Active')],
  ['working', trans.__('In a turn')],
  ['ended', trans.__('Ended')],
  ['all', trans.__('All')],
  ['experiments', trans.__('Experiments')]
];

export function keep(row: Row, filter: Filter, words: string): boolean {
  const listed = filter === 'all' || (filter === 'ended' ? row.ended : !row.ended && (filter === 'active' || working(row.status)));
  const text = `${row.name} ${row.id} ${row.model} ${row.status} ${row.note}`;
  return listed && fits(words, { text, task: '', model: row.model, verdict: '', tags: row.tags, cost: row.cost });
}

export function Agents({ roster, walls, actions }: { roster: Roster; walls: Walls; actions: AgentActions }): VNode {
  const [, redraw] = useReducer((value: number) => value + 1, 0);
  const [filter, setFilter] = useState<Filter>('active');
  const [words, setWords] = useState('');
  const [pairing, setPairing] = useState(false);
  /** While two are chosen, a click selects; with the second one both are shown. */
  const choose = (selected: Promise<void>): void => {
    void selected.then(() => {
      if (!actions.selected()) setPairing(false);
      redraw(undefined);
    });
  };
  const cells = {
    openCell: (id: string, cell: Cell): void => (pairing && cell.run ? choose(actions.pairCell(id, cell)) : actions.openCell(id, cell))
  };
  useEffect(() => roster.subscribe(() => redraw(undefined)), [roster]);
  useEffect(() => {
    const timer = setInterval(() => redraw(undefined), 60_000); // ages
    return () => clearInterval(timer);
  }, []);
  const rows = useMemo(
    () =>
      filter === 'experiments'
        ? []
        : [...roster.rows.values()].filter(row => keep(row, filter, words)).sort((a, b) => b.created.localeCompare(a.created)),
    [roster.rows, filter, words]
  );
  return (
    <section class="jp-Cambio-root jp-Cambio-agents" aria-label={trans.__('Agents')}>
      <div class="jp-Cambio-row jp-Cambio-agents-head">
        <input
          type="search"
          value={words}
          placeholder={trans.__('Name, tag:, cost>0.5')}
          title={trans.__('Words, and task:… model:… verdict:success tag:… cost>0.5 cost<1')}
          aria-label={trans.__('Search sessions')}
          onInput={event => setWords(event.currentTarget.value)}
        />
        <Button icon="plus" label={trans.__('New agent session')} kind="primary" onClick={actions.create} />
      </div>
      <div class="jp-Cambio-filters" role="group" aria-label={trans.__('Filter')}>
        {filters().map(([name, label]) => (
          <button key={name} type="button" class="jp-Cambio-filter" aria-pressed={filter === name} onClick={() => setFilter(name)}>
            {label}
          </button>
        ))}
        <Button icon="columns" label={trans.__('Compare two runs')} pressed={pairing} onClick={() => setPairing(!pairing)} />
      </div>
      <RosterNotice roster={roster} />
      {pairing && (
        <p class="jp-Cambio-notice" role="status">
          {actions.selected() ? trans.__('Now click the second run.') : trans.__('Click the first run to compare.')}
        </p>
      )}
      {filter === 'experiments' && <Experiments walls={walls} words={words} actions={cells} />}
      {filter !== 'experiments' && roster.loaded && rows.length === 0 && <Nothing all={roster.rows.size === 0} create={actions.create} />}
      {filter !== 'experiments' && (
        <ul class="jp-Cambio-rows">
          {rows.map(row => (
            <AgentRow
              key={row.id}
              roster={roster}
              row={row}
              actions={actions}
              choose={pairing ? () => choose(actions.pair(row.id)) : null}
            />
          ))}
        </ul>
      )}
    </section>
  );
}

function Nothing({ all, create }: { all: boolean; create: () => void }): VNode {
  if (!all) return <p class="jp-Cambio-empty jp-Cambio-dim">{trans.__('No matching sessions')}</p>;
  return (
    <div class="jp-Cambio-empty">
      <p>{trans.__('No agents yet. A session is a desktop of its own with an agent that you can talk to.')}</p>
      <Button icon="plus" label={trans.__('New agent session')} kind="primary" wordy onClick={create} />
    </div>
  );
}

function RosterNotice({ roster }: { roster: Roster }): VNode {
  const { phase, reason, retryAt } = roster.connection;
  const left = useCountdown(retryAt);
  const words = phase !== 'open' && !(phase === 'connecting' && !roster.loaded) ? reason : roster.notice;
  return (
    <div role="status">
      {words && (
        <p class="jp-Cambio-notice">
          {words} {left > 0 && trans.__('Next try in %1 s.', left)}
          {phase === 'waiting' && (
            <button type="button" class="jp-Cambio-link" onClick={() => roster.retry()}>
              {trans.__('Try now')}
            </button>
          )}
        </p>
      )}
    </div>
  );
}

function Facts({ row }: { row: Row }): VNode {
  return (
    <>
      <span>
        <StatusBadge status={row.status} text={row.text} />
        <span class="jp-Cambio-dim"> · {age(row.created).replace(' ', '\u00a0')}</span>
      </span>
      <span class="jp-Cambio-agent-facts jp-Cambio-dim">
        {trans._n('%1 step', '%1 steps', row.steps)} · {money(row.cost)}
      </span>
    </>
  );
}

function Starting({ text, fraction }: { text: string; fraction: number | null }): VNode {
  return (
    <>
      <span class="jp-Cambio-agent-facts" title={text}>
        {text}
      </span>
      <progress aria-label={trans.__('Making the desktop')} {...(fraction === null ? {} : { value: fraction })} />
    </>
  );
}

function AgentRow({
  roster,
  row,
  actions,
  choose
}: {
  roster: Roster;
  row: Row;
  actions: AgentActions;
  choose: (() => void) | null;
}): VNode {
  const [element, visible] = useVisible<HTMLLIElement>();
  const live = visible && !row.ended && !row.starting;
  useEffect(() => (live ? roster.watch(row.id) : undefined), [live, roster, row.id]);
  const menu = (event: MouseEvent): void => {
    const { left, bottom } = (event.currentTarget as HTMLElement).getBoundingClientRect();
    actions.menu(row.id, left, bottom);
  };
  return (
    <li class="jp-Cambio-agent" ref={element} data-session-id={row.id} data-status={row.status}>
      <button
        type="button"
        class="jp-Cambio-agent-open"
        disabled={row.starting !== null}
        aria-pressed={choose ? actions.selected() === row.id : undefined}
        onClick={choose ?? (() => actions.openDesktop(row.id))}
        title={choose ? trans.__('Compare %1', row.name) : trans.__('Open the desktop of %1', row.name)}
      >
        <span class="jp-Cambio-thumb">
          {row.thumbnail ? <img src={row.thumbnail} alt="" draggable={false} /> : <span class="jp-Cambio-no-thumb" aria-hidden="true" />}
        </span>
        <span class="jp-Cambio-agent-text">
          <span class="jp-Cambio-agent-name">{row.name}</span>
          {row.tags.length > 0 && (
            <span class="jp-Cambio-tags" title={row.note}>
              {row.tags.join(' · ')}
            </span>
          )}
          {row.starting ? <Starting text={row.text} fraction={row.starting.fraction} /> : <Facts row={row} />}
        </span>
      </button>
      <span class="jp-Cambio-agent-buttons">
        {working(row.status) && (
          <Button icon="stop" label={trans.__('Stop %1', row.name)} kind="danger" onClick={() => roster.command('stop', row.id)} />
        )}
        <Button icon="chat" label={trans.__('Open the chat of %1', row.name)} onClick={() => actions.openChat(row.id)} />
        <button
          type="button"
          class="jp-Cambio-button"
          aria-haspopup="menu"
          aria-label={trans.__('More about %1', row.name)}
          title={trans.__('More')}
          onClick={menu}
        >
          <span aria-hidden="true">⋮</span>
        </button>
      </span>
      {row.approval && <ApprovalCard approval={row.approval} decide={(approve, shown) => roster.decide(approve, row.id, shown)} />}
      {row.question && <QuestionCard question={row.question} answer={(text, shown) => roster.answer(text, row.id, shown)} />}
    </li>
  );
}
