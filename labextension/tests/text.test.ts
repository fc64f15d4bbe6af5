import assert from 'node:assert/strict';
import { test } from 'node:test';
import { age, count, duration, escapeInvisible, money, plain, shorten } from '../shared/text';

test('terminal escapes, control characters and reordering marks are removed, words and emoji stay', () => {
  assert.equal(plain('\u001b[31mred\u001b[0m \u001b]8;;http://evil\u0007link\u001b]8;;\u0007'), 'red link');
  assert.equal(plain('\u001b]0;title\u001b\\ok \u009b2Jdone\u0000\u0008'), 'ok done');
  assert.equal(plain('abc\u202etxt.exe\u2066'), 'abctxt.exe');
  assert.equal(plain('äöß€漢字🙂 👩‍💻\ttab\r\nnew\rline'), 'äöß€漢字🙂 👩‍💻\ttab\nnew\nline');
});

test('a megabyte of hostile escapes is cleaned within a second', () => {
  const hostile = '\u001b['.repeat(250_000) + '\u001b]'.repeat(250_000);
  const begin = performance.now();
  plain(hostile);
  plain('\u001b[' + '1;'.repeat(500_000));
  assert.ok(performance.now() - begin < 1000, `${performance.now() - begin} ms`);
});

test('shortening never cuts a character in two', () => {
  assert.equal(shorten('12345', 5), '12345');
  assert.equal(shorten('123456', 5), '1234…');
  assert.equal(shorten('ab🙂cd', 4), 'ab…');
});

test('figures for people', () => {
  assert.deepEqual([money(0), money(0.0123), money(1.5)], ['$0', '$0.0123', '$1.50']);
  assert.deepEqual([count(950), count(12_345), count(234_567), count(2_500_000)], ['950', '12.3k', '235k', '2.5M']);
  assert.deepEqual([duration(12.4), duration(2340), duration(75_000)], ['12 ms', '2.3 s', '1 min 15 s']);
  const now = Date.parse('2024-01-15T10:30:00Z');
  assert.equal(age('2024-01-15T10:29:40Z', now), 'now');
  assert.equal(age('2024-01-15T08:00:00Z', now), '2 h');
  assert.equal(age('nonsense', now), '');
});

test('every invisible or reordering character of a call is shown as its code', () => {
  assert.equal(
    escapeInvisible('rm\u202e x\u200b\u00a0y\u0000\ue000\u3164\u{e0041}'),
    'rm\\u{202e} x\\u{200b}\\u{a0}y\\u{0}\\u{e000}\\u{3164}\\u{e0041}'
  );
  assert.equal(escapeInvisible('a\tb\r\nc'), 'a\\tb\\u{d}\nc');
  assert.equal(escapeInvisible('äöß 漢字 🙂'), 'äöß 漢字 🙂');
});
