"""Failures on order: each is used up by one request to ``/v1/messages``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """Base of all failures. ``after`` counts the stream's events that arrive first; 0: before the status line."""


@dataclass(frozen=True)
class ErrorStatus(Failure):
    """An error envelope with its status: ``rate_limit_error`` 429, ``overloaded_error`` 529, ``api_error`` 500..."""

    kind: str = "overloaded_error"
    retry_after: str | None = None
    message: str = "Overloaded"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class BadGateway(Failure):
    """A proxy's HTML page."""

    status: int = 502


@dataclass(frozen=True)
class Break(Failure):
    """The connection is reset after so many events; 0: instead of an answer."""

    after: int = 4


@dataclass(frozen=True)
class Stall(Failure):
    """Silence for so many seconds after so many events, then the rest. 0 events: before the headers."""

    after: int = 4
    seconds: float = 3600.0


@dataclass(frozen=True)
class SseError(Failure):
    """An ``error`` event inside a stream that began with status 200."""

    after: int = 4
    kind: str = "overloaded_error"
    message: str = "Overloaded"


@dataclass(frozen=True)
class NoStop(Failure):
    """The stream ends cleanly after so many events, without ``message_stop``."""

    after: int = 5


def rate_limited(retry_after: str | float = 1) -> ErrorStatus:
    return ErrorStatus("rate_limit_error", str(retry_after), "This request would exceed your rate limit.")


def overloaded() -> ErrorStatus:
    return ErrorStatus()
