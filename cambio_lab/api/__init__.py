"""The documented surface: one module for each section of the API reference, and here the map of all URLs.

Trailing slashes work too; the base URL is put in front by Jupyter.
"""

from __future__ import annotations

from typing import Any

from . import desktop, experiments, history, pages, sessions, system
from .agent_socket import AgentSocket
from .overview_socket import OverviewSocket
from .rest import NotFound
from .vnc_socket import VncSocket

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
    ("/cambio/export", r"/cambio/export/?", experiments.Export),
    ("/cambio/experiments", r"/cambio/experiments/?", experiments.Experiments),
    ("/cambio/experiments/{id}", rf"/cambio/experiments/{ID}/?", experiments.OneExperiment),
    ("/cambio/experiments/{id}/runs/{run}", rf"/cambio/experiments/{ID}/runs/{ID}/?", experiments.ExperimentRun),
    ("/cambio/run/{session_id}", rf"/cambio/run/{ID}/?", history.RunPage),
    ("/cambio/models", r"/cambio/models/?", system.Models),
    ("/cambio/defaults", r"/cambio/defaults/?", system.Defaults),
    ("/cambio/{name}.yaml", r"/cambio/((?:openapi|asyncapi)\.yaml)", pages.Description),
    ("/cambio/docs", r"/cambio/docs/?", pages.Docs),
    ("/cambio/static/{path}", r"/cambio/static/(.+)", pages.Static),
    ("unknown", r"/(?:sessions|health|ws|vnc|mcp|cambio)(?:/.*)?", NotFound),
)


def handlers() -> list[tuple[str, type[Any], dict[str, Any]]]:
    """For Tornado. The last one answers every address below ours that nothing else does, with the envelope."""
    return [(pattern, handler, {"endpoint": template}) for template, pattern, handler in ROUTES]
