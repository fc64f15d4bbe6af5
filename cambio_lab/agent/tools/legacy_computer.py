"""The older single tool ``computer`` (``computer_20251124``, ``computer_20250124``) for models that know no toolset.

One tool, the action's name in ``input.action``. Nothing parses for us here; the table of actions checks every value.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ...desktop.base import Desktop
from ...errors import DesktopLost
from ...events import Timing
from .. import models
from . import actions
from .call import COMPUTER, Call, Outcome, failed, spoken
from .computer import carry_out

WITHOUT_ZOOM = frozenset(actions.ACTIONS) - {"zoom"}
OFFERED = {models.TOOL_2025_11: frozenset(actions.ACTIONS), models.TOOL_2025_01: WITHOUT_ZOOM}


class _Refused(Exception):
    pass


class LegacyComputerTool:
    """Carries out ``computer`` calls on one desktop; ``version`` is one of the two dated types."""

    def __init__(self, desktop: Callable[[], Desktop], admitted: Callable[[str], bool], version: str) -> None:
        self._desktop = desktop
        self._admitted = admitted
        self._version = version
        self._size = desktop().size  # declared once: the entry must not change within a session

    def definitions(self) -> list[dict[str, Any]]:
        entry: dict[str, Any] = {
            "type": self._version,
            "name": COMPUTER,
            "display_width_px": self._size.width,
            "display_height_px": self._size.height,
        }
        if self._version == models.TOOL_2025_11:
            entry["enable_zoom"] = True
        return [entry]

    def serves(self, call: Call) -> bool:
        return call.toolset is None and call.name == COMPUTER

    def member(self, call: Call) -> str:
        return spoken(call.arguments, "action") or COMPUTER

    def time_limit(self, call: Call) -> float:
        return actions.time_limit(self.member(call), call.arguments)

    async def run(self, call: Call) -> Outcome:
        """Run one action. Only :class:`DesktopLost` and cancellation come out as exceptions."""
        name = spoken(call.arguments, "action")
        if name not in OFFERED[self._version]:
            return failed("action must be one of: " + ", ".join(sorted(OFFERED[self._version])) + ".")
        if not self._admitted(call.id):
            return failed(f"Permission to run {name} could not be obtained.")
        lost: list[DesktopLost] = []
        started = time.perf_counter()
        try:
            done = await carry_out(self._desktop(), name, call.arguments, _Refused, lost.append)
        except _Refused as refusal:
            if lost:
                raise lost[0] from refusal
            return failed(str(refusal))
        return _outcome(name, done, (time.perf_counter() - started) * 1000)


def _outcome(name: str, done: actions.Done, total: float) -> Outcome:
    picture = done.picture
    text = "" if picture else f"Done: {name}."
    if done.point is not None:
        text = f"X={done.point.x},Y={done.point.y}"
    return Outcome(
        text=text,
        picture=picture,
        timing=Timing(
            action=done.settled.action_ms,
            settle=done.settled.waited_ms,
            encode=picture.encode_ms if picture else 0.0,
            total=total,
        ),
        changed=actions.ACTIONS[name].changes,
    )
