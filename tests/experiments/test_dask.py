"""Experiments on a real Dask cluster of worker processes: same results, deaths survived, nothing secret on the way."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster, Worker

from cambio_lab.desktop.provider import ProviderHealth
from cambio_lab.errors import ConfigurationError
from cambio_lab.experiments import Experiment, Task
from cambio_lab.experiments.site import Site, SiteSpec
from cambio_lab.recording.run_file import unpack
from tests.messages_api import MessagesApi

from .conftest import BAD, GOOD, word_task, write_word
from .driver import build as build_killed
from .instant import OPEN_LOG, InstantProvider, make_instant

ROOT = Path(__file__).resolve().parents[2]


class Cluster:
    """Worker processes, the service they ask, and a log of their desktops; shared by this module's tests."""

    def __init__(self, api: MessagesApi, dask: LocalCluster, log: Path) -> None:
        self.api, self.dask, self._log = api, dask, log

    @property
    def address(self) -> str:
        return str(self.dask.scheduler_address)

    def client(self) -> Client:
        return Client(self.address, asynchronous=True)

    def open_desktops(self) -> set[str]:
        """Opened and not closed, over all processes."""
        opened: set[str] = set()
        for line in self._log.read_text().splitlines():
            what, desktop, _ = line.split()
            (opened.add if what == "open" else opened.discard)(desktop)
        return opened


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    log = tmp_path_factory.mktemp("cluster") / "desktops.log"
    log.touch()
    with pytest.MonkeyPatch.context() as patch, MessagesApi(policy=write_word) as api:
        for name, value in {**api.environment, "PYTHONPATH": str(ROOT), OPEN_LOG: str(log)}.items():
            patch.setenv(name, value)
        options = {"threads_per_worker": 2, "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
        with LocalCluster(n_workers=3, processes=True, **options) as dask:
            yield Cluster(api, dask, log)


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    shared.api.delay = 0.0
    shared.api.requests.clear()
    shared.api.refusals.clear()
    yield shared
    assert not shared.api.refusals


def build(tmp_path: Path, tasks: list[Task] | None = None, **options: Any) -> Experiment:
    values = {"models": [GOOD, BAD], "repeats": 3, "directory": tmp_path, "make_provider": make_instant, **options}
    return Experiment(tasks or [word_task()], **values)


async def test_workers_give_what_one_machine_gives(tmp_path: Path, cluster: Cluster) -> None:
    local = build(tmp_path, name="local")
    await local.run(progress=False)
    async with cluster.client() as client:
        spread = build(tmp_path, name="spread")
        tally = await spread.run(engine=client, progress=False)
        resources = [*(await client.run(_resources)).values()]
    assert (tally.ended, tally.done, tally.success) == ("complete", 6, 3)
    columns = ["task", "model", "setting", "repeat", "seed", "success", "steps", "output_tokens"]
    assert spread.results[columns].equals(local.results[columns])
    assert spread.results["worker"].nunique() >= 2, "one did it all"
    for cell in spread.cells:
        run = unpack(spread.directory / "runs" / cell.outcome.bundle)  # type: ignore[union-attr]
        assert run.manifest["complete"]
    assert not cluster.open_desktops()
    assert resources == [{"desktop": 2}] * 3, "where nobody says how many desktops, threads and memory do"


@pytest.mark.slow
async def test_each_worker_chooses_the_sandbox_where_no_engine_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: MessagesApi
) -> None:
    """Real desktops on a real cluster: the workers' machines have no engine, and none was named."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    for name, value in {"DOCKER_CONFIG": str(tmp_path), "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    options = {"threads_per_worker": 2, "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
    with LocalCluster(n_workers=2, processes=True, **options) as dask:
        async with Client(dask.scheduler_address, asynchronous=True) as client:
            grid = Experiment([word_task()], models=[GOOD], repeats=6, directory=tmp_path / "grid")
            tally = await grid.run(engine=client, progress=False)
    assert (tally.ended, tally.done, tally.success) == ("complete", 6, 6)
    assert grid.results["worker"].nunique() == 2
    for cell in grid.cells:
        run = unpack(grid.directory / "runs" / cell.outcome.bundle)  # type: ignore[union-attr]
        assert run.manifest["environment"]["desktop"]["isolated"]


async def test_a_worker_killed_in_mid_run(tmp_path: Path, cluster: Cluster) -> None:
    """Every cell is counted once; the victim's cells are run elsewhere; what it had spent is on the books."""
    cluster.api.delay = 0.4
    async with cluster.client() as client:
        grid = build(tmp_path, repeats=4)
        running = asyncio.create_task(grid.run(engine=client, progress=False))
        os.kill(await _busy_worker(client, running), signal.SIGKILL)
        tally = await running
    assert (tally.ended, tally.done, tally.success, tally.failed) == ("complete", 8, 4, 0)
    outcomes = [cell.outcome for cell in grid.cells if cell.outcome]
    assert len({outcome.run_id for outcome in outcomes}) == 8
    assert len(list((grid.directory / "runs").glob("*.cambio"))) == 8
    assert tally.spent_usd >= sum(outcome.usage.cost_usd for outcome in outcomes) - 1e-9


