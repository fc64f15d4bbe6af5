"""What a browser loads: the viewer's page, front-end modules, the API's description and its rendered page."""

from __future__ import annotations

import asyncio
import json
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
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

_SHOWN = ("type", "enum", "format", "minimum", "maximum", "pattern")
_METHODS = ("get", "post", "put", "patch", "delete")


def viewer(handler: Guarded, session_id: str, *, run: bool = False) -> None:
    """Answer with the page that shows one desktop, or its ``run``."""
    if not (STATIC / "viewer.js").exists():
        raise Refused(503, "The front end is not built. Run: npm --prefix labextension install && make setup")
    config = {
        "base_url": handler.url(),
        "session_id": session_id,
        "run": run,
        "ws_path": handler.url("ws", session_id),
        "vnc_path": handler.url("vnc", session_id),
    }
    # The page may be opened without having seen the cookie that its own requests must echo.
    handler.xsrf_token  # noqa: B018
    handler.set_header("Content-Security-Policy", VIEWER_POLICY)
    handler.set_header("Content-Type", "text/html; charset=utf-8")
    template = _environment().get_template("viewer.html.j2")
    handler.finish(template.render(static=handler.url("cambio", "static", ""), config=config))


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
    page = _environment().get_template("docs.html.j2")
    return page.render(rest=rest, sockets=sockets, methods=_METHODS, resolve=_resolve)


@cache
def _environment() -> Environment:
    environment = Environment(loader=PackageLoader("cambio_lab.api"), autoescape=True)
    environment.filters |= {"markdown": _markdown, "short": _short, "pretty": _pretty}
    return environment


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
