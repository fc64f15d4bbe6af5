"""Experiments on a real Dask cluster of worker processes: same results, deaths survived, nothing secret on the way."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster, Worker

from cambio_lab.errors import ConfigurationError
from cambio_lab.experiments import Experiment
from cambio_lab.experiments.engines.dask import DaskEngine
from cambio_lab.experiments.engines.site import Site, SiteSpec
from cambio_lab.runs.bundle import unpack
from tests.messages_api import MessagesApi

from .conftest import BAD, GOOD, word_task
from .instant import OPEN_LOG, make_instant

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def desktops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], set[str]]:
    """Desktops that were opened and not closed, over all processes."""
    path = tmp_path / "desktops.log"
    path.touch()
    monkeypatch.setenv(OPEN_LOG, str(path))

    def still_open() -> set[str]:
        opened: set[str] = set()
        for line in path.read_text().splitlines():
            what, desktop, _ = line.split()
            (opened.add if what == "open" else opened.discard)(desktop)
        return opened

    return still_open


@pytest.fixture(autouse=True)
def workers_find_the_tests(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield


@asynccontextmanager
async def cluster(workers: int, **options: Any) -> AsyncIterator[tuple[LocalCluster, Client]]:
    values = {"threads_per_worker": 2, "dashboard_address": None, "silence_logs": 50, **options}
    async with (
        LocalCluster(n_workers=workers, processes=True, asynchronous=True, **values) as made,
        Client(made, asynchronous=True) as client,
    ):
        yield made, client


def build(tmp_path: Path, **options: Any) -> Experiment:
    values = {"models": [GOOD, BAD], "repeats": 3, "directory": tmp_path, "make_provider": make_instant, **options}
    return Experiment([word_task()], **values)


async def test_three_workers_give_what_one_machine_gives(
    tmp_path: Path, api: MessagesApi, desktops: Callable[[], set[str]]
) -> None:
    local = build(tmp_path, name="local")
    await local.run(progress=False)
    async with cluster(3) as (_, client):
        spread = build(tmp_path, name="spread")
        tally = await spread.run(engine=client, progress=False)
    assert (tally.ended, tally.done, tally.success) == ("complete", 6, 3)
    columns = ["task", "model", "setting", "repeat", "seed", "success", "steps", "output_tokens"]
    assert spread.results[columns].equals(local.results[columns])
    assert spread.results["worker"].nunique() > 1, "more than one worker worked"
    for cell in spread.cells:
        run = unpack(spread.directory / "runs" / cell.outcome.bundle)  # type: ignore[union-attr]
        assert run.manifest["complete"]
    assert not desktops() and not api.refusals


async def test_a_worker_killed_in_mid_run(tmp_path: Path, api: MessagesApi, desktops: Callable[[], set[str]]) -> None:
    """Every cell is counted once; the victim's cells are run elsewhere; what it had spent is on the books."""
    api.delay = 0.4
    async with cluster(2) as (_, client):
        grid = build(tmp_path, repeats=6)
        running = asyncio.create_task(grid.run(engine=client, progress=False))
        victim = await _busy_worker(client, running)
        os.kill(victim, signal.SIGKILL)
        tally = await running
    assert (tally.ended, tally.done, tally.success, tally.failed) == ("complete", 12, 6, 0)
    ids = [cell.outcome.run_id for cell in grid.cells if cell.outcome]
    assert len(set(ids)) == 12
    assert len(list((grid.directory / "runs").glob("*.cambio"))) == 12
    assert tally.spent_usd >= sum(cell.outcome.usage.cost_usd for cell in grid.cells if cell.outcome) - 1e-9


async def _busy_worker(client: Client, running: asyncio.Task[Any]) -> int:
    """The process id of a worker that has an attempt under way."""
    async with asyncio.timeout(60):
        while not running.done():
            processing = await client.processing()
            pids = await client.run(os.getpid)
            for address, keys in processing.items():
                if keys and any("cambio-lab" in str(key) for key in keys):
                    await asyncio.sleep(0.5)
                    return int(pids[address])
            await asyncio.sleep(0.05)
    raise AssertionError("no worker was ever busy")


async def test_a_driver_that_lost_its_futures_finds_its_runs(tmp_path: Path, api: MessagesApi) -> None:
    """What a cut connection does to a client: its futures are cancelled. The workers go on, and so do we."""
    api.delay = 0.5
    async with cluster(2) as (_, client):
        grid = build(tmp_path, repeats=2, models=[GOOD])
        running = asyncio.create_task(grid.run(engine=client, progress=False))
        await _busy_worker(client, running)
        await asyncio.sleep(0.3)
        client.scheduler_comm.comm.abort()
        tally = await running
    assert (tally.done, tally.success) == (2, 2)
    assert len(api.requests) == 4, "nothing was asked twice"