async def _busy_worker(client: Client, running: asyncio.Future[Any] | None = None) -> int:
    """The process id of a worker that has an attempt under way."""
    async with asyncio.timeout(60):
        while running is None or not running.done():
            pids = await client.run(os.getpid)
            for address, keys in (await client.processing()).items():
                if any("cambio-lab" in str(key) for key in keys):
                    await asyncio.sleep(0.5)
                    return int(pids[address])
            await asyncio.sleep(0.05)
    raise AssertionError("no worker was ever busy")


async def test_a_driver_that_lost_its_futures_finds_its_runs(tmp_path: Path, cluster: Cluster) -> None:
    """What a cut connection does to a client: its futures are cancelled. The workers go on, and so do we."""
    cluster.api.delay = 0.5
    async with cluster.client() as client:
        grid = build(tmp_path, repeats=2, models=[GOOD])
        running = asyncio.create_task(grid.run(engine=client, progress=False))
        await _busy_worker(client, running)
        client.scheduler_comm.comm.abort()
        tally = await running
    assert (tally.done, tally.success) == (2, 2)
    assert len(cluster.api.requests) == 4, "nothing was asked twice"


async def test_a_killed_drivers_runs_are_taken_up(tmp_path: Path, cluster: Cluster) -> None:
    """``kill -9`` of the driver while workers work for it: the next one counts their results and runs nothing."""
    cluster.api.delay = 1.0
    command = [sys.executable, "-m", "tests.experiments.driver", str(tmp_path), "2", cluster.address]
    before = cluster.open_desktops()  # a worker that an earlier test killed could not say that it closed its own
    driver = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
    async with cluster.client() as client:
        await _busy_worker(client)
        driver.kill()
        await driver.wait()
        tally = await build_killed(tmp_path, 2).run(engine=client, progress=False)
    assert (tally.done, tally.success) == (2, 2)
    assert len(cluster.api.requests) == 4, "two runs of two requests: none was run again"
    assert cluster.open_desktops() == before


async def test_the_key_is_nowhere_on_the_way(tmp_path: Path, cluster: Cluster) -> None:
    """Seeded in the environment of driver and workers, then searched for in everything that came about."""
    secret = cluster.api.key.encode()
    seen: list[bytes] = []
    async with cluster.client() as client:
        submit = client.submit

        def watched(function: Any, *arguments: Any, **options: Any) -> Any:
            seen.append(repr((arguments, options)).encode())
            return submit(function, *arguments, **options)

        client.submit = watched
        await build(tmp_path, repeats=1).run(engine=client, progress=False)
        assert all(key == cluster.api.key for key in (await client.run(_seeded)).values())
        state = await client.run_on_scheduler(_everything)
        logs = repr(await client.get_worker_logs()) + repr(await client.get_scheduler_logs())
    pages = await _pages(cluster.dask.dashboard_link)
    assert seen and secret not in b"".join(seen)
    assert "cambio-lab-" in state and cluster.api.key not in state
    assert cluster.api.key not in logs
    assert "cambio-lab" in pages and cluster.api.key not in pages
    files = [path for path in tmp_path.rglob("*") if path.is_file()]  # noqa: ASYNC240
    assert any(path.suffix == ".cambio" for path in files)
    assert not [path.name for path in files if secret in path.read_bytes()]


def _seeded() -> str:
    return os.environ["ANTHROPIC_API_KEY"]


