"""The descriptions as one HTML page: no script, no outside resource, readable without a network."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from markdown_it import MarkdownIt

Json = dict[str, Any]
SHOWN = ("type", "enum", "format", "minimum", "maximum", "pattern")
METHODS = ("get", "post", "put", "patch", "delete")
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h2 { margin-top: 3rem; border-bottom: 1px solid #ccc; } h3 { margin-bottom: .2rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { background: #f6f6f6; padding: .6rem; overflow: auto; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; }
.method { display: inline-block; min-width: 4.2rem; font-weight: 700; } details { margin: .3rem 0 1rem; }
@media (prefers-color-scheme: dark) {
  body { background: #181818; color: #ddd; } pre { background: #252525; } a { color: #8ab4f8; }
}
"""


def render(rest: Json, sockets: Json) -> str:
    """The page for an OpenAPI and an AsyncAPI document."""
    parts = [
        _operation(rest, path, method) for path, item in rest["paths"].items() for method in METHODS if method in item
    ]
    channels = [_channel(sockets, channel) for channel in sockets["channels"].values()]
    schemas = [_schema(name, schema) for name, schema in rest["components"]["schemas"].items()]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>cambio_lab API</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{STYLE}</style></head><body><h1>cambio_lab API</h1>{_text(rest['info']['description'])}"
        '<p>As files: <a href="openapi.yaml">openapi.yaml</a>, <a href="asyncapi.yaml">asyncapi.yaml</a>.</p>'
        f"<h2>REST</h2>{''.join(parts)}<h2>WebSockets</h2>{_text(sockets['info']['description'])}{''.join(channels)}"
        f"<h2>Schemas</h2>{''.join(schemas)}</body></html>"
    )


def _text(markdown: str) -> str:
    # The descriptions are ours, and still HTML in them stays text.
    return str(MarkdownIt("commonmark", {"html": False}).render(markdown or ""))


def _resolve(document: Json, value: Json) -> Json:
    if "$ref" not in value:
        return value
    found: Any = document
    for part in value["$ref"].removeprefix("#/").split("/"):
        found = found[part.replace("~1", "/")]
    return _resolve(document, found)


def _operation(document: Json, path: str, method: str) -> str:
    item = document["paths"][path]
    operation = item[method]
    parameters = [_resolve(document, one) for one in (*item.get("parameters", ()), *operation.get("parameters", ()))]
    rows = "".join(
        f"<tr><td>{_code(one['name'])}</td><td>{escape(one['in'])}</td>"
        f"<td>{_text(one.get('description', ''))}</td><td>{_code(_short(one['schema']))}</td></tr>"
        for one in parameters
    )
    answers = "".join(
        f"<tr><td>{_code(code)}</td><td>{escape(_resolve(document, answer)['description'])}</td></tr>"
        for code, answer in operation["responses"].items()
    )
    body = operation.get("requestBody", {}).get("content", {})
    sent = "".join(f"<p>Body: {_code(kind)} {_link(media.get('schema', {}))}</p>" for kind, media in body.items())
    name = escape(operation["operationId"])
    table = f"<table>{rows}</table>" if rows else ""
    return (
        f'<h3 id="{name}"><span class="method">{method.upper()}</span> {_code(path)}</h3>'
        f"<p>{escape(operation['summary'])}</p>{_text(operation.get('description', ''))}{table}{sent}"
        f"<details><summary>Answers</summary><table>{answers}</table></details>"
    )


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _short(schema: Json) -> str:
    kept = {key: value for key, value in schema.items() if key in SHOWN}
    return str(schema.get("$ref", "")).rpartition("/")[2] or json.dumps(kept, ensure_ascii=False)


def _link(schema: Json) -> str:
    name = schema.get("$ref", "").rpartition("/")[2]
    return f'<a href="#schema-{escape(name)}">{escape(name)}</a>' if name else escape(_short(schema))


def _channel(document: Json, channel: Json) -> str:
    messages = [(name, _resolve(document, message)) for name, message in channel["messages"].items()]
    listed = "".join(
        f"<h4>{_code(name)}</h4><p>{escape(message.get('summary', ''))}</p>{_text(message.get('description', ''))}"
        f"<details><summary>Payload</summary><pre>{escape(json.dumps(message['payload'], indent=2))}</pre></details>"
        for name, message in messages
    )
    return f"<h3><code>{escape(channel['address'])}</code></h3>{_text(channel.get('description', ''))}{listed}"


def _schema(name: str, schema: Json) -> str:
    return (
        f'<h3 id="schema-{escape(name)}"><code>{escape(name)}</code></h3>'
        f"<pre>{escape(json.dumps(schema, indent=2, ensure_ascii=False))}</pre>"
    )
