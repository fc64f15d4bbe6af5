"""REST calls on the portal's loop, and what went wrong between client and server as exceptions."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2
from websockets.exceptions import InvalidHandshake, ProxyError

from .. import errors
from ..errors import CambioError, ServerUnreachable
from .discovery import Address

PATIENCE_SECONDS = 120.0
"""Longest sum of waits that ``Retry-After`` may cause in one call."""
_BY_STATUS: dict[int, type[CambioError]] = {
    **dict.fromkeys((400, 405, 413, 415, 422), errors.InvalidRequest),
    **dict.fromkeys((401, 403), errors.AccessDenied),
    404: errors.SessionNotFound,
    409: errors.SessionConflict,
    429: errors.RateLimited,
    503: errors.DesktopUnavailable,
}
_KINDS = {
    kind.__name__.lower(): kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, CambioError)
}
_ACCESS_HINT = "Pass Workbench(url, token) the server's token, or set CAMBIO_LAB_TOKEN."
_MISSING_HINT = "Is cambio_lab installed where that server runs? Install it there and restart the server."
_UPGRADE_HINT = (
    "Let the proxy pass the headers Upgrade and Connection (in nginx: proxy_http_version 1.1 and "
    "proxy_set_header Upgrade $http_upgrade), or give Workbench the server's own address."
)
_WRONG_NAME = frozenset({62, 64})
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""

Notice = Callable[[str], None]


class Rest:
    """An ``httpx2`` client for one server. Lives on the portal's loop; every method is awaited there."""

    def __init__(self, address: Address, *, notice: Notice) -> None:
        self.address = address
        self.notice = notice
        # A proxy variable must not send a loopback address, and its token, to another machine.
        self._client = httpx2.AsyncClient(
            base_url=address.url,
            headers=address.headers,
            timeout=60.0,
            trust_env=not address.loopback,
            verify=address.tls() or True,
        )

    async def json(self, method: str, path: str, **options: Any) -> Any:
        """Return the decoded answer; raise what :func:`from_envelope` makes of any other."""
        response = await self.request(method, path, **options)
        try:
            return response.json()
        except ValueError as error:
            kind = response.headers.get("content-type") or "no content type"
            raise not_the_api(self.address.url, kind) from error

    async def bytes(self, path: str, **options: Any) -> tuple[bytes, str]:
        """``(content, media type)`` of a GET."""
        response = await self.request("GET", path, **options)
        return response.content, response.headers.get("content-type", "").partition(";")[0]

    async def request(
        self,
        method: str,
        path: str,
        *,
        content: Any = None,
        accept: tuple[int, ...] = (),
        patience: float = PATIENCE_SECONDS,
        **options: Any,
    ) -> httpx2.Response:
        """One answered request; ``accept`` are statuses besides 2xx that are no error here.

        ``content`` may be a function that makes the body for each try; ``patience`` bounds the waits in seconds; other
        ``options`` are httpx2's.
        """
        while True:
            body = content() if callable(content) else content
            try:
                response = await self._client.request(method, path, content=body, **options)
            except httpx2.TransportError as error:
                raise unreachable(self.address, error) from error
            if response.is_success or response.status_code in accept:
                return response
            delay = retry_after(response.status_code, response.headers)
            if delay is None or delay > patience:
                raise self._failure(response)
            patience -= delay
            self.notice(f"The server asks to wait {delay:.0f} s (rate limit).")
            await asyncio.sleep(delay)

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[httpx2.Response]:
        """A GET whose body is read piece by piece by the caller."""
        try:
            async with self._client.stream("GET", path, timeout=600.0) as response:
                if not response.is_success:
                    await response.aread()
                    raise self._failure(response)
                yield response
        except httpx2.TransportError as error:
            raise unreachable(self.address, error) from error

    async def aclose(self) -> None:
        await self._client.aclose()

    def _failure(self, response: httpx2.Response) -> CambioError:
        if response.has_redirect_location:
            target = response.url.join(response.headers["location"]).copy_with(query=None)
            return not_the_api(self.address.url, f"it redirects to {target}")
        return from_envelope(response.status_code, response.content, self.address.url)


def retry_after(status: int, headers: Mapping[str, str]) -> float | None:
    """Seconds to wait before asking again, or ``None`` when this is no rate limit."""
    if status != 429:
        return None
    try:
        return max(0.05, float(headers.get("Retry-After", "1")))
    except ValueError:
        return 1.0


def from_envelope(status: int, content: bytes | bytearray, url: str) -> CambioError:
    """Return the exception for an answer of ``status`` with the documented envelope, or with anything else."""
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    if not isinstance(body, Mapping) or "message" not in body:
        return _without_envelope(status, url)
    found = body.get("details")
    details = dict(found) if isinstance(found, Mapping) else {}
    hint = str(details.get("hint") or body.get("hint") or (_ACCESS_HINT if status in (401, 403) else ""))
    kind = _by_name(str(body.get("error", ""))) or _BY_STATUS.get(status, errors.ServerError)
    return kind(str(body["message"]), hint=hint, details=details)


