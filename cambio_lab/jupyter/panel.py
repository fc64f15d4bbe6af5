"""Widgets for a cell: a session's live view, its panel with a record below it, and a form that creates sessions.

Everything a browser does is in ``labextension/``. On a page that Jupyter serves the view talks to the server itself, so
it works while the kernel is busy; elsewhere it asks the kernel (:mod:`~cambio_lab.jupyter.relay`). Synced traits are
saved in notebooks: none ever holds a token.
"""

from __future__ import annotations

import concurrent.futures
from typing import Any

import anywidget
import ipywidgets
import traitlets

from ..client.portal import portal
from ..client.session import Session
from ..client.workbench import Workbench
from ..errors import CambioError
from . import record
from .follower import folded, follow
from .host import show_raw
from .relay import Relay, asset

MODES = ("panel", "desktop", "chat")
POLICIES = (
    ("The server's default", None),
    ("Ask before risky actions", "risky"),
    ("Ask before every action", "always"),
    ("Never ask", "never"),
)


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


class SessionPanel(DesktopView):
    """Desktop, chat and timeline of one session; shown with a record below it that the saved notebook keeps."""

    def _ipython_display_(self, **options: Any) -> None:
        show_raw(*self._repr_mimebundle_())
        show_record(self.session)


class WorkbenchPanel(ipywidgets.VBox):  # type: ignore[misc]
    """A form for a new session (name, model, limits, approval), a list of the existing ones, and the panel below."""

    def __init__(self, lab: Workbench, *, height: int = 560) -> None:
        self.lab = lab
        self.session: Session | None = None
        self.view: DesktopView | None = None
        self._height = height
        self._recorded = False
        wide = {"description_width": "9em"}
        self.name = ipywidgets.Text(description="Name", placeholder="a name for the session", style=wide)
        self.model = ipywidgets.Combobox(description="Model", placeholder="the server's default", style=wide)
        self.max_cost = ipywidgets.Text(description="Cost limit (US$)", placeholder="as set on the server", style=wide)
        self.approval = ipywidgets.Dropdown(options=POLICIES, description="Approval", style=wide)
        self.create_button = ipywidgets.Button(
            description="Create session", button_style="primary", icon="desktop", tooltip="Start a desktop and an agent"
        )
        self.existing = ipywidgets.Dropdown(options=[("(none)", "")], description="Or open", style=wide)
        self.open_button = ipywidgets.Button(description="Open", tooltip="Show the chosen session")
        self.end_button = ipywidgets.Button(description="End session", tooltip="Remove the session and its desktop")
        self.end_button.disabled = True
        self.message = ipywidgets.HTML()
        self._form = ipywidgets.VBox(
            [
                ipywidgets.HBox([self.name, self.model], layout={"flex_flow": "row wrap"}),
                ipywidgets.HBox([self.max_cost, self.approval], layout={"flex_flow": "row wrap"}),
                ipywidgets.HBox(
                    [self.create_button, self.existing, self.open_button, self.end_button],
                    layout={"flex_flow": "row wrap"},
                ),
                self.message,
            ]
        )
        self._place = ipywidgets.VBox([])
        super().__init__([self._form, self._place])
        self.create_button.on_click(lambda _: self._start(self._create()))
        self.open_button.on_click(lambda _: self._start(self._open()))
        self.end_button.on_click(lambda _: self._start(self._end()))
        self._start(self._refresh())

    def show(self, session: Session) -> None:
        """Show ``session`` below the form."""
        self.session = session
        if self.view is None:
            self.view = DesktopView(session, height=self._height)
            self._place.children = (self.view,)
        else:
            self.view.show(session)
        self.end_button.disabled = False
        if self._recorded:
            show_record(session)

    def _ipython_display_(self, **options: Any) -> None:
        self._recorded = True
        show_raw(self._repr_mimebundle_())
        if self.session is not None:
            show_record(self.session)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        found = super()._repr_mimebundle_(**options)
        data = found[0] if isinstance(found, tuple) else found
        turns = self.session.turns if self.session is not None else []
        name = self.session.name if self.session is not None else "no session yet"
        return {**(data or {}), **folded(turns, name)}

    def _start(self, work: Any) -> None:
        """Run on the portal, so that nothing waits for a busy kernel once it has begun; failures are shown."""
        portal.submit(work).add_done_callback(self._finished)

    def _finished(self, future: concurrent.futures.Future[None]) -> None:
        self.create_button.disabled = False
        error = future.exception() if not future.cancelled() else None
        if isinstance(error, CambioError):
            self._say(error.describe())
        elif error is not None:
            self._say(f"{type(error).__name__}: {error}")

    async def _create(self) -> None:
        self.create_button.disabled = True
        self._say("Starting a desktop…")
        session = await self.lab.create_session(
            self.name.value.strip() or None,
            model=self.model.value.strip() or None,
            approval=self.approval.value,
            max_cost_usd=float(self.max_cost.value) if self.max_cost.value.strip() else None,
        )
        self.show(session)
        self._say(f"{session.name} is ready.")
        await self._refresh()

    async def _open(self) -> None:
        if self.existing.value:
            self.show(await self.lab.session(self.existing.value))
            self._say("")

    async def _end(self) -> None:
        if self.session is not None:
            await self.session.end()
            self._say(f"{self.session.name} has ended.")
            self.end_button.disabled = True
            await self._refresh()

    async def _refresh(self) -> None:
        active = await self.lab.sessions(status="active", limit=50)
        self.existing.options = [("(none)", ""), *((str(row["name"]), str(row["id"])) for row in active)]
        if not self.model.options:
            self.model.options = tuple(await self.lab.model_names())

    def _say(self, text: str) -> None:
        self.message.value = f'<span role="status">{record.escape(text, 500)}</span>'


def show_record(session: Session) -> None:
    """Show a second output below a panel: the record, kept up to date by the kernel."""
    portal.run(follow(session, show_raw(folded([], session.name))))
