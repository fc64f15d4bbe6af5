import type { VNode } from 'preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { describe } from '../actions';
import { align, differs, type Line } from '../align';
import type { RecordedRun, RunStep } from '../bundle';
import { trans } from '../language';
import { outcome } from '../step';
import { plain } from '../text';
import { Button } from './bar';
import { Shot } from './recorded-step';
import { RunHead, Walk } from './run';

/** Two runs aligned step by step: both screenshots of the chosen line, and every line with the first difference marked. */
export function CompareView({ run, other, single }: { run: RecordedRun; other: RecordedRun; single: () => void }): VNode {
  const lines = useMemo(() => align(run, other), [run, other]);
  const first = lines.findIndex(differs);
  const [at, setAt] = useState(Math.max(0, first));
  const line = lines[at];
  const more = (
    <>
      {first < 0 ? (
        <span class="jp-Cambio-dim">{trans.__('Same actions')}</span>
      ) : (
        <button type="button" class="jp-Cambio-link" onClick={() => setAt(first)}>
          {trans.__('First difference: line %1', first + 1)}
        </button>
      )}
      <Button icon="cross" label={trans.__('Close comparison')} onClick={single} />
    </>
  );
  return (
    <Walk name={`${run.name} – ${other.name}`} last={lines.length - 1} at={at} setAt={setAt} more={more}>
      <div class="jp-Cambio-run-columns jp-Cambio-two">
        <Half run={run} step={line?.left ?? null} />
        <Half run={other} step={line?.right ?? null} />
      </div>
      {line && line.tree.length > 0 && (
        <pre class="jp-Cambio-tree" tabIndex={0} aria-label={trans.__('How the pages differ')}>
          {line.tree.map((words, index) => (
            <span key={index} class={words.startsWith('-') ? 'jp-Cambio-gone' : 'jp-Cambio-new'}>
              {`${plain(words)}\n`}
            </span>
          ))}
        </pre>
      )}
      <Lines lines={lines} first={first} at={at} setAt={setAt} />
    </Walk>
  );
}

function Half({ run, step }: { run: RecordedRun; step: RunStep | null }): VNode {
  return (
    <div class="jp-Cambio-run-column">
      <RunHead run={run} />
      {step ? <Shot run={run} step={step} after /> : <p class="jp-Cambio-empty jp-Cambio-dim">{trans.__('This run has no such step.')}</p>}
    </div>
  );
}

interface LinesProps {
  lines: Line[];
  first: number;
  at: number;
  setAt: (at: number) => void;
}

function Lines({ lines, first, at, setAt }: LinesProps): VNode {
  const list = useRef<HTMLOListElement>(null);
  useEffect(() => {
    const line = list.current?.children[at] as HTMLElement | undefined;
    if (line && list.current) list.current.scrollTop = line.offsetTop - list.current.clientHeight / 2;
  }, [at]);
  return (
    <ol class="jp-Cambio-lines" ref={list} tabIndex={0} aria-label={trans.__('Steps of both runs')}>
      {lines.map((line, index) => (
        <li key={index} data-differs={differs(line) || undefined} aria-current={index === at ? 'step' : undefined}>
          {index === first && <span class="jp-Cambio-first">{trans.__('First difference')}</span>}
          <button type="button" class="jp-Cambio-line" onClick={() => setAt(index)}>
            <span>{words(line.left)}</span>
            <span>
              {words(line.right)}
              {line.tree.length > 0 && <span class="jp-Cambio-remark"> {trans.__('another page')}</span>}
            </span>
          </button>
        </li>
      ))}
    </ol>
  );
}

function words(step: RunStep | null): string {
  if (!step) return '–';
  const label = [describe(step.tool, step.arguments, step.text).label, outcome(step.status)].filter(Boolean).join(' – ');
  return `${step.step}. ${step.human ? `${trans.__('A person')}: ` : ''}${label}`;
}
