import './page';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describe } from '../shared/actions';
import { trans, useTranslation } from '../shared/language';
import { explainRefusal } from '../shared/line';
import { statusWords } from '../shared/views/bar';

test('values and counts are filled in without a host, and once: a value is no pattern', () => {
  assert.equal(trans.__('%1 at %2', '%2', 'here'), '%2 at here');
  assert.equal(trans._n('%1 step', '%1 steps', 1), '1 step');
  assert.equal(trans._n('%1 step', '%1 steps', 3), '3 steps');
});

test('what is shown follows a host that comes after the modules were loaded', () => {
  const seen: string[] = [];
  const host = (text: string): string => (seen.push(text), `<${text}>`);
  useTranslation({ __: host, _n: host });
  assert.equal(statusWords('waiting_approval'), '<Waiting for approval>');
  assert.equal(describe('left_click', { coordinate: [1, 2] }).label, '<%1 at %2, %3>');
  assert.equal(explainRefusal(new Response(null, { status: 409 }))?.reason, '<This session has ended.>');
  assert.ok(seen.includes('Click'));
});
