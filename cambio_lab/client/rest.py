"""REST calls on the portal's loop: waits a 429 out, turns the error envelope into exceptions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from ..errors import CambioError
from .discovery import Address
from .failure import from_envelope, not_the_api, unreachable

PATIENCE_SECONDS = 120.0
"""Longest sum of waits that ``Retry-After`` may cause in one call."""

Notice = Callable[[str], None]


class Rest:
    """An ``httpx2`` client for one server. Lives on the portal's loop; every method is awaited there."""

    def __init__(self, address: Address, *, notice: Notice, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self.address = address
        self.notice = notice
        # A proxy variable must not send a loopback address, and its token, to another machine.
        self._client = httpx2.AsyncClient(
            base_url=address.url,
            headers=address.headers,
            timeout=60.0,
            trust_env=not address.loopback,
            verify=address.tls() or True,
            transport=transport,
        )

    async def json(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        timeout: float | None = None,
    ) -> Any:
        """Return the decoded answer; raise what :mod:`~cambio_lab.client.failure` makes of any other."""
        response = await self.request(method, path, params=params, json=body, timeout=timeout)
        try:
            return response.json()
        except ValueError as error:
            kind = response.headers.get("content-type") or "no content type"
            raise not_the_api(self.address.url, kind) from error

    async def bytes(
        self, path: str, *, params: Mapping[str, Any] | None = None, patience: float = PATIENCE_SECONDS
    ) -> tuple[bytes, str]:
        """``(content, media type)`` of a GET."""
        response = await self.request("GET", path, params=params, patience=patience)
        return response.content, response.headers.get("content-type", "").partition(";")[0]

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        content: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        accept: tuple[int, ...] = (),
        patience: float = PATIENCE_SECONDS,
    ) -> httpx2.Response:
        """One answered request; ``accept`` are statuses besides 2xx that are no error here.

        ``content`` may be a function that makes the body anew for each try; ``patience`` bounds the waits in seconds.
        """
        options: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
        if json is not None:
            options["json"] = json
        while True:
            if content is not None:
                options["content"] = content() if callable(content) else content
            try:
                response = await self._client.request(method, path, params=params, headers=headers, **options)
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
        try:
            body = response.json()
        except ValueError:
            body = None
        return from_envelope(response.status_code, body, url=self.address.url)


def retry_after(status: int, headers: Mapping[str, str]) -> float | None:
    """Seconds to wait before asking again, or ``None`` when this is no rate limit."""
    if status != 429:
        return None
    try:
        return max(0.05, float(headers.get("Retry-After", "1")))
    except ValueError:
        return 1.0
