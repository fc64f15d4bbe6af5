"""What the service's errors mean for us, read from their types and codes, never from their words.

The SDK's and httpx2's exceptions are recognised by their attributes so that this module needs neither import.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from typing import Any

from ..errors import CambioError, ConfigurationError, ModelRejected

KEY = re.compile(r"sk-[\w-]{4,}")  # a gateway may quote the key that it refuses
RETRIED_STATUS = frozenset({408, 409, 429})
RETRIED_TYPES = frozenset({"overloaded_error", "rate_limit_error", "api_error", "timeout_error"})
LONGEST_RETRY_AFTER = 3600.0
HINTS = {
    400: "The request itself was refused; the details name the cause.",
    401: "Check ANTHROPIC_API_KEY in the server's environment.",
    402: "The account has no credit left; see its billing page.",
    403: "The key may not use this model or feature.",
    404: "The model's name is not known there; see docs/agent.md for the table of models.",
    413: "The conversation is too large to send; clear the history or start a new session.",
}


class Transient(Exception):
    """Another try may help. ``usage`` is what the service already counted for this one."""

    def __init__(
        self,
        reason: str,
        *,
        retry_after: float | None = None,
        broken: bool = False,
        usage: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after
        self.broken = broken
        """The service had answered, but the reply cannot be used."""
        self.usage = dict(usage or {})


class BrokenReply(Exception):
    """The stream ended or read in a way no whole reply does; nothing of it may be executed."""


def classify(error: Exception, usage: Mapping[str, Any] | None = None) -> Exception:
    """The exception to raise instead of ``error``: :class:`Transient` or one of ours for people."""
    if isinstance(error, CambioError):
        return error
    chain = [type(base).__name__ if not isinstance(base, type) else base.__name__ for base in type(error).__mro__]
    if "APIStatusError" in chain:
        return _status(error, usage)
    if "APIConnectionError" in chain:
        cause = error.__cause__
        if isinstance(cause, CambioError):  # raised by one of our transports under the SDK
            return cause
        words = "the service did not answer in time" if "APITimeoutError" in chain else "the service cannot be reached"
        return Transient(words, usage=usage)
    module = type(error).__module__
    if module.startswith(("httpx2", "httpcore2", "httpx", "httpcore")):
        stalled = "TimeoutException" in chain
        return Transient("the reply stalled" if stalled else "the connection broke", broken=True, usage=usage)
    if "AnthropicError" in chain or isinstance(error, ImportError):
        return ConfigurationError(f"The model client is not set up: {error}", hint="See docs/agent.md, Platforms.")
    return Transient(f"the reply was broken ({_words(error)})", broken=True, usage=usage)


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, BrokenReply) else type(error).__name__


def _status(error: Any, usage: Mapping[str, Any] | None) -> Exception:
    status, kind = int(error.status_code), error.type
    headers = error.response.headers
    retried = status in RETRIED_STATUS or status >= 500 or kind in RETRIED_TYPES
    if (verdict := headers.get("x-should-retry")) in ("true", "false"):
        retried = verdict == "true"
    if retried:
        reasons = {"rate_limit_error": "rate limited", "overloaded_error": "overloaded"}
        words = reasons.get(kind or "") or {429: "rate limited", 529: "overloaded"}.get(status, f"error {status}")
        return Transient(f"the model service is {words}", retry_after=retry_after(headers), usage=usage)
    said = f": {KEY.sub('[key]', error.api_message)}" if error.api_message else ""
    return ModelRejected(
        f"The model service refused the request ({status}{f' {kind}' if kind else ''}){said}",
        hint=HINTS.get(status, ""),
        details={
            "status": status,
            "type": kind or "",
            "error_code": error.error_code or "",
            "request_id": error.request_id or "",
        },
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the service asks to wait: ``retry-after-ms``, or ``retry-after`` in seconds or as a date."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return min(milliseconds / 1000, LONGEST_RETRY_AFTER)
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is None and value:
        parsed = email.utils.parsedate_tz(value)
        seconds = email.utils.mktime_tz(parsed) - time.time() if parsed else None
    return None if seconds is None else min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else None
    except ValueError:
        return None
    return number if number is not None and 0 <= number < float("inf") else None
