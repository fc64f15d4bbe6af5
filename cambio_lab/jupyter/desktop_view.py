"""The live view of a session: desktop, chat, timeline. Everything a browser does is in ``labextension/``.

On a page that Jupyter serves the view talks to the server itself, so it works while the kernel is busy; elsewhere it
asks the kernel (:mod:`~cambio_lab.jupyter.relay`). Synced traits are saved in notebooks: none ever holds a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from . import record
from .assets import asset
from .relay import Relay

if TYPE_CHECKING:
    from ..client.session import Session

MODES = ("panel", "desktop", "chat")


class DesktopView(anywidget.AnyWidget):
    """Shows ``session_id``; :meth:`show` changes it."""

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

    def show(self, session: Session) -> None:
        """Show another session in the same place."""
        self._relay.close()
        self.session = session
        self._relay = Relay(session, self._answer)
        self.relay = self.relay or not session.lab.address.parent
        self.session_id = session.id

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
        return with_record(found, self.session)


def with_record(bundle: Any, session: Session) -> Any:
    """``bundle`` with the session's static record as ``text/html`` and ``text/plain``."""
    data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
    title = f"{session.name} ({session.status})"
    return {**(data or {}), **record.bundle(session.turns, title=title)}, metadata
