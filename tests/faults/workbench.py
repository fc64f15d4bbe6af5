"""Registry, store, agent, SDK and provider as in the server, in the test's own process: faults can be put anywhere."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

from cambio_lab.api.messages import Encoder
from cambio_lab.desktop.provider import DesktopProvider
from cambio_lab.sessions import Clock, Subscription
from cambio_lab.sessions.registry import Registry
from cambio_lab.sessions.session import Session
from cambio_lab.settings import Settings
from cambio_lab.store import Store
from tests.messages_api import MessagesApi

Message = dict[str, Any]


class Workbench:
    """``desktop`` is ``docker``, ``local`` or a provider. Start, stop, crash and start again on one directory."""

    def __init__(
        self, directory: Path, desktop: str | DesktopProvider, api: MessagesApi | None = None, **settings: Any
    ) -> None:
        self.directory = directory
        self.server_id = uuid.uuid4().hex
        base = {"model": "demo", "approval": "never", "pool_size": 0, "keep_sessions": False}
        if api is not None:
            base |= {"model": "claude-sonnet-5-5", "base_url": api.base_url}
        self.settings = Settings(**{**base, **settings})
        self.clock: Clock | None = None
        self._desktop = desktop

    async def start(self) -> Registry:
        self.provider = self._make() if isinstance(self._desktop, str) else self._desktop
        self.store = await Store.open(self.directory)
        self.registry = Registry(
            settings=self.settings,
            store=self.store,
            provider_for=lambda kind: self.provider,
            encode=Encoder("/"),
            clock=self.clock,
        )
        await self.registry.start()
        return self.registry

    def _make(self) -> DesktopProvider:
        if self._desktop == "docker":
            from cambio_lab.desktop.docker.provider import DockerProvider

            return DockerProvider(self.settings, server_id=self.server_id)
        from cambio_lab.desktop.sandbox.provider import LocalProvider

        return LocalProvider(self.settings, server_id=self.server_id)

    async def stop(self) -> None:
        kept = await self.registry.stop()
        await self.provider.stop(keep=kept)
        await self.store.close()


class Listener:
    """Everything a session says from now on, as a list, read by a task."""

    def __init__(self, session: Session, *, stream: bool = False) -> None:
        self.seen: list[Message] = []
        self.reader: Subscription = session.subscribe(stream=stream)
        self._news = asyncio.Condition()
        self._task = asyncio.create_task(self._read())

    async def until(self, kind: str, seconds: float = 60.0, *, start: int = 0) -> Message:
        """The first message of ``kind``: a type, ``type:status`` or ``status:event``, from index ``start`` on."""
        async with asyncio.timeout(seconds), self._news:
            while True:
                for message in self.seen[start:]:
                    if kind in names(message):
                        return message
                if self._task.done():
                    raise AssertionError(f"ended without {kind}: {[names(one)[-1] for one in self.seen]}")
                await self._news.wait()

    async def close(self) -> None:
        self.reader.close()
        await self._task

    async def _read(self) -> None:
        position = self.reader.position
        async for number, text in self.reader:
            assert number == position + 1
            position = number
            async with self._news:
                self.seen.append(json.loads(text))
                self._news.notify_all()
        async with self._news:
            self._news.notify_all()


def names(message: Message) -> list[str]:
    found = [message["type"]]
    if "status" in message:
        found.append(f"{message['type']}:{message['status']}")
    if event := message.get("metadata", {}).get("event"):
        found.append(f"{message['type']}:{event}")
    return found
