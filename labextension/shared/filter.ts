/** Words that choose runs: plain ones, and `task:` `model:` `verdict:` `tag:` `cost>` `cost<`. */

export interface Facts {
  /** What plain words are looked for in. */
  text: string;
  task: string;
  model: string;
  /** `success`, `failure`, or empty. */
  verdict: string;
  tags: readonly string[];
  cost: number;
}

export function fits(words: string, facts: Facts): boolean {
  return words
    .toLowerCase()
    .split(/\s+/)
    .every(word => one(word, facts));
}

function one(word: string, facts: Facts): boolean {
  const cost = /^cost([<>])\$?(\d*\.?\d+)$/.exec(word);
  if (cost) return cost[1] === '>' ? facts.cost > Number(cost[2]) : facts.cost < Number(cost[2]);
  const [name, value] = /^(task|model|verdict|tag):(.*)$/.exec(word)?.slice(1) ?? ['', ''];
  if (name === 'tag') return facts.tags.some(tag => tag.toLowerCase().includes(value ?? ''));
  if (name === 'task' || name === 'model' || name === 'verdict') return facts[name].toLowerCase().includes(value ?? '');
  return `${facts.text} ${facts.tags.join(' ')}`.toLowerCase().includes(word);
}
