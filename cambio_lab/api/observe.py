"""Metrics of what sessions do, taken where each event passes exactly once: its translation."""

from __future__ import annotations

from functools import singledispatchmethod
from typing import TYPE_CHECKING, Any

from .. import events
from . import metrics
from .messages import Body, Encoder

if TYPE_CHECKING:
    from ..sessions.interfaces import SessionView

KNOWN_TOOLS = 64
"""Distinct names of tools with a label of their own; functions from notebooks beyond that share one."""


class Measured:
    """An encoder that counts."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._tools: set[str] = set()

    def __call__(self, event: events.Event, view: SessionView) -> Body | None:
        self._count(event)
        return self._encoder(event, view)

    @singledispatchmethod
    def _count(self, event: Any) -> None:
        """Most events are not counted."""

    @_count.register
    def _(self, event: events.ToolFinished) -> None:
        tool = self._label(event.tool)
        metrics.TOOL_CALLS.labels(tool, "failed" if event.is_error else "completed").inc()
        for part in ("action", "settle", "encode", "total"):
            metrics.TOOL_SECONDS.labels(part).observe(getattr(event.timing, part) / 1000)

    @_count.register
    def _(self, event: events.ModelReplied) -> None:
        metrics.MODEL_SECONDS.observe(event.model_ms / 1000)
        usage = event.usage.describe()
        metrics.COST.inc(max(0.0, usage.pop("cost_usd")))
        usage.pop("requests")
        for kind, count in usage.items():
            metrics.TOKENS.labels(kind.removesuffix("_tokens")).inc(count)

    @_count.register
    def _(self, event: events.TurnFinished) -> None:
        result = "stopped" if event.stopped else "limit" if event.limit else "finished"
        metrics.TURNS.labels(result).inc()
        metrics.TURN_SECONDS.observe(event.processing_time)

    @_count.register
    def _(self, event: events.TurnFailed) -> None:
        metrics.TURNS.labels("failed").inc()
        metrics.TURN_SECONDS.observe(event.processing_time)

    @_count.register
    def _(self, event: events.StatusChanged) -> None:
        if event.metadata.get("event") == "ended":
            metrics.SESSIONS_ENDED.labels(event.status).inc()

    @_count.register
    def _(self, event: events.Retrying) -> None:
        metrics.RETRIES.inc()

    def _label(self, tool: str) -> str:
        if tool in self._tools or len(self._tools) < KNOWN_TOOLS:
            self._tools.add(tool)
            return tool
        return "other"
