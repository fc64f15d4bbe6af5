"""A desktop in a container, connected to."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

from cambio_lab.errors import DesktopUnavailable
from cambio_lab.settings import Settings

from ..base import VncEndpoint
from ..connected import ConnectedDesktop, Forget
from ..machine import Process
from . import remove
from .engine import Engine, EngineError, HijackedStream
from .exec import ContainerMachine, ExecProcess, Relay
from .network import Networks, Placement

log = logging.getLogger(__name__)

_ENGINE_PATIENCE = 30.0
"""Seconds for which a desktop that is cut off waits for an engine that does not answer."""


class ScriptOutput:
    """What one of the image's start scripts says on its standard output; hostile, so only its last 4 KB are kept."""

    def __init__(self, stream: HijackedStream | Process) -> None:
        self._stream = stream
        self._said = b""

    async def need(self, word: str) -> None:
        """Wait for the line ``word``. :class:`DesktopUnavailable` with what was said instead if the script ends."""
        if not await self.until(word):
            words = self._said.decode("utf-8", "replace").strip().splitlines()
            raise DesktopUnavailable(f"The desktop did not start: {words[-1] if words else 'it ended at once'}.")

    async def until(self, word: str) -> bool:
        """Wait for the line ``word``; false when the script ends without it."""
        while f"{word}\n".encode() not in self._said:
            piece = await self._stream.read()
            if piece is None:
                return False
            self._said = (self._said + piece[1])[-4096:]
        return True


def abandon(starting: asyncio.Task[ExecProcess]) -> None:
    """Release the streams of a program that may still be starting."""

    def release(task: asyncio.Task[ExecProcess]) -> None:
        if not task.cancelled() and task.exception() is None:
            task.result().abandon()

    starting.cancel()
    starting.add_done_callback(release)


class DockerDesktop(ConnectedDesktop):
    """A desktop whose body is a container; it takes its proxy with it."""

    isolated = True
    outlives_server = True
    placement: Placement | None = None
    relay: Relay | None = None

    def __init__(
        self,
        engine: Engine,
        container: str,
        endpoint: VncEndpoint,
        image_digest: str | None,
        settings: Settings,
        networks: Networks,
        forget: Forget,
    ) -> None:
        super().__init__(container, endpoint, ContainerMachine(engine, container), settings, forget)
        self.container_id = container
        self.vnc_port = endpoint.port
        self.image_digest = image_digest
        self._engine = engine
        self._networks = networks

    async def _state(self) -> dict[str, Any]:
        """What the engine says of it; empty when it knows it no more."""
        try:
            inspected = await self._engine.call(lambda client: client.inspect_container(self.desktop_id))
        except EngineError:
            return {}
        state: dict[str, Any] = inspected["State"]
        return state

    async def alive(self) -> bool:
        """An engine that does not answer may be restarting, and its containers may outlive that: it is waited for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_ENGINE_PATIENCE):
                while True:
                    with suppress(DesktopUnavailable):
                        return bool((await self._state()).get("Running"))
                    await asyncio.sleep(0.5)
        return False

    async def cause(self) -> str:
        try:
            state = await self._state()
        except DesktopUnavailable:
            return "The desktop and its Docker Engine do not answer."
        if not state:
            return "The desktop's container was removed."
        if state.get("OOMKilled"):
            return "The desktop ran out of memory."
        return f"The desktop's container stopped with exit code {state.get('ExitCode')}."

    def listen(self, server: HijackedStream, said: ScriptOutput, session: asyncio.Task[ExecProcess]) -> None:
        """Press keys and start programs only once the start scripts say that they may."""
        self.machine.keyed.clear()

        async def heed() -> None:
            await said.need("ready")
            self.machine.keyed.set()
            await ScriptOutput(await asyncio.shield(session)).until("managed")

        def heard(task: asyncio.Task[None]) -> None:
            server.close()
            abandon(session)
            self.machine.keyed.set()  # a caller that waits finds out by itself that the desktop is gone
            if not task.cancelled() and (error := task.exception()) is not None:
                log.info("desktop not ready: container=%s error=%s", self.desktop_id[:12], error)

        self.machine.managed = asyncio.create_task(heed(), name="window-manager")
        self.machine.managed.add_done_callback(heard)

    async def release(self) -> None:
        await super().release()
        if self.relay is not None:
            await self.relay.close()

    async def _destroy(self) -> None:
        await remove(self._engine, self.desktop_id)
        if self.placement is not None:
            await self._networks.remove(self.placement)
