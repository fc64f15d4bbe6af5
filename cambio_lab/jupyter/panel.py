"""Widgets for a cell: a session's live view, and its panel with a record below it.

Everything a browser does is in ``labextension/``. On a page that Jupyter serves the view talks to the server itself, so
it works while the kernel is busy; elsewhere it asks the kernel (:mod:`~cambio_lab.jupyter.relay`). Synced traits are
saved in notebooks: none ever holds a token.
"""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from ..client.portal import portal
from ..client.session import Session
from . import record
from .follower import folded, follow, show_raw
from .relay import Relay, asset

MODES = ("panel", "desktop", "chat")


class DesktopView(anywidget.AnyWidget):
    """Shows a session."""

    session_id = traitlets.Unicode("").tag(sync=True)
    base_url_hint = traitlets.Unicode("").tag(sync=True)
    height = traitlets.Int(560).tag(sync=True)
    mode = traitlets.Enum(MODES, "panel").tag(sync=True)
    relay = traitlets.Bool(False).tag(sync=True)

    def __init__(self, session: Session, *, mode: str = "panel", height: int = 560, relay: bool | None = None) -> None:
        self.session = session
        self._relay = Relay(session, self._answer)
        self._esm, self._css = asset("widget.js"), asset("widget.css")  # anywidget makes synced traits of them
        super().__init__(
            session_id=session.id,
            base_url_hint=session.lab.address.base_path,
            mode=mode,
            height=height,
            relay=not session.lab.address.parent if relay is None else relay,
        )
        self.on_msg(self._receive)

    def close(self) -> None:
        self._relay.close()
        super().close()

    def _receive(self, widget: Any, content: Any, buffers: Any) -> None:
        if isinstance(content, dict):
            self._relay.receive(content)

    def _answer(self, message: dict[str, Any], buffers: list[bytes]) -> None:
        if self.comm is not None:
            self.send(message, buffers)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """The widget, and beside it what a saved notebook shows without one."""
        found = super()._repr_mimebundle_(**options)
        data, metadata = found if isinstance(found, tuple) else (found, {})
        title = f"{self.session.name} ({self.session.status})"
        return {**(data or {}), **record.bundle(self.session.turns, title=title)}, metadata


class SessionPanel(DesktopView):
    """Desktop, chat and timeline of one session; shown with a record below it that the saved notebook keeps."""

    def _ipython_display_(self, **options: Any) -> None:
        show_raw(*self._repr_mimebundle_())
        portal.run(follow(self.session, show_raw(folded([], self.session.name))))