def _everything(dask_scheduler: Any) -> str:
    """What the scheduler remembers of tasks, plugins and events."""
    events = {topic: list(dask_scheduler.get_events(topic)) for topic in dask_scheduler._broker._topics}
    return repr([list(dask_scheduler.transition_log), events, dask_scheduler.worker_plugins])


async def _pages(link: str) -> str:
    import httpx2

    root = link.rsplit("/", 1)[0]
    async with httpx2.AsyncClient(timeout=20, follow_redirects=True) as http:
        paths = ("/status", "/info/main/workers.html", "/info/logs.html", "/json/counts.json", "/metrics")
        pages = [await http.get(f"{root}{path}") for path in paths]
    return "\n".join(page.text for page in pages)


async def test_a_task_that_contains_the_key_is_refused(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-ant-a-long-secret-value"
    monkeypatch.setenv("ANTHROPIC_API_KEY", key)
    careless = build(tmp_path, repeats=1, models=[GOOD], tasks=[word_task(check=lambda live: key in live.answer)])
    async with cluster.client() as client:
        with pytest.raises(ConfigurationError, match="ANTHROPIC_API_KEY"):
            await careless.run(engine=client, progress=False)


async def test_workers_say_what_they_lack(tmp_path: Path, cluster: Cluster) -> None:
    grid = build(tmp_path, repeats=1, models=[GOOD], make_provider=_no_engine)
    async with cluster.client() as client:
        with pytest.raises(ConfigurationError, match="no Docker Engine answers at nowhere") as caught:
            await grid.run(engine=client, progress=False)
        await client.run(_give_desktops)
    assert str(caught.value).count("tcp://") == 3, "each worker speaks for itself"


async def _no_engine(settings: Any, *, server_id: str, kind: str | None = None) -> Any:
    class Away(InstantProvider):
        async def health(self) -> ProviderHealth:
            return ProviderHealth("docker", False, "no Docker Engine answers at nowhere", "Start it.")

    return Away()


def _resources(dask_worker: Worker) -> dict[str, float]:
    return dict(dask_worker.state.total_resources)


async def _give_desktops(dask_worker: Worker) -> None:
    await dask_worker.set_resources(desktop=2)


async def test_another_version_is_refused() -> None:
    site = Site(SiteSpec("a" * 32, (), version="0.0.0-other"), "here")
    try:
        (problem,) = await asyncio.wrap_future(site.submit(site.check()))
        assert "0.0.0-other where the experiment was started" in problem
    finally:
        await asyncio.to_thread(site.close)


async def test_a_slow_disk_stops_no_other_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record is opened and read in a thread; here it is a pipe, which opens only with its other end."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    site = Site(SiteSpec("c" * 32, ()), "here")
    record = site.folder / "outbox" / "abc.cambio"
    record.parent.mkdir(parents=True)
    os.mkfifo(record)
    reading = asyncio.wrap_future(site.submit(site.piece("abc", 0)))
    try:
        async with asyncio.timeout(5):
            assert (await asyncio.wrap_future(site.submit(site.status())))["finished"] == []
    finally:
        await asyncio.to_thread(lambda: record.open("wb").close())
        with pytest.raises(OSError):  # a pipe has no places
            await reading
        await asyncio.to_thread(site.close)


async def test_a_neighbour_clears_up_after_a_dead_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its results are taken over, its folder goes; a living neighbour's is left alone."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    spec = SiteSpec("b" * 32, (), make_provider=make_instant)
    dead, alive, sweeper = Site(spec, "dead"), Site(spec, "alive"), Site(spec, "sweeper")
    for site in (dead, alive):
        assert await asyncio.wrap_future(site.submit(site.check())) == []
    (dead.folder / "outbox" / "abc.json").write_text("{}")
    await asyncio.wrap_future(dead.submit(dead._store.close()))  # type: ignore[union-attr]  # as the kernel does
    assert await asyncio.wrap_future(sweeper.submit(sweeper.check())) == []
    status = await asyncio.wrap_future(sweeper.submit(sweeper.status()))
    assert status["finished"] == ["abc"]
    assert not dead.folder.exists() and alive.folder.exists()
    for site in (alive, sweeper):
        await asyncio.to_thread(site.close)
    assert not sweeper.folder.exists()
