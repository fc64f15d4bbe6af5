"""What a browser loads: the viewer's page, front-end modules, the API's description and its rendered page."""

from __future__ import annotations

import asyncio
import html
import json
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup
from tornado.web import StaticFileHandler

from .base import Guarded
from .failure import Refused
from .rest import Rest

Json = dict[str, Any]
PACKAGE = Path(__file__).resolve().parent.parent
STATIC = PACKAGE / "static"
HERE = Path(__file__).resolve().parent
VIEWER_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""``style-src`` has 'unsafe-inline' because views are sized with style attributes."""
FRAME_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""For the document that draws a desktop: no origin, no network. It is one file: it has no cookies to ask with."""
DOCS_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_VIEWER = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>cambio_lab</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{static}viewer.css">
</head>
<body>
<noscript>This page shows a live desktop and needs JavaScript.</noscript>
<script id="cambio-config" type="application/json">{config}</script>
<script type="module" src="{static}viewer.js"></script>
</body>
</html>
"""

_SHOWN = ("type", "enum", "format", "minimum", "maximum", "pattern")
_METHODS = ("get", "post", "put", "patch", "delete")
_DOCS = """<!doctype html>
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


def viewer(handler: Guarded, session_id: str) -> None:
    """Answer with the page that shows one desktop."""
    if not (STATIC / "viewer.js").exists():
        raise Refused(503, "The front end is not built. Run: npm --prefix labextension install && make setup")
    config = {
        "base_url": handler.url(),
        "session_id": session_id,
        "ws_path": handler.url("ws", session_id),
        "vnc_path": handler.url("vnc", session_id),
    }
    # The page may be opened without having seen the cookie that its own requests must echo.
    handler.xsrf_token  # noqa: B018
    handler.set_header("Content-Security-Policy", VIEWER_POLICY)
    handler.set_header("Content-Type", "text/html; charset=utf-8")
    text = json.dumps(config).replace("<", "\\u003c")
    handler.finish(_VIEWER.format(static=html.escape(handler.url("cambio", "static", "")), config=text))


class Static(Guarded, StaticFileHandler):
    """``/cambio/static/{path}``: built modules. They hold no secrets, and a login page must be able to load them."""

    public = True
    limits = ()

    def initialize(self, endpoint: str = "unknown") -> None:  # type: ignore[override]
        Guarded.initialize(self, endpoint)
        StaticFileHandler.initialize(self, str(STATIC))

    def set_extra_headers(self, path: str) -> None:
        """Checked again on each use (an ETag answers cheaply), so that an upgrade is seen at once."""
        self.set_header("Cache-Control", "no-cache")
        if path == "frame.html":
            self.set_header("Content-Security-Policy", FRAME_POLICY)

    def get_content_type(self) -> str:
        """Browsers refuse modules that are not called JavaScript, and not every system knows ``.mjs``."""
        kinds = {".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".wasm": "application/wasm"}
        suffix = Path(self.absolute_path or "").suffix
        return f"{kinds[suffix]}; charset=utf-8" if suffix in kinds else str(super().get_content_type())


class Description(Rest):
    """``/cambio/openapi.yaml`` and ``/cambio/asyncapi.yaml``"""

    public = True

    async def get(self, name: str) -> None:
        self.set_header("Content-Type", "application/yaml; charset=utf-8")
        self.finish(await asyncio.to_thread(_description, name, self.url().rstrip("/") or "/"))


class Docs(Rest):
    """``/cambio/docs``: both descriptions as one page without scripts or outside resources."""

    public = True

    async def get(self) -> None:
        self.set_header("Content-Security-Policy", DOCS_POLICY)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(await asyncio.to_thread(_docs))


@cache
def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _description(name: str, base: str) -> str:
    return _text(name).replace("url: /\n", f"url: {base}\n", 1)


@cache
def _docs() -> str:
    import yaml

    rest, sockets = (yaml.safe_load(_text(name)) for name in ("openapi.yaml", "asyncapi.yaml"))
    environment = Environment(autoescape=True)
    environment.filters |= {"markdown": _markdown, "short": _short, "pretty": _pretty}
    page = environment.from_string(_DOCS)
    return page.render(rest=rest, sockets=sockets, methods=_METHODS, resolve=_resolve)


def _markdown(text: str) -> Markup:
    from markdown_it import MarkdownIt

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
    kept = {key: value for key, value in (schema or {}).items() if key in _SHOWN}
    return str((schema or {}).get("$ref", "")).rpartition("/")[2] or json.dumps(kept, ensure_ascii=False)


def _pretty(schema: Json) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False)
