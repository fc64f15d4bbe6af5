"""Containers: how they are made, kept ready, found again and removed."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import time
import uuid
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from cambio_lab.desktop import make_provider
from cambio_lab.desktop.base import Size
from cambio_lab.desktop.connected import ConnectedDesktop
from cambio_lab.desktop.docker.containers import remove
from cambio_lab.desktop.docker.engine import Engine, EngineError
from cambio_lab.desktop.docker.image import image_tag
from cambio_lab.desktop.docker.network import load_rules
from cambio_lab.desktop.docker.provider import DockerProvider
from cambio_lab.desktop.provider import DesktopOptions
from cambio_lab.desktop.rfb.client import RfbClient
from cambio_lab.errors import DesktopLost, DesktopUnavailable
from cambio_lab.settings import Settings
from tests.faults.engine_proxy import EngineProxy


@pytest.fixture
def engine(docker_host: str) -> Any:
    client = docker.APIClient(base_url=docker_host)
    yield client
    client.close()


def name() -> str:
    """A server id that no earlier run has used."""
    return f"test-{uuid.uuid4().hex[:8]}"


def ours(engine: Any, provider: DockerProvider) -> list[dict[str, Any]]:
    """Containers of one provider, running or not."""
    label = f"org.cambio-lab.server={provider.server_id}"
    found: list[dict[str, Any]] = engine.containers(all=True, filters={"label": label})
    return found


async def one_ready(provider: DockerProvider) -> None:
    for _ in range(600):
        if "1 ready" in (await provider.health()).summary:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the pool was not filled")


async def test_what_the_first_desktop_needs_is_there_before_it(docker_host: str, engine: Any) -> None:
    provider = DockerProvider(Settings(pool_size=0), server_id=name())
    await provider.start()
    assert provider._preparing is not None
    await provider._preparing
    assert not provider.unclean
    assert provider._networks._prepared_until == math.inf
    assert ours(engine, provider) == []
    await provider.stop()


async def test_a_creation_that_is_cancelled_leaves_nothing(docker_host: str, engine: Any) -> None:
    provider = DockerProvider(Settings(pool_size=0), server_id=name())
    for moment in (0.001, 0.004, 0.01, 0.05, 0.2, 0.4):
        for options in (DesktopOptions(), DesktopOptions(network="allow", allow_hosts=("example.test",))):
            creation = asyncio.create_task(provider.acquire("cancelled", options))
            await asyncio.sleep(moment)
            creation.cancel()
            await asyncio.wait([creation])
            if not creation.cancelled():  # a quick machine
                await creation.result().close()
            assert ours(engine, provider) == []
            assert engine.networks(filters={"label": f"org.cambio-lab.server={provider.server_id}"}) == []
    await provider.stop()


async def test_rules_whose_loading_is_cancelled_leave_no_container(
    docker_host: str, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled while the helper container is being removed: the removal ends first."""
    ours_only, removing = Engine(), asyncio.Event()
    server = name()

    async def slow(engine: Engine, container: str) -> None:
        removing.set()
        await asyncio.sleep(0.2)
        await remove(engine, container)

    monkeypatch.setattr("cambio_lab.desktop.docker.network.remove", slow)
    loading = asyncio.create_task(load_rules(ours_only, server, image_tag(Settings().image), []))
    await removing.wait()
    loading.cancel()
    await asyncio.wait([loading])
    assert loading.cancelled()
    assert engine.containers(all=True, filters={"label": f"org.cambio-lab.server={server}"}) == []
    ours_only.close()


@pytest.mark.parametrize(("status", "quiet"), [(404, True), (409, True), (500, False), (0, False)])
async def test_a_removal_that_the_engine_refuses_is_no_removal(status: int, quiet: bool) -> None:
    class Refusing:
        async def call(self, action: Any) -> None:
            raise EngineError("device or resource busy", status)

    if quiet:
        await remove(Refusing(), "container")  # type: ignore[arg-type]
    else:
        with pytest.raises(EngineError, match="busy"):
            await remove(Refusing(), "container")  # type: ignore[arg-type]


