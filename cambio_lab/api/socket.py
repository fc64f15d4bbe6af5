"""What both WebSockets share: everything is decided before the upgrade, dead peers are dropped."""

from __future__ import annotations

from typing import Any, ClassVar

from . import metrics
from .base import Guarded
from .failure import Refused


class Socket(Guarded):
    """Mixed in before a WebSocket handler. :meth:`admit` looks things up while a refusal can still be an answer."""

    methods = ("GET",)
    what: ClassVar[str] = "a WebSocket"
    _counted = False

    async def get(self, *args: str, **kwargs: str) -> None:
        """The handshake, or :meth:`plain` for a request that is none."""
        if not self.upgrading:
            await self.plain(*args)
            return
        self._check_handshake()
        await self.admit(*args)
        try:
            await super().get(*args, **kwargs)  # type: ignore[misc]
        finally:
            self.released()

    async def plain(self, *args: str) -> None:
        """A GET without upgrade."""
        raise Refused(400, f"This is {self.what}: connect with a WebSocket client.", headers={"Upgrade": "websocket"})

    async def admit(self, *args: str) -> None:
        """Raise what speaks against this connection; nothing is upgraded yet."""

    def released(self) -> None:
        """The connection is over, or never came to be: let go of what :meth:`admit` took."""

    def _check_handshake(self) -> None:
        headers = self.request.headers
        if "upgrade" not in {part.strip().lower() for part in headers.get("Connection", "").split(",")}:
            raise Refused(400, "The header 'Connection: Upgrade' is missing.")
        if headers.get("Sec-WebSocket-Version") != "13":
            version = {"Sec-WebSocket-Version": "13"}
            raise Refused(400, "Only version 13 of the WebSocket protocol is spoken here.", headers=version)
        if not headers.get("Sec-WebSocket-Key"):
            raise Refused(400, "The header Sec-WebSocket-Key is missing.")

    @property
    def ping_interval(self) -> float:
        """Seconds; Tornado drops a peer that has not answered one ping when the next is due."""
        return self.services.settings.heartbeat

    @property
    def ping_timeout(self) -> float:
        return self.services.settings.heartbeat

    def count_open(self, opened: bool) -> None:
        """Keep the gauge of open sockets true, however often the end is reported."""
        if opened != self._counted:
            self._counted = opened
            metrics.SOCKETS.labels(self.endpoint).inc(1 if opened else -1)

    def options(self, *args: str, **kwargs: Any) -> None:
        super().options(*args)
