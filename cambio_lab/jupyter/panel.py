"""Widgets for a cell: the panel of one session, and a form that makes sessions."""

from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING, Any

import ipywidgets

from ..client.portal import portal
from ..errors import CambioError
from . import shell
from .desktop_view import DesktopView
from .follower import folded

if TYPE_CHECKING:
    from ..client.session import Session
    from ..client.workbench import Workbench

POLICIES = (("Ask before risky actions", "risky"), ("Ask before every action", "always"), ("Never ask", "never"))


class SessionPanel(DesktopView):
    """Desktop, chat and timeline of one session; shown with a record below it that the saved notebook keeps."""

    def _ipython_display_(self, **options: Any) -> None:
        shell.show_bundle(self._repr_mimebundle_())
        show_record(self.session)


class WorkbenchPanel(ipywidgets.VBox):  # type: ignore[misc]
    """A form for a new session (name, model, limits, approval) with the sessions there are; below it the panel."""

    def __init__(self, lab: Workbench, *, height: int = 560) -> None:
        self.lab = lab
        self.session: Session | None = None
        self.view: DesktopView | None = None
        self._height = height
        self._recorded = False
        wide = {"description_width": "9em"}
        self.name = ipywidgets.Text(description="Name", placeholder="a name for the session", style=wide)
        self.model = ipywidgets.Combobox(description="Model", placeholder="the server's default", style=wide)
        self.max_steps = ipywidgets.BoundedIntText(200, min=1, max=100_000, description="Steps per turn", style=wide)
        self.max_cost = ipywidgets.BoundedFloatText(
            10.0, min=0.0, max=100_000.0, step=0.5, description="Most money (US$)", style=wide
        )
        self.approval = ipywidgets.Dropdown(options=POLICIES, value="risky", description="Approval", style=wide)
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
                ipywidgets.HBox([self.max_steps, self.max_cost, self.approval], layout={"flex_flow": "row wrap"}),
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
        self._start(self._look_around())

    def config(self) -> dict[str, Any]:
        """What the form says, as ``config`` of a new session."""
        chosen: dict[str, Any] = {"max_steps": self.max_steps.value, "approval": self.approval.value}
        if self.max_cost.value > 0:
            chosen["max_cost_usd"] = self.max_cost.value
        if self.model.value.strip():
            chosen["model"] = self.model.value.strip()
        return chosen

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
        shell.show_bundle(self._repr_mimebundle_())
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
        session = await self.lab.create_session(self.name.value.strip() or None, **self.config())
        self.show(session)
        self._say(f"{session.name} is ready.")
        await self._look_around()

    async def _open(self) -> None:
        if self.existing.value:
            self.show(await self.lab.session(self.existing.value))
            self._say("")

    async def _end(self) -> None:
        if self.session is not None:
            await self.session.end()
            self._say(f"{self.session.name} has ended.")
            self.end_button.disabled = True
            await self._look_around()

    async def _look_around(self) -> None:
        active = await self.lab.sessions(status="active", limit=50)
        self.existing.options = [("(none)", ""), *((str(row["name"]), str(row["id"])) for row in active)]
        if not self.model.options:
            self.model.options = tuple(await self.lab.model_names())

    def _say(self, text: str) -> None:
        from .record import escape

        self.message.value = f'<span role="status">{escape(text, 500)}</span>'


def show_record(session: Session) -> None:
    """A second output below a panel: the record, kept up to date by the kernel."""
    portal.run(session.follow(shell.show(folded([], session.name))))
