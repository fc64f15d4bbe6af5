"""Every error that cambio_lab raises on purpose.

A message says what went wrong, ``hint`` says what to do about it, ``details`` names fields. None of them may
carry a path of the server, a secret or a traceback: they travel to clients and to the model as they are.

::

    CambioError
    ├── ConfigurationError          a setting is missing or makes no sense
    │   └── DirectoryInUse          another server has the data directory
    ├── InvalidRequest              parsed, but not valid; details: {field: what is wrong}
    ├── DesktopError
    │   ├── ActionError             the desktop will not do this (coordinates, key name); the model may read it
    │   ├── DesktopUnavailable      no desktop can be had now
    │   │   └── CapacityReached     as many desktops as the server allows are in use
    │   └── DesktopLost             the desktop died under us
    ├── SessionError
    │   ├── SessionNotFound
    │   ├── MessageNotFound         a screenshot, file or message that is not there
    │   ├── SessionConflict         the session's state forbids it
    │   │   ├── SessionEnded
    │   │   └── TurnRunning
    │   ├── MessageLimitReached     ``max_messages`` user messages were sent
    │   └── RecordFull              the session's record, or all records, reached their limit
    ├── ModelError
    │   ├── MissingKey              no API key, and the model is not the demo
    │   ├── UnsupportedModel        the table lists no tool version for this pair
    │   ├── ModelRefused            stop_reason ``refusal``
    │   ├── ModelUnavailable        retries are used up
    │   ├── ModelRejected           a 4xx that a retry cannot change
    │   └── AnswerDoesNotFit        the final text is not what the message's schema asks for
    ├── StoreError
    │   ├── StoreUnavailable        disk full, database locked: try again later
    │   └── StoreCorrupt
    ├── RunError
    │   ├── BundleRefused           damaged, foreign or hostile
    │   ├── RecordingMissing        mode ``none`` and nothing recorded
    │   └── ReplayDiverged          the run asks or sees something that the recording did not
    └── ServerError                 what a client of the API meets: the server failed
        ├── ServerUnreachable       no server answers at the address
        ├── AccessDenied            401 or 403: token missing, wrong or not enough
        └── RateLimited             429, and waiting as told did not help
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any


class CambioError(Exception):
    """Base of every deliberate error; ``str(error)`` is the message without the hint."""

    def __init__(self, message: str, *, hint: str = "", details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: dict[str, object] = dict(details or {})
        if hint:
            self.add_note(hint)  # tracebacks, also those in a notebook, show it below the message

    def _render_traceback_(self) -> list[str]:
        """IPython's protocol: show the caller's own lines and the error, without the frames of this package."""
        return [*caller_lines(self), *traceback.format_exception_only(self)]

    def describe(self) -> str:
        """The message followed by what to do about it, for a person."""
        return f"{self.message} {self.hint}".strip()


def caller_lines(error: BaseException) -> list[str]:
    """The lines of the user's code on the way to ``error``: those between IPython and this package."""
    lines = []
    for frame, number in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if module == "cambio_lab":
            break
        if module not in ("IPython", "ipykernel", "asyncio", "contextlib"):
            name = Path(frame.f_code.co_filename).name if module != "__main__" else ""
            found = traceback.FrameSummary(frame.f_code.co_filename, number, frame.f_code.co_name)
            lines.append(f"{name + ', ' if name else ''}line {number}: {found.line}\n")
    return lines


class ConfigurationError(CambioError):
    """A setting is missing or makes no sense."""


class DirectoryInUse(ConfigurationError):
    """Another process has the data directory; it can be had when that one is gone."""


class InvalidRequest(CambioError):
    """Parsed, but not valid. ``details`` maps each field to what is wrong with it."""


class DesktopError(CambioError):
    """Something about a desktop."""


class ActionError(DesktopError):
    """The desktop will not do this action; the text is safe for the model to read."""


class DesktopUnavailable(DesktopError):
    """No desktop can be had now; the hint says what to start or install."""


class CapacityReached(DesktopUnavailable):
    """As many desktops as the server allows are in use."""


class DesktopLost(DesktopError):
    """The desktop died or its connection could not be had back."""


class SessionError(CambioError):
    """Something about a session."""


class SessionNotFound(SessionError):
    """No session has this id."""


class MessageNotFound(SessionError):
    """The session has no such screenshot, file or message."""


class SessionConflict(SessionError):
    """The session's state forbids the request."""


class SessionEnded(SessionConflict):
    """The session is over."""


class TurnRunning(SessionConflict):
    """The agent is at work on an earlier message."""


class MessageLimitReached(SessionError):
    """``max_messages`` user messages were sent; the refused one is not stored."""


class RecordFull(SessionError):
    """The session's record, or all records, reached their limit of size; the refused message is not stored."""


class ModelError(CambioError):
    """Something about the model or its service."""


class MissingKey(ModelError):
    """No API key is set and the model is not the demo."""


class UnsupportedModel(ModelError):
    """No tool version is listed for this model on this platform."""


class ModelRefused(ModelError):
    """The service answered with ``stop_reason: refusal``."""


class ModelUnavailable(ModelError):
    """Overloaded, rate limited or unreachable, and the retries are used up."""


class ModelRejected(ModelError):
    """The service rejected the request (400, 401, 402, 403, 404, 413): trying again cannot help."""


class AnswerDoesNotFit(ModelError):
    """The final text is not JSON that fits the schema which the message came with."""


class StoreError(CambioError):
    """Something about the database or the screenshot files."""


class StoreUnavailable(StoreError):
    """The store cannot take the write now (disk full, locked); nothing acknowledged is lost."""


class StoreCorrupt(StoreError):
    """The database file is damaged; it is set aside, never overwritten."""


class RunError(CambioError):
    """Something about a recorded run."""


class BundleRefused(RunError):
    """A ``.cambio`` file is damaged, foreign or hostile; the message says how."""


class RecordingMissing(RunError):
    """Replay was asked for, and nothing is recorded."""


class ReplayDiverged(RunError):
    """The run asks or sees something that the recording did not."""


class ServerError(CambioError):
    """A client of the API met a failing server (5xx, or an answer that is not the documented one)."""


class ServerUnreachable(ServerError):
    """No server answers at the address."""


class AccessDenied(ServerError):
    """401 or 403: the token is missing, wrong or not enough."""


class RateLimited(ServerError):
    """429, and waiting as the server told did not help."""


def load_optional(module: str, need: str, hint: str) -> Any:
    """Import what an extra installs; :class:`ConfigurationError` says what needs it and how to get it."""
    try:
        return import_module(module)
    except ImportError:
        raise ConfigurationError(need, hint=hint) from None
