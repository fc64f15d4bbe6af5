/** Experiments that kernels and scripts of this user run: asked for while a view shows them. */

import type { Api, Wall } from './api';
import type { WholeWall } from './schema';

export type Cell = WholeWall['cells'][number];

const RUNNING_MS = 1000;
const RESTING_MS = 5000;

export class Walls {
  list: readonly Wall[] = [];
  whole: ReadonlyMap<string, WholeWall> = new Map();
  loaded = false;
  notice = '';
  private readonly listeners = new Set<() => void>();
  /** Experiments whose cells are on the screen, and how many views show each. */
  private readonly open = new Map<string, number>();
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(readonly api: Api) {}

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    if (this.listeners.size === 1) void this.load();
    return () => {
      this.listeners.delete(listener);
      if (!this.listeners.size) clearTimeout(this.timer);
    };
  }

  /** Keeps the cells of an experiment up to date until the result is called. */
  show(id: string): () => void {
    this.open.set(id, (this.open.get(id) ?? 0) + 1);
    void this.load();
    return () => {
      const left = (this.open.get(id) ?? 1) - 1;
      if (left) this.open.set(id, left);
      else this.open.delete(id);
    };
  }

  async load(): Promise<void> {
    clearTimeout(this.timer);
    try {
      this.list = await this.api.experiments();
      const known = new Set(this.list.map(wall => wall.id));
      const asked = [...this.open.keys()].filter(id => known.has(id) && this.stale(id));
      const found = await Promise.all(asked.map(id => this.api.experiment(id)));
      this.whole = new Map([...[...this.whole].filter(([id]) => known.has(id)), ...found.map(wall => [wall.id, wall] as const)]);
      this.notice = '';
    } catch (error) {
      this.notice = error instanceof Error ? error.message : String(error);
    }
    this.loaded = true;
    for (const listener of [...this.listeners]) listener();
    const wait = this.list.some(wall => !wall.ended) ? RUNNING_MS : RESTING_MS;
    clearTimeout(this.timer);
    if (this.listeners.size) this.timer = setTimeout(() => void this.load(), wait);
  }

  async annotate(id: string, cell: string, change: { tags?: string[]; note?: string }): Promise<void> {
    await this.api.annotateCell(id, { cell, ...change });
    this.whole = new Map([...this.whole].filter(([other]) => other !== id));
    await this.load();
  }

  /** What has ended changes only by hand. */
  private stale(id: string): boolean {
    const before = this.whole.get(id);
    return !before?.ended || before.ended !== this.list.find(wall => wall.id === id)?.ended;
  }
}
