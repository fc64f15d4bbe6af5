"""Who answers a turn's requests: the model, or a client that takes its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .client import ModelClient
from .models import TOOLSET, ModelInfo
from .options import TurnOptions

if TYPE_CHECKING:
    from .transports.directed import DirectedTransport


class Speaker:
    """What answers a turn's requests: the model, or a client that gives its calls itself and needs no key for that."""

    def __init__(self, model: ModelClient, *, owned: bool) -> None:
        self._model = model
        self._owned = owned
        self._direct: tuple[ModelClient, DirectedTransport] | None = None
        self.client = model

    @property
    def by_client(self) -> bool:
        return self.client is not self._model

    def choose(self, asked: TurnOptions | None, info: ModelInfo) -> None:
        """Choose for the turn that begins."""
        self.client = self._model
        if asked is None or not asked.calls:
            return
        from .transports.directed import DirectedTransport  # with httpx2

        if self._direct is None:
            transport = DirectedTransport()
            self._direct = self._model.in_place(transport), transport
        self.client, transport = self._direct
        transport.direct(asked.calls, toolset=info.tool == TOOLSET)

    async def aclose(self) -> None:
        if self._direct is not None:
            await self._direct[0].aclose()
        if self._owned:
            await self._model.aclose()
