"""What the service's errors mean for us, read from their types and codes, never from their words.

The SDK's and httpx2's exceptions are recognised by their attributes so that this module needs neither import.
"""

from __future__ import annotations

import email.utils
import random
import re
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from ..errors import CambioError, ConfigurationError, ModelRejected, ModelUnavailable

KEY = re.compile(r"sk-[\w-]{4,}")  # a gateway may quote the key that it refuses
RETRIED_STATUS = frozenset({408, 409, 429})
RETRIED_TYPES = frozenset({"overloaded_error", "rate_limit_error", "api_error", "timeout_error"})
LONGEST_RETRY_AFTER = 3600.0
MAX_BROKEN = 3
MAX_UNREACHABLE = 3  # tries to connect to an address that has never answered
FIRST_WORDS = 200  # characters of an answer that are quoted
HINTS = {
    400: "The request itself was refused; the answer names the cause. If it recurs, clear the history.",
    401: "Check ANTHROPIC_API_KEY in the server's environment.",
    402: "The account has no credit left; see its billing page.",
    403: "The key may not use this model or feature; or a firewall on the way answered.",
    404: "Check the model's name and the base URL (without /v1); docs/agent.md has the table of models.",
    407: "The proxy on the way asks for a login: name it in HTTPS_PROXY, as in http://user:password@proxy.example:3128.",
    413: "The conversation is too large to send; clear the history or start a new session.",
}
OTHER_HINT = "This is hardly the Messages API; check the base URL, and what stands between here and the service."


@dataclass(eq=False)
class Transient(Exception):
    """Another try may help."""

    reason: str
    _: KW_ONLY
    retry_after: float | None = None
    broken: bool = False
    """The service had answered, but the reply cannot be used."""
    unreachable: bool = False
    """No connection was made, so nothing was sent."""


class BrokenReply(Exception):
    """The stream ended or read in a way no whole reply does; nothing of it may be executed."""


@dataclass
class Retries:
    """The failed tries of one query."""

    limit: int
    count: int = 0
    broken: int = 0
    unreachable: int = 0

    def next_delay(self, problem: Transient, *, answered: bool) -> float:
        """Return seconds to wait before the next try; :class:`ModelUnavailable` when there were enough."""
        self.count += 1
        self.broken += problem.broken
        self.unreachable += problem.unreachable and not answered
        if self.count > self.limit or self.broken > MAX_BROKEN or self.unreachable >= MAX_UNREACHABLE:
            raise ModelUnavailable(
                f"The model could not answer: {problem.reason}.",
                hint=f"It was asked {self.count} times; check the network, or send the message again later.",
            ) from problem
        return backoff(self.count, problem.retry_after)


def backoff(attempt: int, retry_after: float | None) -> float:
    """Return seconds to wait: what the service asks for and a little more, else doubling from half a second to 30."""
    if retry_after is not None:
        return retry_after + random.uniform(0, min(1.0, 0.1 * retry_after + 0.1))
    return min(0.5 * 2.0 ** (attempt - 1), 30.0) * random.uniform(0.5, 1.0)


def classify(error: Exception, address: str, secrets: Iterable[str]) -> Exception:
    """Return the exception to raise instead of ``error``: :class:`Transient`, or one of ours for people.

    ``address`` is where the request went; ``secrets`` are strings that no message may contain.
    """
    if isinstance(error, CambioError):
        return error
    names = [base.__name__ for base in type(error).__mro__]
    if "APIStatusError" in names:
        return _status(error, secrets)
    if "APIConnectionError" in names:
        cause = error.__cause__
        if isinstance(cause, CambioError):  # raised by one of our transports under the SDK
            return cause
        return _connection(error, "APITimeoutError" in names, address)
    module = type(error).__module__
    if module.startswith(("httpx2", "httpcore2", "httpx", "httpcore")):
        faults = {"TimeoutException": "the reply stalled", "DecodingError": "the reply could not be decompressed"}
        reason = next((words for name, words in faults.items() if name in names), "the connection broke")
        return Transient(reason, broken=True)
    if "AnthropicError" in names or isinstance(error, ImportError):
        said = _quoted(str(error), secrets)
        return ConfigurationError(f"The model client is not set up: {said}", hint="See docs/agent.md, Platforms.")
    words = {"JSONDecodeError": "an event is not JSON", "BrokenReply": str(error)}.get(names[0], names[0])
    return Transient(f"the reply{f' from {address}' if address else ''} was broken ({words})", broken=True)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _connection(error: Exception, timed_out: bool, address: str) -> Exception:
    """Tell what another try can change from what the person must change."""
    causes = list(_causes(error))
    names = {base.__name__ for cause in causes for base in type(cause).__mro__}
    where = address or "the model service"
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return ConfigurationError(
            f"The certificate of {where} is not trusted.",
            hint="Set SSL_CERT_FILE to the authority's certificate, or correct the base URL.",
        )
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return ConfigurationError(f"{where} does not speak TLS as expected.", hint="Check the base URL and its port.")
    if any(isinstance(cause, UnicodeError) for cause in causes) or names & {"LocalProtocolError"}:
        return ConfigurationError(
            f"The request to {where} cannot be written: a header holds a character that HTTP does not allow.",
            hint="Check ANTHROPIC_API_KEY and the proxy's settings for line breaks, spaces and non-ASCII characters.",
        )
    if names & {"UnsupportedProtocol", "InvalidURL"}:
        return ConfigurationError(f"{where} is not an HTTP address.", hint="Correct the base URL.")
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return Transient(f"the name of {where} cannot be resolved", unreachable=True)
    if "ProxyError" in names:
        return Transient(f"the proxy on the way to {where} refused the connection", unreachable=True)
    unreachable = bool(names & {"ConnectError", "ConnectTimeout"})
    proxied = " (a proxy is set: HTTP_PROXY, HTTPS_PROXY or ALL_PROXY)" if getproxies_environment() else ""
    words = f"{where} did not answer in time" if timed_out else f"{where} cannot be reached{proxied}"
    return Transient(words, unreachable=unreachable)


