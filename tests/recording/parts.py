"""A server's middle (registry, store, real desktop) in this process, with the stand-in as the model."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from cambio_lab.api.messages import Encoder
from cambio_lab.desktop.provider import DesktopProvider
from cambio_lab.desktop.sandbox.provider import LocalProvider
from cambio_lab.reports import Run
from cambio_lab.sessions.registry import Registry
from cambio_lab.sessions.session import Session
from cambio_lab.settings import Settings
from cambio_lab.store import Store
from tests.messages_api import MessagesApi


class Workshop:
    """``await workshop.run("do this", policy=...)`` is a whole recorded session."""

    def __init__(self, directory: Path, provider: DesktopProvider, api: MessagesApi) -> None:
        self.directory = directory
        self.provider = provider
        self.api = api
        self.store: Store
        self.registry: Registry

    async def open(self) -> None:
        settings = Settings(model="claude-sonnet-5-5", base_url=self.api.base_url, approval="never")
        self.store = await Store.open(self.directory / "data")
        self.registry = Registry(
            settings=settings,
            store=self.store,
            provider_for=lambda kind: self.provider,
            encode=Encoder("/"),
        )
        await self.registry.start()

    async def close(self) -> None:
        await self.registry.stop()
        await self.store.close()

    async def start(self, name: str = "a run", **config: Any) -> Session:
        return await self.registry.create(name, config)

    async def send(self, session: Session, content: str) -> None:
        await session.send(content)
        assert session.turn_task is not None
        await session.turn_task

    async def run(self, *prompts: str, name: str = "a run", policy: Any = None, **config: Any) -> Run:
        if policy is not None:
            self.api.policy = policy
        session = await self.start(name, **config)
        for prompt in prompts:
            await self.send(session, prompt)
        await self.registry.end(session.id)
        return await Run.from_store(self.store, session.id)


@pytest.fixture
async def open_workshop(
    tmp_path: Path, messages_api: MessagesApi, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Any]]:
    """``await open_workshop(provider=None)``; the default provider makes local desktops."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANTHROPIC_API_KEY", messages_api.key)
    async with contextlib.AsyncExitStack() as stack:

        async def make(provider: DesktopProvider | None = None) -> Workshop:
            chosen = provider or LocalProvider(Settings(), server_id=uuid.uuid4().hex)
            workshop = Workshop(tmp_path, chosen, messages_api)
            await workshop.open()
            stack.push_async_callback(chosen.stop)
            stack.push_async_callback(workshop.close)
            return workshop

        yield make


@pytest.fixture
async def workshop(open_workshop: Callable[..., Any]) -> Workshop:
    made: Workshop = await open_workshop()
    return made
