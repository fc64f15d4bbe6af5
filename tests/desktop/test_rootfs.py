"""A sandbox on the files of the desktop's image shows what a container shows."""

from __future__ import annotations

import asyncio
import os
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cambio_lab.desktop import make_provider
from cambio_lab.desktop.provider import DesktopOptions
from cambio_lab.desktop.sandbox.probe import HOST, build_rootfs, find_root, packages, rootfs_folder
from cambio_lab.errors import DesktopUnavailable
from cambio_lab.settings import Settings

SETTINGS = Settings(pool_size=0)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of the test's own that the users of sandboxes can enter."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("XDG_CACHE_HOME", folder)
        yield Path(folder)


async def shown(kind: str) -> tuple[bytes, bytes]:
    """The pixels of a new desktop once panel and background are drawn, and the programs of its system."""
    provider = await make_provider(SETTINGS, server_id=uuid.uuid4().hex, kind=kind)
    try:
        desktop = await provider.acquire("test", DesktopOptions())
        await asyncio.sleep(2)  # the panel's clock and the background come after the window manager
        screenshot = await desktop.screenshot()
        _, programs, _ = await desktop.execute(["ls", "/usr/bin"])
        return screenshot.data, programs
    finally:
        await provider.stop()


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_both_kinds_show_the_same_desktop(docker_host: str, cache: Path) -> None:
    folder = await build_rootfs(SETTINGS, lambda progress: None)
    assert find_root(SETTINGS) == folder == rootfs_folder()
    assert find_root(replace(SETTINGS, sandbox_rootfs=False)) == HOST
    left = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in left if path.stat().st_mode & 0o6000]
    assert await shown("docker") == await shown("sandbox")


async def test_without_the_files_sandboxes_run_this_machines_programs(cache: Path) -> None:
    assert find_root(SETTINGS) == HOST


async def test_without_engine_and_mmdebstrap_it_says_what_to_install(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DesktopUnavailable) as refused:
        await build_rootfs(SETTINGS, lambda progress: None)
    assert "mmdebstrap" in refused.value.hint
    assert os.listdir(cache / "cambio-lab") == []  # noqa: PTH208


def test_the_packages_are_those_of_the_image() -> None:
    assert {"tigervnc-standalone-server", "firefox-esr", "chromium", "nftables", "squid"} <= set(packages())
    assert all(name.replace("-", "").replace(".", "").isalnum() for name in packages())
