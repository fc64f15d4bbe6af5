"""What a Dask worker is given: a plugin that holds its :class:`Site`, a message handler, and the task itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import cloudpickle
from distributed import Worker, WorkerPlugin, get_worker

from .local import default_concurrency
from .site import Site, SiteSpec

logger = logging.getLogger(__name__)
OPERATION = "cambio_lab"
RESOURCE = "desktop"


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

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "_spec": self._spec, "site": None, "missing": []}


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