def _status(error: Any, secrets: Iterable[str]) -> Exception:
    status, kind = int(error.status_code), error.type
    headers = error.response.headers
    retried = status in RETRIED_STATUS or (status >= 500 and status != 511) or kind in RETRIED_TYPES
    if (verdict := headers.get("x-should-retry")) in ("true", "false"):
        retried = verdict == "true"
    said = _quoted(error.api_message or _body(error.response), secrets)
    if retried:
        reasons = {"rate_limit_error": "is rate limited", "overloaded_error": "is overloaded"}
        known = {429: "is rate limited", 529: "is overloaded"}.get(status)
        words = reasons.get(kind or "") or known or f"answered {status}{f' ({said})' if said else ''}"
        return Transient(f"{_address(error.response)} {words}", retry_after=retry_after(headers))
    if 300 <= status < 400:
        target = _quoted(headers.get("location", "another address").partition("?")[0], secrets)
        return ConfigurationError(
            f"{_address(error.response)} answered {status}, a redirect to {target}, which is not followed.",
            hint="Check the base URL, and log in where a proxy asks for it.",
        )
    return ModelRejected(
        f"{_address(error.response)} refused the request ({status}{f' {kind}' if kind else ''})"
        + (f": {said}" if said else "."),
        hint=HINTS.get(status, "" if kind else OTHER_HINT),
        details={
            "status": status,
            "type": kind or "",
            "error_code": error.error_code or "",
            "request_id": error.request_id or "",
        },
    )


def not_messages(response: Any, text: str, secrets: Iterable[str] = ()) -> ConfigurationError:
    """Return the error for an answer with status 200 that is not a stream of events, such as a login page."""
    media_type = response.headers.get("content-type", "").partition(";")[0]
    return ConfigurationError(
        f"{_address(response)} answered {response.status_code} with {media_type or 'no type'} instead of a reply: "
        f"{_quoted(text, secrets)!r}",
        hint="This is not the Messages API; check the base URL, and log in where a proxy asks for it.",
        details={"status": response.status_code, "type": media_type},
    )


def _address(response: Any) -> str:
    """Return the URL without user, password and query."""
    url = response.request.url
    return str(url.copy_with(username=None, password=None, query=None, fragment=None))


def _body(response: Any) -> str:
    try:
        return str(response.text)
    except RuntimeError:  # the body was not read: httpx2.ResponseNotRead
        return ""


def _quoted(text: str, secrets: Iterable[str]) -> str:
    """Return the first words of an answer as one line, without keys."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    for secret in secrets:
        if secret.strip():
            line = line.replace(secret.strip(), "[key]")
    line = KEY.sub("[key]", line)
    return line if len(line) <= FIRST_WORDS else line[:FIRST_WORDS] + " [...]"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return seconds that the service asks to wait: ``retry-after-ms``, or ``retry-after`` in seconds or as a date."""
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


def key_problem(key: str) -> str | None:
    """Say why this key cannot be sent in a header, without quoting it; ``None`` when it can."""
    if key.startswith(("'", '"', "ANTHROPIC_API_KEY=")):
        return "begins with a quotation mark or its own name"
    if key != key.strip():
        return "begins or ends with white space or a line break"
    if not key.isascii():
        return "holds a character outside ASCII"
    if any(not "!" <= character <= "~" for character in key):
        return "holds a space or a control character"
    return None


def checked_base_url(url: str) -> str:
    """Return ``url`` without ``/v1``, which the SDK adds; :class:`ConfigurationError` when it is no HTTP address."""
    try:
        parts = urlsplit(url.strip())
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        valid = valid and not (parts.query or parts.fragment or len(url.split()) != 1)
    except ValueError:
        valid = False
    if not valid:
        raise ConfigurationError(
            "The base URL of the model service is not an HTTP address.",
            hint="Set base_url (or ANTHROPIC_BASE_URL) to something like https://gateway.example, without /v1.",
        )
    return re.sub(r"(?i)/+(v1(/messages)?)?/*$", "", url.strip())


def proxy_error(error: Exception) -> ConfigurationError:
    """Return what to do about a setting of proxy or certificates that the HTTP client refuses."""
    if isinstance(error, OSError):
        return ConfigurationError(
            "SSL_CERT_FILE or SSL_CERT_DIR names no certificates that can be read.", hint="Correct it, or remove it."
        )
    if isinstance(error, ImportError):
        return ConfigurationError(
            "The proxy in ALL_PROXY, HTTPS_PROXY or HTTP_PROXY is a SOCKS proxy, which needs the package socksio.",
            hint="Install it in the server's environment (pip install socksio) or remove the variable.",
        )
    return ConfigurationError(
        "A proxy variable (ALL_PROXY, HTTPS_PROXY, HTTP_PROXY) is not the address of a proxy.",
        hint="Set it to something like http://proxy.example:3128, or remove it.",
    )
