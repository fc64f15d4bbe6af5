"""Which desktop `auto` means; isolation is never lost silently."""

from __future__ import annotations

from pathlib import Path

import pytest

from cambio_lab import desktop as doctor
from cambio_lab.api import routes
from cambio_lab.desktop import docker, make_provider
from cambio_lab.desktop.provider import ISOLATION, DesktopOptions
from cambio_lab.desktop.sandbox import probe
from cambio_lab.errors import ConfigurationError, DesktopUnavailable
from cambio_lab.experiments.workplace import Workplace
from cambio_lab.settings import Settings
from cambio_lab.store import Store


@pytest.fixture
def no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where none is named and none answers."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(docker, "DEFAULT_HOST", f"unix://{tmp_path}/nothing")


@pytest.fixture
def no_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without bubblewrap."""
    monkeypatch.setattr(probe, "_found", None)
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("Xvnc", "openbox", "xterm", "xkbcomp", "setpriv"):
        (folder / name).symlink_to(f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", str(folder))


async def test_auto_without_an_engine_is_the_sandbox(no_engine: None) -> None:
    provider = await make_provider(Settings(), server_id="choice")
    assert provider.name == "sandbox"
    desktop = await provider.acquire("test", DesktopOptions())
    assert desktop.isolated
    await provider.stop()


async def test_auto_with_neither_is_refused_with_what_to_do(no_engine: None, no_sandbox: None) -> None:
    provider = await make_provider(Settings(), server_id="choice")
    health = await provider.health()
    assert not health.up
    assert "bwrap" in health.summary
    with pytest.raises(DesktopUnavailable) as refused:
        await provider.acquire("test", DesktopOptions())
    assert "bubblewrap" in refused.value.hint
    assert "desktop=local" in refused.value.hint


async def test_local_is_given_by_name(no_engine: None, no_sandbox: None) -> None:
    provider = await make_provider(Settings(desktop="local"), server_id="choice")
    assert not (await provider.acquire("test", DesktopOptions())).isolated
    await provider.stop()


async def test_an_engine_that_was_named_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing")
    provider = await make_provider(Settings(), server_id="choice")
    assert provider.name == "docker"
    assert not (await provider.health()).up
    await provider.stop()


@pytest.mark.parametrize("named", [True, False])
async def test_an_experiment_does_not_begin_without_isolation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_engine: None, no_sandbox: None, named: bool
) -> None:
    if named:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing")
    store = await Store.open(tmp_path / "store")
    place = Workplace(store, Settings(model="demo"), owner="choice", runs=tmp_path / "runs")
    with pytest.raises(ConfigurationError, match="No desktop can be had"):
        await place.open()
    await place.close()
    await store.close()


@pytest.mark.docker
@pytest.mark.parametrize("kind", ["docker", "sandbox", "local"])
async def test_panel_health_doctor_and_docs_say_the_same_words(docker_host: str, kind: str) -> None:
    words = ISOLATION[kind]
    root = Path(__file__).parents[2]
    assert f"{kind}: trans.__('{words}')" in (root / "labextension/shared/views/panel.tsx").read_text()
    assert f"| {words}: " in (root / "docs/desktop.md").read_text()
    provider = await make_provider(Settings(), server_id="words", kind=kind)
    health = await provider.health()
    await provider.stop()
    assert health.summary.startswith(words)
    assert routes._desktop(health)["desktop"] == words
    probes = {
        "docker": doctor.probe_engine,
        "sandbox": lambda: doctor.probe_sandbox(Settings()),
        "local": doctor.probe_local,
    }
    assert (await probes[kind]()).summary.startswith(words)
