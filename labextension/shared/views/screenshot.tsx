import type { VNode } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import type { Mark } from '../actions';
import type { Api } from '../api';

export interface ScreenshotProps {
  api: Api;
  path: string;
  /** Of the desktop, in its own pixels: marks are in these. */
  width: number;
  height: number;
  mark: Mark | null;
  alt: string;
}

/** A recorded screenshot with the action drawn on it. */
export function Screenshot({ api, path, width, height, mark, alt }: ScreenshotProps): VNode {
  const source = useSource(api, path);
  return (
    <span class="jp-Cambio-screenshot" style={{ aspectRatio: `${width || 1280} / ${height || 800}` }}>
      {source && <img src={source} alt={alt} loading="lazy" decoding="async" draggable={false} />}
      {mark && <Overlay mark={mark} width={width || 1280} height={height || 800} />}
    </span>
  );
}

/** A URL for `path`: the server's own, or an object URL of what a relay brought. */
function useSource(api: Api, path: string): string {
  const [source, setSource] = useState(api.relayed ? '' : api.url(path));
  useEffect(() => {
    if (!api.relayed) {
      setSource(api.url(path));
      return undefined;
    }
    let url = '';
    let gone = false;
    const fetched = api.request('GET', path).then(async response => {
      const blob = await response.blob();
      if (gone) return;
      url = URL.createObjectURL(blob);
      setSource(url);
    });
    fetched.catch(() => setSource('')); // the alternative text stands in
    return () => {
      gone = true;
      if (url) URL.revokeObjectURL(url);
    };
  }, [api, path]);
  return source;
}

export function Overlay({ mark, width, height }: { mark: Mark; width: number; height: number }): VNode {
  const unit = width / 100;
  return (
    <svg class="jp-Cambio-overlay" viewBox={`0 0 ${width} ${height}`} aria-hidden="true">
      <Shape mark={mark} unit={unit} />
    </svg>
  );
}

const DIRECTIONS = new Map<string, [number, number]>([
  ['up', [0, -1]],
  ['down', [0, 1]],
  ['left', [-1, 0]],
  ['right', [1, 0]]
]);

function Shape({ mark, unit }: { mark: Mark; unit: number }): VNode {
  const { x, y } = mark;
  switch (mark.kind) {
    case 'point':
      return (
        <g class="jp-Cambio-mark">
          <circle cx={x} cy={y} r={unit * 2.6} />
          {mark.times > 1 && <circle cx={x} cy={y} r={unit * 3.8} />}
          {mark.times > 2 && <circle cx={x} cy={y} r={unit * 5} />}
          <circle class="jp-Cambio-fill" cx={x} cy={y} r={unit * 0.7} />
        </g>
      );
    case 'line':
      return (
        <g class="jp-Cambio-mark">
          <line x1={x} y1={y} x2={mark.toX} y2={mark.toY} />
          <circle cx={x} cy={y} r={unit} />
          <circle class="jp-Cambio-fill" cx={mark.toX} cy={mark.toY} r={unit * 1.3} />
        </g>
      );
    case 'region':
      return <rect class="jp-Cambio-mark" x={x} y={y} width={Math.abs(mark.toX - x)} height={Math.abs(mark.toY - y)} />;
    case 'scroll': {
      const [dx, dy] = DIRECTIONS.get(mark.direction) ?? [0, 1];
      const tipX = x + (dx ?? 0) * unit * 6;
      const tipY = y + (dy ?? 0) * unit * 6;
      return (
        <g class="jp-Cambio-mark">
          <circle cx={x} cy={y} r={unit * 1.4} />
          <line x1={x} y1={y} x2={tipX} y2={tipY} />
          <circle class="jp-Cambio-fill" cx={tipX} cy={tipY} r={unit * 1.1} />
        </g>
      );
    }
  }
}
