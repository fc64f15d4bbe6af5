"""One Dask worker's place for one experiment: runs attempts, keeps their results until they are fetched.

The sessions live in an event loop and a thread of their own: an author's slow check must not delay the worker's
heartbeats, nor the worker's work a click. Results wait in an outbox on this worker's disk, so that neither a lost
connection nor a driver that was killed loses a finished run.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import cloudpickle
from distributed import Worker, WorkerPlugin, get_worker

from .._version import __version__
from ..desktop.docker import find_endpoint
from ..errors import CambioError, ConfigurationError
from ..settings import resolve
from ..store import Store
from .attempt import Attempt
from .engine import Job, Outcome
from .limits import default_concurrency
from .workplace import Workplace, private_directory

logger = logging.getLogger(__name__)
T = TypeVar("T")
OPERATION = "cambio_lab"
RESOURCE = "desktop"
PIECE = 4 * 1024 * 1024
"""Bytes of a bundle in one reply."""


@dataclass(frozen=True, slots=True)
class SiteSpec:
    """What a worker is told. No secret is in it: it passes the scheduler."""

    experiment_id: str
    models: tuple[str, ...]
    lab: Mapping[str, Any] = field(default_factory=dict)
    make_provider: Any = None
    version: str = __version__


class Site:
    """Made in the worker's process; every method may be called from any thread."""

    def __init__(self, spec: SiteSpec, worker: str) -> None:
        self.spec = spec
        self.worker = worker
        self.folder = _root(spec.experiment_id) / f"{spec.experiment_id[:8]}-{uuid4().hex}"
        self._outbox = self.folder / "outbox"
        self._attempts: dict[str, tuple[Attempt, asyncio.Task[Outcome]]] = {}
        self._place: Workplace | None = None
        self._store: Store | None = None
        self._opening = asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cambio-lab-site", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run ``work`` in the site's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    # In the site's loop

    async def check(self) -> list[str]:
        """What is missing here, in words; empty when attempts can run. Opens the place."""
        if self.spec.version != __version__:
            return [f"cambio-lab is {__version__} here and {self.spec.version} where the experiment was started"]
        try:
            await self._open()
        except CambioError as error:
            return [error.describe()]
        return []

    async def perform(self, job: Job) -> dict[str, Any]:
        """Run an attempt and put its result into the outbox; the same attempt is never run twice here."""
        if (found := await self.result(job.attempt)) is not None:
            return found
        if job.attempt not in self._attempts:
            attempt = Attempt(await self._open(), job, self.worker)
            task = asyncio.create_task(self._carry_out(attempt), name=job.attempt)
            self._attempts[job.attempt] = (attempt, task)
        outcome = await asyncio.shield(self._attempts[job.attempt][1])
        return outcome.to_json()

    async def status(self, *, thumbnails: bool = False, hold: float = 0.0) -> dict[str, Any]:
        """What runs (with progress), what waits to be fetched, and how long the model service wants us to wait."""
        if self._place is not None and hold > self._place.pace.hold_seconds + 1.0:
            self._place.pace.hold(hold)
        running = [one.progress(thumbnails=thumbnails) for one, _ in self._attempts.values()]
        return {
            "running": [asdict(item) for item in await asyncio.gather(*running)],
            "finished": [path.stem for path in self._outbox.glob("*.json")],
            "hold": self._place.pace.hold_seconds if self._place else 0.0,
        }

    async def result(self, attempt: str) -> dict[str, Any] | None:
        """What is in the outbox for an attempt."""
        try:
            found: dict[str, Any] = json.loads((self._outbox / f"{_plain(attempt)}.json").read_text())
        except FileNotFoundError:
            return None
        return {**found, "worker": self.worker}

    async def piece(self, attempt: str, offset: int) -> bytes:
        """The part of an attempt's bundle that begins at ``offset``; empty at its end."""
        path = self._outbox / f"{_plain(attempt)}.cambio"

        def read() -> bytes:
            with path.open("rb") as file:
                file.seek(offset)
                return file.read(PIECE)

        return await asyncio.to_thread(read)  # opens and closes there: a cancelled reader leaves no closed descriptor

    async def forget(self, attempt: str) -> None:
        """The driver has it: the result and its bundle may go."""
        for suffix in (".json", ".cambio"):
            (self._outbox / f"{_plain(attempt)}{suffix}").unlink(missing_ok=True)

    async def cancel(self, attempt: str) -> None:
        """Stop an attempt and wait until its desktop is gone."""
        if (found := self._attempts.get(attempt)) is not None:
            found[1].cancel()
            await asyncio.wait({found[1]})

    async def sweep(self) -> None:
        """Clear up after workers of this machine that died: their desktops go, their results are ours now."""
        for lock in await asyncio.to_thread(lambda: sorted(self.folder.parent.glob("*/lock"))):
            if (folder := lock.parent) == self.folder:
                continue
            try:
                store = await Store.open(folder)
            except ConfigurationError:  # its process lives
                continue
            try:
                place = self._workplace(store, folder.name, folder / "runs")
                await place.open()
                await place.close()
            finally:
                await store.close()
            await asyncio.to_thread(self._inherit, folder)

    def _inherit(self, folder: Path) -> None:
        """Take over results, each bundle before the file that announces it."""
        for pattern in ("*.cambio", "*.json"):
            for path in (folder / "outbox").glob(pattern):
                shutil.move(path, self._outbox / path.name)
        shutil.rmtree(folder, ignore_errors=True)

    async def _open(self) -> Workplace:
        async with self._opening:
            if self._place is None:
                self._store = self._store or await Store.open(self.folder)
                self._outbox.mkdir(exist_ok=True)
                place = self._workplace(self._store, self.folder.name, self._outbox)
                await place.open(self.spec.models, need_image=True)
                self._place = place
                await self.sweep()
            return self._place

    async def _carry_out(self, attempt: Attempt) -> Outcome:
        try:
            outcome = await attempt.run()
            path = self._outbox / f"{outcome.attempt}.json"
            await asyncio.to_thread(_write, path, json.dumps(outcome.to_json()))
            return outcome
        finally:
            del self._attempts[attempt.job.attempt]

    async def _close(self) -> None:
        tasks = [task for _, task in self._attempts.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._place is not None:
            await self._place.close()
        if self._store is not None:
            await self._store.close()

    def close(self) -> None:
        """End everything and remove this site's files; blocks."""
        self.submit(self._close()).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _workplace(self, store: Store, owner: str, runs: Path) -> Workplace:
        settings = resolve(self.spec.lab)  # defaults, then this worker's own, then what the experiment says
        return Workplace(store, settings, owner=owner, runs=runs, make=self.spec.make_provider)


class SitePlugin(WorkerPlugin):
    """One for each experiment; present and future workers get it."""

    idempotent = True  # a driver that comes back finds its sites, and the results in them

    def __init__(self, spec: SiteSpec) -> None:
        self.name = plugin_name(spec.experiment_id)
        self._spec = spec
        self.site: Site | None = None
        self.missing: list[str] = []

    async def setup(self, worker: Worker) -> None:
        """Check this worker; one that lacks something gets no desktops to give away, and says why when asked."""
        self.site = await asyncio.to_thread(Site, self._spec, worker.address)
        worker.handlers[OPERATION] = _handler(worker)
        self.missing = await asyncio.wrap_future(self.site.submit(self.site.check()))
        for problem in self.missing:
            logger.error("this worker takes no runs: %s", problem)
        if self.missing:
            await worker.set_resources(**{RESOURCE: 0})
        elif RESOURCE not in worker.state.total_resources:
            await worker.set_resources(**{RESOURCE: min(worker.state.nthreads, default_concurrency())})

    async def teardown(self, worker: Worker) -> None:
        """End what runs here, remove its desktops and files."""
        site, self.site = self.site, None
        if site is not None:
            await asyncio.to_thread(site.close)


def plugin_name(experiment_id: str) -> str:
    return f"cambio-lab-{experiment_id}"


def work(experiment_id: str, payload: bytes) -> dict[str, Any]:
    """The task that Dask schedules: one whole attempt; its small result. The record stays on the worker's disk.

    ``payload`` is a pickled :class:`Job`, opaque to the scheduler.
    """
    plugin: Any = get_worker().plugins[plugin_name(experiment_id)]
    site = plugin.site
    if site is None or plugin.missing:
        raise RuntimeError(f"this worker takes no runs: {'; '.join(plugin.missing) or 'it is closing'}")
    result: dict[str, Any] = site.submit(site.perform(cloudpickle.loads(payload))).result()
    return result


def _handler(worker: Worker) -> Callable[..., Any]:
    async def cambio_lab(experiment: str, action: str, **arguments: Any) -> Any:
        """Answers the driver, directly: nothing of it passes the scheduler."""
        plugin: Any = worker.plugins.get(plugin_name(experiment))
        if plugin is None or plugin.site is None:
            return {"absent": True}
        if action == "check":
            return {"missing": plugin.missing}
        site = plugin.site
        known = (site.status, site.result, site.piece, site.forget, site.cancel, site.sweep)
        method: Callable[..., Any] = {one.__name__: one for one in known}[action]
        return {"answer": await asyncio.wrap_future(site.submit(method(**arguments)))}

    return cambio_lab


def _root(experiment_id: str) -> Path:
    """Where sites of this experiment on this engine keep their files; others on the same engine look there, too.

    Not in Dask's own scratch folder: that is removed with its worker, and the results in it.
    """
    try:
        host = find_endpoint().host  # as the docker command finds it: DOCKER_HOST, then contexts
    except ConfigurationError:
        host = ""
    engine = hashlib.sha256(host.encode()).hexdigest()[:12]
    return private_directory(f"cambio-lab-workers-{os.getuid()}") / _plain(experiment_id) / engine


def _plain(name: str) -> str:
    if not name.isalnum():  # it becomes part of a path
        raise ConfigurationError("That is no attempt's name.")
    return name


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".part")
    partial.write_text(text)
    partial.replace(path)
