"""Whoever waits for the image is told how far it is, also when someone else had begun to build it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from cambio_lab.desktop.docker.engine import Engine
from cambio_lab.desktop.docker.provider import DockerProvider
from cambio_lab.desktop.provider import DesktopOptions, Progress
from cambio_lab.settings import Settings


async def test_everybody_who_waits_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = DockerProvider(Settings(pool_size=0), server_id=uuid.uuid4().hex)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def build(engine: Engine, image: str, report: Callable[[Progress], None], *, dockerfile: Path | None) -> str:
        begun.set()
        await go_on.wait()
        report(Progress("Step 2/9 : RUN apt-get", 0.2))
        return "image:1"

    monkeypatch.setattr("cambio_lab.desktop.docker.provider.build_image", build)
    told: list[str] = []
    pool = asyncio.create_task(provider._image(DesktopOptions()))
    await begun.wait()
    waiting = [
        asyncio.create_task(provider._image(DesktopOptions(progress=lambda one: told.append(one.text))))
        for _ in range(2)
    ]
    await asyncio.sleep(0)
    go_on.set()
    assert set(await asyncio.gather(pool, *waiting)) == {"image:1"}
    assert told == ["Step 2/9 : RUN apt-get"] * 2
    assert provider._told == []
    await provider.stop()
