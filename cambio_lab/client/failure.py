"""From what the server says to the exception that a caller catches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import errors
from ..errors import CambioError

_BY_STATUS: dict[int, type[CambioError]] = {
    400: errors.InvalidRequest,
    401: errors.AccessDenied,
    403: errors.AccessDenied,
    404: errors.SessionNotFound,
    405: errors.InvalidRequest,
    409: errors.SessionConflict,
    413: errors.InvalidRequest,
    415: errors.InvalidRequest,
    422: errors.InvalidRequest,
    429: errors.RateLimited,
    503: errors.DesktopUnavailable,
}
_ACCESS_HINT = "Pass Workbench(url, token) the server's token, or set CAMBIO_LAB_TOKEN."
_MISSING_HINT = "Is cambio_lab installed where that server runs? Install it there and restart the server."


def from_envelope(status: int, body: Any, *, url: str = "") -> CambioError:
    """The exception for an answer of ``status`` with the documented envelope, or with anything else."""
    if not isinstance(body, Mapping) or "message" not in body:
        if status == 404:
            return errors.ServerError(f"The server at {url} does not know cambio_lab's API.", hint=_MISSING_HINT)
        if status in (401, 403):
            return errors.AccessDenied(f"The server at {url} refused access ({status}).", hint=_ACCESS_HINT)
        return errors.ServerError(f"The server at {url} answered {status} without saying why.")
    details = body.get("details")
    details = dict(details) if isinstance(details, Mapping) else {}
    hint = str(details.get("hint") or body.get("hint") or "")
    if status in (401, 403) and not hint:
        hint = _ACCESS_HINT
    kind = _by_name(str(body.get("error", ""))) or _BY_STATUS.get(status, errors.ServerError)
    return kind(str(body["message"]), hint=hint, details=details)


def from_event(message: Mapping[str, Any]) -> CambioError:
    """The exception for an ``error`` event of the agent socket."""
    metadata = message.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    title = str(message.get("error") or "The turn failed")
    text = str(message.get("details") or "")
    kind = _by_name(str(metadata.get("kind") or metadata.get("error") or title)) or CambioError
    says_all = not title or title == kind.__name__ or title.lower() in text.lower()
    return kind(text if text and says_all else f"{title}: {text}" if text else title, details=dict(metadata))


def _by_name(name: str) -> type[CambioError] | None:
    """``SessionNotFound``, ``session_not_found`` and ``Session not found`` all name the same class."""
    wanted = "".join(letter for letter in name.lower() if letter.isalnum())
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, CambioError) and kind.__name__.lower() == wanted:
            return kind
    return None
