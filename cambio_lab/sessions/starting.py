"""A session whose desktop is being made: what those who watch all sessions are told until it exists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cambio_lab.desktop.base import Progress
from cambio_lab.events import Status

from .views import iso


@dataclass(eq=False, slots=True)
class Starting:
    """Silent as long as nothing takes long. ``tell`` passes the news on."""

    id: str
    name: str
    model: str
    created_at: float
    tell: Callable[[Starting], None]
    state: Status = "idle"
    text: str = ""
    fraction: float | None = None
    """How far it is, 0 to 1, where that is known."""

    def note(self, progress: Progress) -> None:
        """How far the slow first time is. An image that is there already is no news."""
        if self.text or progress.fraction != 1.0:
            self.text, self.fraction = progress.text, progress.fraction
            self.tell(self)

    def failed(self, words: str) -> None:
        """There will be no session; said only to those who were told that there might be."""
        if self.text:
            self.state, self.text, self.fraction = "error", words, None
            self.tell(self)

    def describe(self) -> dict[str, Any]:
        """As :meth:`Session.describe`, as far as there is something to say; ``progress`` has ``text`` and more."""
        return {
            "id": self.id,
            "name": self.name,
            "status": "error" if self.state == "error" else "active",
            "state": self.state,
            "created_at": iso(self.created_at),
            "model": self.model,
            "steps": 0,
            "control": None,
            "progress": {"text": self.text, "fraction": self.fraction},
        }
