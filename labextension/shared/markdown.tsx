/**
 * Markdown of an untrusted author as elements. marked only cuts the text into tokens; elements are made here, from a
 * closed list, with text as text nodes. No HTML is ever parsed, so there is nothing to sanitise afterwards.
 */

import { lexer, type Token, type Tokens } from 'marked';
import type { ComponentChildren, VNode } from 'preact';
import { useMemo, useState } from 'preact/hooks';
import { trans } from './language';
import { plain } from './text';

/** Characters that are formatted; the rest of a longer text is shown as it is, on request. */
const FORMATTED = 12_000;
const SLICE = 8_000;
const DEEPEST = 12;

/** `href` when it leads to a web page or a mail address, else null. */
export function safeLink(href: string): string | null {
  try {
    const url = new URL(href);
    return ['https:', 'http:', 'mailto:'].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

export function Markdown({ text }: { text: string }): VNode {
  const [whole, setWhole] = useState(false);
  // Only the beginning is looked at, so that a long text costs no more with every piece that is added to it.
  const start = text.length > FORMATTED ? breakBefore(text, FORMATTED) : text.length;
  const head = text.slice(0, start);
  const formatted = useMemo(() => format(plain(head)), [head]);
  const left = text.length - start;
  return (
    <div class="jp-Cambio-markdown">
      {formatted}
      {left > 0 && !whole && (
        <button type="button" class="jp-Cambio-link" onClick={() => setWhole(true)}>
          {trans.__('Show the rest as plain text (%1 KB)', Math.ceil(left / 1000))}
        </button>
      )}
      {left > 0 && whole && <Rest text={text.slice(start)} />}
    </div>
  );
}

function Rest({ text }: { text: string }): VNode {
  const slices = useMemo(() => sliced(plain(text)), [text]);
  return (
    <pre class="jp-Cambio-rest" tabIndex={0}>
      {slices.map((slice, index) => (
        <span key={index}>{slice}</span>
      ))}
    </pre>
  );
}

/** Pieces that the browser lays out only when they come into sight. */
function sliced(text: string): string[] {
  const found: string[] = [];
  for (let at = 0; at < text.length;) {
    let end = at + SLICE >= text.length ? text.length : breakBefore(text, at + SLICE, at) + 1;
    if (/[\ud800-\udbff]/.test(text.charAt(end - 1))) end += 1; // the first half of a character
    found.push(text.slice(at, end));
    at = end;
  }
  return found;
}

/** The last line break (else blank) in the second half of `from` to `limit`, or `limit` itself when there is none. */
function breakBefore(text: string, limit: number, from = 0): number {
  const half = from + (limit - from) / 2;
  const line = text.lastIndexOf('\n', limit);
  if (line > half) return line;
  const blank = text.lastIndexOf(' ', limit);
  return blank > half ? blank : limit;
}

function format(text: string): ComponentChildren {
  try {
    return blocks(lexer(text), 0);
  } catch {
    return <pre>{text}</pre>; // marked gives up on absurd nesting: the words still count
  }
}

function blocks(tokens: Token[] | undefined, depth: number): ComponentChildren[] {
  return (tokens ?? []).map((token, index) => <Block key={index} token={token} depth={depth} />);
}

function Block({ token, depth }: { token: Token; depth: number }): VNode | null {
  if (depth > DEEPEST) return <>{token.raw}</>;
  switch (token.type) {
    case 'space':
    case 'def':
      return null;
    case 'heading': {
      const Heading = `h${Math.min(6, (token as Tokens.Heading).depth + 2)}` as 'h3';
      return <Heading>{inlines(token.tokens, depth)}</Heading>;
    }
    case 'code':
      return (
        <pre tabIndex={0}>
          <code>{(token as Tokens.Code).text}</code>
        </pre>
      );
    case 'blockquote':
      return <blockquote>{blocks(token.tokens, depth + 1)}</blockquote>;
    case 'hr':
      return <hr />;
    case 'list':
      return <List list={token as Tokens.List} depth={depth} />;
    case 'table':
      return <Table table={token as Tokens.Table} depth={depth} />;
    case 'paragraph':
      return <p>{inlines(token.tokens, depth)}</p>;
    case 'text':
      return <>{token.tokens ? inlines(token.tokens, depth) : (token as Tokens.Text).text}</>;
    default:
      return <p>{token.raw}</p>; // HTML and whatever marked learns next: shown, never run
  }
}

function List({ list, depth }: { list: Tokens.List; depth: number }): VNode {
  const items = list.items.map((item, index) => (
    <li key={index}>
      {item.task && (item.checked ? '☑ ' : '☐ ')}
      {blocks(
        item.tokens.filter(token => token.type !== 'checkbox'),
        depth + 1
      )}
    </li>
  ));
  return list.ordered ? <ol start={Number(list.start) || 1}>{items}</ol> : <ul>{items}</ul>;
}

function Table({ table, depth }: { table: Tokens.Table; depth: number }): VNode {
  return (
    <div class="jp-Cambio-table" tabIndex={0} role="group" aria-label={trans.__('Table')}>
      <table>
        <thead>
          <tr>
            {table.header.map((cell, index) => (
              <th key={index}>{inlines(cell.tokens, depth)}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {table.rows.map((row, index) => (
            <tr key={index}>
              {row.map((cell, column) => (
                <td key={column}>{inlines(cell.tokens, depth)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function inlines(tokens: Token[] | undefined, depth: number): ComponentChildren[] {
  return (tokens ?? []).map((token, index) => inline(token, depth + 1, index));
}

function inline(token: Token, depth: number, key: number): ComponentChildren {
  if (depth > DEEPEST) return token.raw;
  const children = (token as Tokens.Generic).tokens;
  const inner = (): ComponentChildren[] => inlines(children, depth);
  switch (token.type) {
    case 'strong':
      return <strong key={key}>{inner()}</strong>;
    case 'em':
      return <em key={key}>{inner()}</em>;
    case 'del':
      return <del key={key}>{inner()}</del>;
    case 'codespan':
      return <code key={key}>{(token as Tokens.Codespan).text}</code>;
    case 'br':
      return <br key={key} />;
    case 'link':
      return link(token as Tokens.Link, inner(), key);
    case 'image':
      // A remote image would tell its host that, and what, is read here: its description will do.
      return <em key={key}>{(token as Tokens.Image).text || trans.__('image')}</em>;
    case 'text':
    case 'escape':
      return children ? inner() : (token as Tokens.Text).text;
    default:
      return token.raw;
  }
}

function link(token: Tokens.Link, inner: ComponentChildren, key: number): ComponentChildren {
  const href = safeLink(token.href);
  if (!href) return <span key={key}>{inner}</span>;
  return (
    <a key={key} href={href} target="_blank" rel="noopener noreferrer nofollow" title={href}>
      {inner}
    </a>
  );
}