async def test_a_driver_that_comes_back_takes_up_what_its_workers_finished(tmp_path: Path, api: MessagesApi) -> None:
    """The driver dies between an attempt's start and its end; the next one counts the result, and runs nothing."""
    api.delay = 0.3
    async with cluster(1) as (_, client):
        first = build(tmp_path, repeats=2, models=[GOOD])
        running = asyncio.create_task(first.run(engine=_Dying(client), progress=False))
        await _busy_worker(client, running)
        with pytest.raises(RuntimeError, match="as if killed"):
            await running
        tally = await build(tmp_path, repeats=2, models=[GOOD]).run(engine=client, progress=False)
    assert (tally.done, tally.success) == (2, 2)
    assert len(api.requests) == 4, "two runs of two requests: none was run again"


class _Dying(DaskEngine):
    """Dies while its attempts run, without the manners of a cancelled one: workers are told nothing."""

    async def run(self, job: Any) -> Any:
        future = self._submit(job)
        await asyncio.sleep(1.5)
        future._state = None  # keep the task: a killed client's release comes later than its runs' end
        raise RuntimeError("as if killed")

    async def stop(self) -> None:
        self._plan = None


async def test_the_key_is_nowhere_on_the_way(tmp_path: Path, api: MessagesApi) -> None:
    """Seeded in the driver's and the workers' environment, then searched for in everything that came about."""
    secret = api.key.encode()
    seen: list[bytes] = []
    async with cluster(1, dashboard_address="127.0.0.1:0", silence_logs=10) as (made, client):
        submit = client.submit

        def watched(function: Any, *arguments: Any, **options: Any) -> Any:
            seen.append(repr(arguments).encode() + repr(options).encode())
            return submit(function, *arguments, **options)

        client.submit = watched
        await build(tmp_path, repeats=1).run(engine=client, progress=False)
        state = await client.run_on_scheduler(_everything)
        logs = repr(await client.get_worker_logs()) + repr(await client.get_scheduler_logs())
        pages = await _pages(made.dashboard_link)
    assert seen and secret not in b"".join(seen)
    assert "cambio-lab-" in state and api.key not in state
    assert api.key not in logs and api.key not in pages
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".cambio" for path in files)
    assert not [path.name for path in files if secret in path.read_bytes()]


def _everything(dask_scheduler: Any) -> str:
    """What the scheduler remembers of tasks, clients and events."""
    events = [list(topic) for topic in (broker.events for broker in dask_scheduler._broker._topics.values())]
    return repr([dask_scheduler.transition_log, events, dask_scheduler.plugins, dask_scheduler.worker_plugins])


async def _pages(link: str) -> str:
    import httpx2

    root = link.rsplit("/", 1)[0]
    async with httpx2.AsyncClient(timeout=20, follow_redirects=True) as http:
        pages = [await http.get(f"{root}{path}") for path in ("/status", "/info/main/workers.html", "/info/main/tasks")]
    return "\n".join(page.text for page in pages)


async def test_a_task_that_contains_the_key_is_refused(tmp_path: Path, api: MessagesApi) -> None:
    key = "sk-ant-a-long-secret-value"
    os.environ["ANTHROPIC_API_KEY"] = key
    careless = Experiment(
        [word_task(check=lambda live: key in live.read("word.txt"))],
        models=[GOOD],
        repeats=1,
        directory=tmp_path,
        make_provider=make_instant,
    )
    async with cluster(1) as (_, client):
        with pytest.raises(ConfigurationError, match="ANTHROPIC_API_KEY"):
            await careless.run(engine=client, progress=False)


async def test_workers_say_what_they_lack(tmp_path: Path, api: MessagesApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    grid = Experiment([word_task()], models=[GOOD], repeats=1, directory=tmp_path, lab={"desktop": "docker"})
    async with cluster(1) as (_, client):
        with pytest.raises(ConfigurationError, match="no Docker Engine answers|engine") as caught:
            await grid.run(engine=client, progress=False)
    assert "tcp://" in str(caught.value)


async def test_another_version_is_refused() -> None:
    site = Site(SiteSpec("a" * 32, (), version="0.0.0-other"), "here")
    try:
        (problem,) = await asyncio.wrap_future(site.submit(site.check()))
        assert "0.0.0-other where the experiment was started" in problem
    finally:
        await asyncio.to_thread(site.close)


def _resources(dask_worker: Worker) -> dict[str, float]:
    return dict(dask_worker.state.total_resources)


async def test_workers_get_a_number_of_desktops_when_nobody_says(tmp_path: Path, api: MessagesApi) -> None:
    async with cluster(1) as (_, client):
        await build(tmp_path, repeats=1).run(engine=client, progress=False)
        (resources,) = (await client.run(_resources)).values()
    assert resources == {"desktop": 2}


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