def _without_envelope(status: int, url: str) -> CambioError:
    """Return the exception for an answer that did not come from cambio_lab."""
    if status == 404:
        return errors.ServerError(f"The server at {url} does not know cambio_lab's API.", hint=_MISSING_HINT)
    if status in (401, 403):
        return errors.AccessDenied(f"The server at {url} refused access ({status}).", hint=_ACCESS_HINT)
    if status == 407:
        return errors.ServerError(f"The proxy on the way to {url} asks for a login (407).", hint=_proxy_hint(url))
    if status in (502, 503, 504):
        return errors.ServerError(
            f"A proxy in front of {url} answered {status}: it does not reach the server.",
            hint=_proxy_hint(url) or "Is the server behind that proxy running?",
        )
    return not_the_api(url, f"status {status}")


def not_the_api(url: str, what: str) -> CambioError:
    """Return the exception for an answer that is a web page or a redirect: a login page, another service."""
    return errors.ServerError(
        f"What answers at {url} is not cambio_lab's API ({what}).",
        hint="Check the address: it may belong to a login page, a proxy or another service.",
    )


def refused_upgrade(status: int, content: bytes | bytearray, address: Address) -> CambioError:
    """Return the exception for a WebSocket handshake that was answered with ``status``."""
    if status in (400, 426):  # this client always asks for an upgrade, so something removed the request's headers
        text = f"A proxy between here and {address.url} does not let WebSockets through."
        return errors.ServerError(text, hint=_UPGRADE_HINT)
    return from_envelope(status, content, address.url)


def from_event(message: Mapping[str, Any]) -> CambioError:
    """Return the exception for an ``error`` event of the agent socket."""
    metadata = message.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    title = str(message.get("error") or "The turn failed")
    text = str(message.get("details") or "")
    kind = _by_name(str(metadata.get("kind") or metadata.get("error") or title)) or CambioError
    says_all = not title or title == kind.__name__ or title.lower() in text.lower()
    return kind(text if text and says_all else f"{title}: {text}" if text else title, details=dict(metadata))


def unreachable(address: Address, error: BaseException) -> ServerUnreachable:
    """Return the exception for a server that cannot be reached: address, certificate or proxy, and what to do."""
    for cause in _causes(error):
        if found := _explain(address, cause):
            return ServerUnreachable(found[0], hint=found[1])
    reason = str(error) or type(error).__name__
    return ServerUnreachable(
        f"No server answers at {address.url} ({reason}).",
        hint=_proxy_hint(address.url) or f"Is the server running? Its address came from: {address.found_by}.",
    )


def _explain(address: Address, error: BaseException) -> tuple[str, str] | None:
    """Return what is wrong and what to do, where ``error`` tells."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _WRONG_NAME:
            return (
                f"The certificate of {address.url} is for another name ({error.verify_message}).",
                "Use an address with a name that the certificate has.",
            )
        return (
            f"The certificate of {address.url} is not trusted ({error.verify_message}).",
            "Set SSL_CERT_FILE to a file with the server's certificate, or with its authority's; then make the "
            "Workbench again.",
        )
    if isinstance(error, ssl.SSLError):
        return f"{address.url} does not speak TLS ({error.reason}).", "Use http:// in the address."
    if isinstance(error, socket.gaierror):
        host = urlsplit(address.url).hostname
        return f"The host name {host!r} is not known.", f"Check the address; it came from: {address.found_by}."
    if isinstance(error, httpx2.ProxyError | ProxyError):
        return f"The proxy on the way to {address.url} refused ({error}).", _proxy_hint(address.url)
    if isinstance(error, httpx2.RemoteProtocolError):
        return (
            f"{address.url} closed the connection without an HTTP answer.",
            _proxy_hint(address.url) or "Does it speak HTTPS? Then use https:// in the address.",
        )
    if isinstance(error, InvalidHandshake):
        return f"The WebSocket handshake with {address.url} failed ({error}).", _UPGRADE_HINT
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The innermost cause first: what a library wrapped says more than its wrapper."""
    if error is not None:
        yield from _causes(error.__cause__ or error.__context__)
        yield error


def _proxy_hint(url: str) -> str:
    """Say which proxy the environment names for ``url``; empty when it names none."""
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme) or getproxies().get("all")
    host = parts.hostname or ""
    if not proxy or host in ("127.0.0.1", "localhost", "::1") or proxy_bypass(host):
        return ""
    shown = urlsplit(proxy if "://" in proxy else f"http://{proxy}").netloc.rpartition("@")[2]
    return f"The environment names the proxy {shown}: check it, or add {host} to NO_PROXY to go without it."


def _by_name(name: str) -> type[CambioError] | None:
    """``SessionNotFound``, ``session_not_found`` and ``Session not found`` all name the same class."""
    return _KINDS.get("".join(letter for letter in name.lower() if letter.isalnum()))
