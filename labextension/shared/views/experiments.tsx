import type { VNode } from 'preact';
import { useEffect, useReducer, useRef, useState } from 'preact/hooks';
import type { Wall } from '../api';
import { fits } from '../filter';
import { trans } from '../language';
import { money, plain } from '../text';
import type { WholeWall } from '../schema';
import type { Cell, Walls } from '../walls';

const SIGNS: Record<Cell['state'], string> = { success: '✓', failure: '✗', none: '!', running: '…', open: '' };

export interface CellActions {
  /** Opens the run of a cell, or its desktop while it runs. */
  openCell: (id: string, cell: Cell) => void;
}

interface Props {
  walls: Walls;
  words: string;
  actions: CellActions;
}

/** The walls of all experiments: task × model, a cell for each run. */
export function Experiments({ walls, words, actions }: Props): VNode {
  const [, redraw] = useReducer((value: number) => value + 1, 0);
  const [failures, setFailures] = useState(false);
  useEffect(() => walls.subscribe(() => redraw(undefined)), [walls]);
  return (
    <>
      <div class="jp-Cambio-filters">
        <button type="button" class="jp-Cambio-filter" aria-pressed={failures} onClick={() => setFailures(!failures)}>
          {trans.__('Failures only')}
        </button>
      </div>
      {walls.notice && (
        <p class="jp-Cambio-notice" role="status">
          {walls.notice}
        </p>
      )}
      {walls.loaded && !walls.list.length && !walls.notice && (
        <p class="jp-Cambio-empty jp-Cambio-dim">{trans.__('No experiments yet: run one in a notebook or script on this computer.')}</p>
      )}
      <ul class="jp-Cambio-rows">
        {walls.list.map((wall, index) => (
          <ExperimentRow key={wall.id} wall={wall} first={index === 0} walls={walls} words={words} failures={failures} actions={actions} />
        ))}
      </ul>
    </>
  );
}

function ExperimentRow({ wall, first, walls, words, failures, actions }: Props & { wall: Wall; first: boolean; failures: boolean }): VNode {
  const [open, setOpen] = useState(first);
  useEffect(() => (open ? walls.show(wall.id) : undefined), [open, walls, wall.id]);
  const whole = walls.whole.get(wall.id);
  return (
    <li class="jp-Cambio-experiment">
      <button type="button" class="jp-Cambio-experiment-name" aria-expanded={open} onClick={() => setOpen(!open)} title={wall.directory}>
        <span class="jp-Cambio-agent-name">{plain(wall.name)}</span>
        <progress value={wall.done + wall.failed} max={Math.max(1, wall.total)} aria-label={trans.__('Progress of %1', wall.name)} />
        <span class="jp-Cambio-agent-facts jp-Cambio-dim">
          {wall.ended === 'interrupted' ? `${wall.words} (${trans.__('interrupted')})` : wall.words}
        </span>
      </button>
      {open && whole && <Grid wall={whole} words={words} failures={failures} actions={actions} />}
    </li>
  );
}

function Grid({ wall, words, failures, actions }: { wall: WholeWall; words: string; failures: boolean; actions: CellActions }): VNode {
  const shown = wall.cells.filter(
    cell => fits(words, factsOf(wall, cell)) && (!failures || cell.state === 'failure' || cell.state === 'none')
  );
  const columns = [...new Set(wall.cells.map(cell => cell.column))];
  const tasks = [...new Set(shown.map(cell => cell.task))];
  if (!shown.length) return <p class="jp-Cambio-empty jp-Cambio-dim">{trans.__('No matching cells')}</p>;
  return (
    <div class="jp-Cambio-wall">
      <table>
        <thead>
          <tr>
            <th scope="col">{trans.__('Task')}</th>
            {columns.map(column => (
              <th key={column} scope="col">
                {plain(column)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {tasks.map(task => (
            <tr key={task}>
              <th scope="row">{plain(task)}</th>
              {columns.map(column => (
                <td key={column}>
                  {shown
                    .filter(cell => cell.task === task && cell.column === column)
                    .map(cell => (
                      <CellButton key={cell.id} cell={cell} open={() => actions.openCell(wall.id, cell)} />
                    ))}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      <div class="jp-Cambio-wall-live">
        {wall.live
          .filter(item => item.thumbnail)
          .map(item => (
            <img key={item.id} src={`data:image/jpeg;base64,${item.thumbnail}`} alt={trans.__('Desktop of %1', item.id)} title={item.id} />
          ))}
      </div>
    </div>
  );
}

function CellButton({ cell, open }: { cell: Cell; open: () => void }): VNode {
  const label = [
    `${cell.id}: ${cell.state}`,
    plain(cell.reason),
    cell.tags.join(', '),
    plain(cell.note),
    cell.cost_usd ? money(cell.cost_usd) : ''
  ]
    .filter(Boolean)
    .join(' · ');
  const idle = !cell.run && cell.state !== 'running';
  return (
    <button
      type="button"
      class="jp-Cambio-cell"
      data-state={cell.state}
      data-tagged={cell.tags.length > 0 || cell.note !== '' || undefined}
      title={label}
      aria-label={label}
      disabled={idle}
      onClick={open}
    >
      {SIGNS[cell.state]}
    </button>
  );
}

export function factsOf(wall: Wall, cell: Cell): Parameters<typeof fits>[1] {
  const verdict = cell.state === 'success' || cell.state === 'failure' ? cell.state : '';
  const text = `${wall.name} ${cell.id} ${cell.reason} ${cell.note} ${cell.state}`;
  return { text, task: cell.task, model: cell.column, verdict, tags: cell.tags, cost: cell.cost_usd };
}

/** The desktop of a cell while it runs; `done` is called with the cell once it has a run. */
export function LiveCell({ walls, id, cell, done }: { walls: Walls; id: string; cell: string; done: (cell: Cell) => void }): VNode {
  const [, redraw] = useReducer((value: number) => value + 1, 0);
  useEffect(() => {
    const hide = walls.show(id);
    const leave = walls.subscribe(() => redraw(undefined));
    return () => {
      leave();
      hide();
    };
  }, [walls, id]);
  const wall = walls.whole.get(id);
  const now = wall?.cells.find(one => one.id === cell);
  const live = wall?.live.find(one => one.id === cell);
  // Every snapshot of the wall brings new objects: a run is told once.
  const told = useRef('');
  useEffect(() => {
    if (!now?.run || told.current === now.run) return;
    told.current = now.run;
    done(now);
  }, [now, done]);
  return (
    <section class="jp-Cambio-root jp-Cambio-live-cell" aria-label={trans.__('Desktop of %1', cell)}>
      <p class="jp-Cambio-bar">{plain(`${cell}: ${now?.reason || now?.state || ''}`)}</p>
      {live?.thumbnail ? (
        <img src={`data:image/jpeg;base64,${live.thumbnail}`} alt={trans.__('Desktop of %1', cell)} />
      ) : (
        <p class="jp-Cambio-empty jp-Cambio-dim">{trans.__('No image of its desktop yet.')}</p>
      )}
    </section>
  );
}
