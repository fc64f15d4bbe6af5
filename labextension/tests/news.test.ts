import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import './page';
import { announce } from '../src/news';
import type { News, Row } from '../shared/roster';

const row = { id: 's1', name: 'Flights' } as Row;
const approval = { toolUseId: 't1', tool: 'bash', arguments: {}, shown: 'bash ls', expiresAt: 0 };

interface Notices {
  seen: { panel: boolean; list: boolean };
  open: Map<string, string>;
  made: string[];
  tell: (news: News) => void;
  second: () => void;
  end: () => void;
}

function notices(): Notices {
  mock.timers.enable({ apis: ['setInterval'] });
  const seen = { panel: false, list: false };
  const open = new Map<string, string>();
  const made: string[] = [];
  const show = (words: string): string => {
    made.push(words);
    open.set(`n${made.length}`, words);
    return `n${made.length}`;
  };
  let tell: (news: News) => void = () => undefined;
  announce({
    notify: { warning: show, info: show, error: show, dismiss: (id: string) => void open.delete(id) } as never,
    roster: { follow: (reader: typeof tell) => ((tell = reader), () => undefined) } as never,
    trans: { __: (text: string, ...values: string[]) => text.replace('%1', values[0] ?? '') } as never,
    open: () => undefined,
    visible: () => seen.panel,
    listed: () => seen.list,
    told: () => false,
    enabled: () => ({ approvals: true, turns: true })
  });
  return { seen, open, made, tell: (news: News) => tell(news), second: () => mock.timers.tick(1000), end: () => mock.timers.reset() };
}

test('what waits for a person is told as soon as nothing on the screen shows it, and only then', () => {
  const { seen, open, made, tell, second, end } = notices();
  seen.list = true;
  tell({ kind: 'approval', row, approval });
  second();
  assert.equal(made.length, 0, 'the list shows it');
  seen.list = false;
  second();
  assert.deepEqual([...open.values()], ['Flights asks for permission: bash ls']);
  second();
  assert.equal(made.length, 1, 'once; a person may have closed it');
  seen.panel = true;
  second();
  assert.equal(open.size, 0, 'the panel asks');
  seen.panel = false;
  second();
  assert.equal(open.size, 1, 'the panel was left');
  tell({ kind: 'decided', row });
  second();
  assert.deepEqual([open.size, made.length], [0, 2]);
  end();
});
