"""The local desktop: folders of desktops that are being created, long temporary paths."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from pathlib import Path

import pytest

from cambio_lab.desktop.provider import DesktopOptions
from cambio_lab.desktop.sandbox.provider import LocalProvider, SandboxDesktop
from cambio_lab.settings import Settings


def has_home(desktop: SandboxDesktop) -> bool:
    return Path(desktop.machine.home).is_dir()


async def test_reap_keeps_desktops_that_no_session_knows_yet() -> None:
    provider = LocalProvider(Settings(), server_id=uuid.uuid4().hex)
    creating = asyncio.create_task(provider.acquire("session", DesktopOptions()))
    try:
        while not creating.done():
            await provider.reap(frozenset())
            await asyncio.sleep(0.005)
        desktop = await creating
        assert await provider.reap(frozenset()) == []
        assert await desktop.alive()
        assert has_home(desktop)
    finally:
        await provider.stop()
    assert not has_home(desktop)


async def test_a_long_temporary_directory_does_not_prevent_a_desktop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("long" * 25)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    provider = LocalProvider(Settings(), server_id=uuid.uuid4().hex)
    try:
        desktop = await provider.acquire("session", DesktopOptions())
        assert (await desktop.screenshot()).width == 1280
    finally:
        await provider.stop()


async def test_servers_whose_ids_begin_alike_do_not_remove_each_others_desktops() -> None:
    """As workers of one experiment do."""
    common = uuid.uuid4().hex
    first, second = (LocalProvider(Settings(), server_id=f"{common}-{name}") for name in ("first", "second"))
    try:
        desktop = await first.acquire("session", DesktopOptions())
        assert await second.reap(frozenset()) == []
        assert has_home(desktop)
    finally:
        await first.stop()