async def test_a_container_is_sealed(
    engine: Any, docker_desktop: ConnectedDesktop, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = engine.inspect_container(docker_desktop.container_id)
    host, config = state["HostConfig"], state["Config"]
    assert config["User"] == "900:900"
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["ReadonlyRootfs"] is True
    assert host["Init"] is True
    assert host["Privileged"] is False
    assert host["Memory"] == host["MemorySwap"] == 2 * 1024**3
    assert host["NanoCpus"] == 2_000_000_000
    assert host["PidsLimit"] == 512
    assert host["ShmSize"] == 512 * 1024**2
    assert all("size=" in options for options in host["Tmpfs"].values())
    assert not state["Mounts"]
    assert not host["Binds"]
    assert {binding["HostIp"] for port in host["PortBindings"].values() for binding in port} == {"127.0.0.1"}
    assert config["Labels"]["org.cambio-lab.server"]
    password = docker_desktop.endpoint().password
    assert password
    text = json.dumps(state)
    assert password not in text
    assert "sk-" not in text
    assert "ANTHROPIC" not in text


async def test_the_port_refuses_who_lacks_the_password(docker_desktop: ConnectedDesktop) -> None:
    endpoint = docker_desktop.endpoint()
    missing = "VNC authentication is required but no password is set"
    for password, message in (("wrong", "refused the session's password"), ("", missing), (None, missing)):
        with pytest.raises(DesktopLost, match=message):
            await RfbClient.connect(replace(endpoint, password=password), lambda damage: None)
    # Ten bad guesses do not lock the server out.
    for _ in range(10):
        with pytest.raises(DesktopLost):
            await RfbClient.connect(replace(endpoint, password="guess"), lambda damage: None)
    good = await RfbClient.connect(endpoint, lambda damage: None)
    await good.close()


async def test_close_removes_the_container(engine: Any, docker_provider: DockerProvider) -> None:
    desktop = await docker_provider.acquire("test", DesktopOptions())
    lost = asyncio.create_task(desktop.lost())
    await desktop.close()
    await desktop.close()
    assert not ours(engine, docker_provider)
    assert not lost.done()
    lost.cancel()


async def test_sizes(docker_provider: DockerProvider) -> None:
    desktop = await docker_provider.acquire("test", DesktopOptions(size=Size(1920, 1080)))
    assert desktop.size == Size(1920, 1080)
    await desktop.resize(Size(1024, 768))
    screenshot = await desktop.screenshot()
    assert (screenshot.width, screenshot.height) == (1024, 768)


@pytest.mark.timing
async def test_the_pool_is_taken_from_and_refilled(engine: Any, settings: Settings, docker_host: str) -> None:
    provider = await make_provider(replace(settings, pool_size=1), server_id=name(), kind="docker")
    assert isinstance(provider, DockerProvider)
    await provider.start()
    try:
        for _ in range(2):
            await one_ready(provider)
            begin = time.perf_counter()
            desktop = await provider.acquire("test", DesktopOptions())
            took = (time.perf_counter() - begin) * 1000
            assert took < 60, f"{took:.1f} ms"
            assert (await desktop.screenshot()).width == 1280
        # One that died while it waited is not handed out.
        await one_ready(provider)
        waiting = {item["Id"] for item in ours(engine, provider)} - set(provider._pool.in_use)
        engine.remove_container(waiting.pop(), force=True)
        await asyncio.sleep(0.3)
        assert (await (await provider.acquire("test", DesktopOptions())).screenshot()).width == 1280
    finally:
        await provider.stop()
    assert not ours(engine, provider)


async def test_a_server_adopts_its_own_and_removes_the_rest(engine: Any, settings: Settings, docker_host: str) -> None:
    server_id = name()
    first = await make_provider(settings, server_id=server_id, kind="docker")
    kept, forgotten = [await first.acquire(wish, DesktopOptions()) for wish in ("kept", "forgotten")]
    await kept.execute(["touch", "mine"])
    await first.stop(keep=frozenset({kept.desktop_id, forgotten.desktop_id}))

    other = await make_provider(settings, server_id=name(), kind="docker")
    assert await other.adopt(kept.desktop_id, "kept") is None
    assert await other.reap(frozenset()) == []
    await other.stop()

    second = await make_provider(settings, server_id=server_id, kind="docker")
    assert isinstance(second, DockerProvider)
    adopted = await second.adopt(kept.desktop_id, "kept")
    assert adopted is not None
    assert await second.reap(frozenset({kept.desktop_id})) == [forgotten.desktop_id]
    assert [entry.path for entry in await adopted.list_files() if entry.path == "mine"]
    assert (await adopted.screenshot()).width == 1280
    assert adopted.endpoint().password == kept.endpoint().password
    assert await second.adopt("0" * 64, "gone") is None
    await second.stop()
    assert not ours(engine, second)


async def test_death_is_told(engine: Any, docker_desktop: ConnectedDesktop) -> None:
    lost = asyncio.create_task(docker_desktop.lost())
    engine.kill(docker_desktop.container_id)
    assert "stopped with exit code" in await asyncio.wait_for(lost, 10)
    with pytest.raises(DesktopLost, match="exit code"):
        await docker_desktop.screenshot()
    assert not await docker_desktop.alive()


@pytest.mark.slow
async def test_twenty_at_once_all_come(engine: Any, settings: Settings, docker_host: str) -> None:
    provider = await make_provider(replace(settings, max_desktops=20), server_id=name(), kind="docker")
    assert isinstance(provider, DockerProvider)
    begin = time.perf_counter()
    wishes = [provider.acquire(str(n), DesktopOptions()) for n in range(20)]
    results = await asyncio.gather(*wishes, return_exceptions=True)
    print(f"20 desktops after {time.perf_counter() - begin:.1f} s")
    desktops = [result for result in results if isinstance(result, ConnectedDesktop)]
    assert len({desktop.desktop_id for desktop in desktops}) == 20
    screenshots = await asyncio.gather(*(desktop.screenshot() for desktop in desktops))
    assert {screenshot.width for screenshot in screenshots} == {1280}
    await provider.stop()
    assert not ours(engine, provider)


async def test_what_is_missing_is_named(settings: Settings, docker_provider: DockerProvider) -> None:
    with pytest.raises(DesktopUnavailable, match="no image 'absent:1'"):
        await docker_provider.acquire("test", DesktopOptions(image="absent:1"))


async def test_an_engine_that_went_away_leaves_no_socket_open(docker_host: str, tmp_path: Path) -> None:
    proxy = EngineProxy(docker_host, tmp_path / "engine.sock")
    await proxy.start()
    engine = Engine(proxy.host)
    assert (await engine.call(lambda client: client.version()))["Version"]
    await proxy.stop()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(DesktopUnavailable, match="No Docker Engine"):
            await engine.call(lambda client: client.version())
        gc.collect()
    assert not [warning for warning in caught if warning.category is ResourceWarning]
    engine.close()


async def test_health_says_so_when_an_engine_stops_answering_between_two_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error here, at a server's start, kept it from serving sessions until it was restarted."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/_ping" in await reader.readline():
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK")
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_unix_server(serve, tmp_path / "engine.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
    provider = DockerProvider(Settings(pool_size=0), server_id=name())
    assert not (await provider.health()).up
    await provider.stop()
    server.close()
    await server.wait_closed()


async def test_no_engine(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    provider = await make_provider(settings, server_id=uuid.uuid4().hex, kind="docker")
    with pytest.raises(DesktopUnavailable, match="No Docker Engine") as caught:
        await provider.acquire("test", DesktopOptions())
    assert "DOCKER_HOST" in caught.value.hint
    health = await provider.health()
    assert not health.up
    await provider.stop()
    provider = await make_provider(settings, server_id=uuid.uuid4().hex, kind="auto")
    assert provider.name == "docker"  # never without isolation
