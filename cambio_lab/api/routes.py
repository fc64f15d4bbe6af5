"""The map of all URLs, and what a browser loads: front-end modules, the API's description and its rendered page.

Trailing slashes work too; the base URL is put in front by Jupyter.
"""

from __future__ import annotations

import asyncio
import json
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup
from tornado.web import StaticFileHandler

from . import MESSAGES, Refused, desktop, history, sessions, system
from .base import METHODS, Guarded
from .overview_socket import OverviewSocket
from .rest import STATIC, Rest, templates
from .socket import AgentSocket
from .vnc_socket import VncSocket

Json = dict[str, Any]
HERE = Path(__file__).resolve().parent
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
    page = templates().overlay()
    page.filters |= {"markdown": _markdown, "short": _short, "pretty": _pretty}
    return page.get_template("docs.html.j2").render(rest=rest, sockets=sockets, methods=_METHODS, resolve=_resolve)


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


class NotFound(Rest):
    """Every address below ours that nothing answers to."""

    methods = METHODS[:-1]

    def _answer(self, *args: str, **kwargs: str) -> None:
        raise Refused(404, MESSAGES[404])

    get = post = put = patch = delete = _answer

    def check_xsrf_cookie(self) -> None:
        """Nothing happens here that could be forged."""


ID = r"([^/]+)"

ROUTES: tuple[tuple[str, str, type[Any]], ...] = (
    # (template, pattern, handler)
    ("/sessions", r"/sessions/?", sessions.Sessions),
    ("/sessions/{session_id}", rf"/sessions/{ID}/?", sessions.OneSession),
    ("/sessions/{session_id}/stop", rf"/sessions/{ID}/stop/?", sessions.Stop),
    ("/sessions/{session_id}/answer", rf"/sessions/{ID}/answer/?", sessions.Answer),
    ("/sessions/{session_id}/history", rf"/sessions/{ID}/history/?", history.History),
    ("/sessions/{session_id}/events", rf"/sessions/{ID}/events/?", history.Events),
    ("/sessions/{session_id}/steps", rf"/sessions/{ID}/steps/?", history.Steps),
    ("/sessions/{session_id}/screenshot", rf"/sessions/{ID}/screenshot/?", desktop.Screenshot),
    (
        "/sessions/{session_id}/screenshots/{name}",
        rf"/sessions/{ID}/screenshots/([0-9a-f]{{64}})(?:\.\w{{1,5}})?",
        history.Recorded,
    ),
    ("/sessions/{session_id}/files/{path}", rf"/sessions/{ID}/files/(.*)", desktop.Files),
    ("/sessions/{session_id}/images", rf"/sessions/{ID}/images/?", desktop.Images),
    ("/sessions/{session_id}/exec", rf"/sessions/{ID}/exec/?", desktop.Exec),
    ("/sessions/{session_id}/clipboard", rf"/sessions/{ID}/clipboard/?", desktop.Clipboard),
    ("/sessions/{session_id}/run", rf"/sessions/{ID}/run/?", history.Run),
    ("/health", r"/health/?", system.Health),
    ("/ws", r"/ws/?", OverviewSocket),
    ("/ws/{session_id}", rf"/ws/{ID}/?", AgentSocket),
    ("/vnc/{session_id}", rf"/vnc/{ID}/?", VncSocket),
    ("/mcp", r"/mcp/?", system.Mcp),
    ("/cambio/formats", r"/cambio/formats/?", history.Formats),
    ("/cambio/export", r"/cambio/export/?", history.Export),
    ("/cambio/experiments", r"/cambio/experiments/?", history.Experiments),
    ("/cambio/experiments/{id}", rf"/cambio/experiments/{ID}/?", history.OneExperiment),
    ("/cambio/experiments/{id}/runs/{run}", rf"/cambio/experiments/{ID}/runs/{ID}/?", history.ExperimentRun),
    ("/cambio/run/{session_id}", rf"/cambio/run/{ID}/?", history.RunPage),
    ("/cambio/models", r"/cambio/models/?", system.Models),
    ("/cambio/defaults", r"/cambio/defaults/?", system.Defaults),
    ("/cambio/{name}.yaml", r"/cambio/((?:openapi|asyncapi)\.yaml)", Description),
    ("/cambio/docs", r"/cambio/docs/?", Docs),
    ("/cambio/static/{path}", r"/cambio/static/(.+)", Static),
    ("unknown", r"/(?:sessions|health|ws|vnc|mcp|cambio)(?:/.*)?", NotFound),
)


def handlers() -> list[tuple[str, type[Any], dict[str, Any]]]:
    """For Tornado. The last one answers every address below ours that nothing else does, with the envelope."""
    return [(pattern, handler, {"endpoint": template}) for template, pattern, handler in ROUTES]
