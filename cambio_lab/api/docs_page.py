"""The descriptions as one HTML page: no script, no outside resource, readable without a network."""

from __future__ import annotations

import json
from typing import Any

from jinja2 import Environment
from markdown_it import MarkdownIt
from markupsafe import Markup

Json = dict[str, Any]
SHOWN = ("type", "enum", "format", "minimum", "maximum", "pattern")
METHODS = ("get", "post", "put", "patch", "delete")
TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>cambio_lab API</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>
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
</style></head><body><h1>cambio_lab API</h1>{{ rest.info.description|markdown }}
<p>As files: <a href="openapi.yaml">openapi.yaml</a>, <a href="asyncapi.yaml">asyncapi.yaml</a>.</p>
<h2>REST</h2>
{% for path, item in rest.paths.items() %}{% for method in methods if method in item %}{% set op = item[method] %}
<h3 id="{{ op.operationId }}"><span class="method">{{ method|upper }}</span> <code>{{ path }}</code></h3>
<p>{{ op.summary }}</p>{{ op.description|markdown }}
{% for part in (item.parameters or []) + (op.parameters or []) %}{% set one = resolve(rest, part) %}
{% if loop.first %}<table>{% endif %}<tr><td><code>{{ one.name }}</code></td><td>{{ one["in"] }}</td>
<td>{{ one.description|markdown }}</td><td><code>{{ one.schema|short }}</code></td></tr>
{% if loop.last %}</table>{% endif %}{% endfor %}
{% for kind, media in (op.requestBody.content.items() if op.requestBody else ()) %}<p>Body: <code>{{ kind }}</code>
{% set name = media.schema|short %}{% if media.schema and "$ref" in media.schema %}<a href="#schema-{{ name }}">
{{- name }}</a>{% endif %}</p>{% endfor %}
<details><summary>Answers</summary><table>
{% for code, answer in op.responses.items() %}<tr><td><code>{{ code }}</code></td>
<td>{{ resolve(rest, answer).description }}</td></tr>{% endfor %}
</table></details>{% endfor %}{% endfor %}
<h2>WebSockets</h2>{{ sockets.info.description|markdown }}
{% for channel in sockets.channels.values() %}
<h3><code>{{ channel.address }}</code></h3>{{ channel.description|markdown }}
{% for name, part in channel.messages.items() %}{% set message = resolve(sockets, part) %}
<h4><code>{{ name }}</code></h4><p>{{ message.summary }}</p>{{ message.description|markdown }}
<details><summary>Payload</summary><pre>{{ message.payload|pretty }}</pre></details>{% endfor %}{% endfor %}
<h2>Schemas</h2>
{% for name, schema in rest.components.schemas.items() %}
<h3 id="schema-{{ name }}"><code>{{ name }}</code></h3><pre>{{ schema|pretty }}</pre>{% endfor %}
</body></html>"""


def render(rest: Json, sockets: Json) -> str:
    """The page for an OpenAPI and an AsyncAPI document."""
    environment = Environment(autoescape=True)
    environment.filters |= {"markdown": _markdown, "short": _short, "pretty": _pretty}
    page = environment.from_string(TEMPLATE)
    return page.render(rest=rest, sockets=sockets, methods=METHODS, resolve=_resolve)


def _markdown(text: str) -> Markup:
    # The descriptions are ours, and still HTML in them stays text.
    return Markup(MarkdownIt("commonmark", {"html": False}).render(text or ""))


def _resolve(document: Json, value: Json) -> Json:
    if "$ref" not in value:
        return value
    found: Any = document
    for part in value["$ref"].removeprefix("#/").split("/"):
        found = found[part.replace("~1", "/")]
    return _resolve(document, found)


def _short(schema: Json | None) -> str:
    kept = {key: value for key, value in (schema or {}).items() if key in SHOWN}
    return str((schema or {}).get("$ref", "")).rpartition("/")[2] or json.dumps(kept, ensure_ascii=False)


def _pretty(schema: Json) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False)
