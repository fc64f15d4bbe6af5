"""JSON as the API takes and gives it, and every failure of every route as one envelope: which status, which words.

``describe`` is the only place that turns an exception into something a client reads, so it is also the place that
lets no traceback, path or secret out: an exception that is not one of ours becomes a plain 500.
"""

from __future__ import annotations

import json
import math
import uuid
from collections import Counter
from http import HTTPStatus
from typing import Any

from tornado.web import HTTPError

from .. import errors
from ..events import timestamp

STATUS: dict[type[errors.CambioError], int] = {
    errors.InvalidRequest: 422,
    errors.UnsupportedModel: 422,
    errors.ActionError: 422,
    errors.BundleRefused: 422,
    errors.SessionNotFound: 404,
    errors.MessageNotFound: 404,
    errors.SessionConflict: 409,
    errors.MessageLimitReached: 409,
    errors.RecordFull: 409,
    errors.RecordingMissing: 409,
    errors.ReplayDiverged: 409,
    errors.DesktopUnavailable: 503,
    errors.DesktopLost: 503,
    errors.StoreError: 503,
    errors.ModelError: 503,
    errors.ConfigurationError: 503,
}
"""The nearest class in an error's family decides; a deliberate error that is not listed is a 500."""

NAMES = {status.value: status.phrase for status in HTTPStatus} | {
    413: "Payload Too Large",
    422: "Validation Error",
    429: "Rate Limited",
}
MESSAGES = {
    400: "The request cannot be parsed.",
    401: "No valid token: send the header 'Authorization: token TOKEN' or ?token=TOKEN. The server prints it at start.",
    403: "This is not allowed for you, or not from this page.",
    404: "There is nothing at this address.",
    405: "This address does not know this method; the Allow header lists those it knows.",
    413: "The body is too large.",
    415: "The body must be JSON: send the header 'Content-Type: application/json'.",
    500: "Something went wrong inside the server. Its log has the particulars under this request_id.",
}


class Refused(HTTPError):
    """An HTTP error whose words are for the client. ``details`` maps fields to what is wrong with each."""

    def __init__(
        self,
        status: int,
        message: str = "",
        details: dict[str, Any] | None = None,
        *,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.message = message or MESSAGES.get(status, NAMES.get(status, "Error"))
        # log_message is a %-format in Tornado, and our words may contain a percent sign.
        super().__init__(status, "%s", self.message)
        self.details = details or {}
        self.headers = headers or {}

    def envelope(self, request_id: str) -> dict[str, Any]:
        """Return the documented body."""
        return {
            "error": NAMES.get(self.status_code, "Error"),
            "message": self.message,
            "details": self.details,
            "timestamp": timestamp(),
            "request_id": request_id,
        }


def describe(error: BaseException | None, status: int) -> Refused:
    """``error`` (or the bare ``status``) as a client may see it."""
    if isinstance(error, Refused):
        return error
    if not isinstance(error, errors.CambioError):
        # Tornado's and Jupyter's own refusals: keep the status, never their text (it may quote the request).
        return Refused(status)
    status = status_of(error)
    if status == 500:
        return Refused(500)
    # What a client can do about the lack of a desktop or of disk space is wait and try again.
    headers = {"Retry-After": "5"} if status == 503 else {}
    return Refused(status, error.describe(), {k: plain(v) for k, v in error.details.items()}, headers=headers)


def malformed() -> bytes:
    """A whole HTTP answer to bytes that are no HTTP message."""
    request_id = f"req-{uuid.uuid4().hex[:12]}"
    body = encode(Refused(400, "This is not a well-formed HTTP/1.1 request.").envelope(request_id))
    head = (
        f"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"X-Request-ID: {request_id}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def status_of(error: errors.CambioError) -> int:
    """The HTTP status of a deliberate error."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def plain(value: object) -> Any:
    """``value`` if JSON has it, else its text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


DEEPEST = 100
"""Levels; what is parsed must be written again, wherever on the stack that happens."""

SHORT = 100
"""Characters of a name or id that a caller gives."""


class BadJson(ValueError):
    """The text is not JSON; the message is safe to send back."""


def parse(data: bytes | str) -> Any:
    """The value that ``data`` (UTF-8) spells. Raises :class:`BadJson`, never anything else."""
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
    except UnicodeDecodeError:
        raise BadJson("The text is not UTF-8.") from None
    try:
        value = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite)
    except BadJson:
        raise
    except json.JSONDecodeError as error:
        raise BadJson(f"{error.msg} at line {error.lineno}, column {error.colno}.") from None
    except RecursionError:
        raise BadJson("Nested too deeply.") from None
    except ValueError:  # an integer with thousands of digits
        raise BadJson("A number is too long.") from None
    if text.count("[") + text.count("{") > DEEPEST and _too_deep(value):
        raise BadJson("Nested too deeply.")
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:  # it parses, but cannot be stored or sent on
            raise BadJson("A \\u escape is half of a surrogate pair.") from None
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise BadJson(f"The key {twice[:100]!r} appears twice.")
    return found


def _no_constant(name: str) -> Any:
    raise BadJson(f"{name} is not JSON.")


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise BadJson("A number is too large.")
    return value


def _too_deep(value: Any) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def encode(body: Any) -> bytes:
    """Compact UTF-8 JSON."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
