"""A Dask cluster: whole attempts on its workers, wherever Dask runs them (SSH, Slurm, PBS, Kubernetes, clouds).

Dask schedules (resources, retries after a worker's death, adaptive scaling); what an attempt leaves does not pass it.
Results and records wait in an outbox on the worker and are fetched directly, in pieces, checked by digest. So a lost
future (connection cut, scheduler restarted) is not a lost run: the outboxes are asked before anything is run again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import time
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import cloudpickle

from .._version import __version__
from ..errors import ConfigurationError
from .engine import AttemptLost, AttemptProgress, Job, Outcome, Plan, refuse_secrets
from .site import OPERATION, RESOURCE, SitePlugin, SiteSpec, plugin_name, work

logger = logging.getLogger(__name__)
T = TypeVar("T")
ANSWER_SECONDS = 10.0
LOOK_SECONDS = 1.0
"""How often the workers are asked what they do."""
AWAY_SECONDS = 90.0
"""How long an attempt whose future is lost is looked for before it counts as gone."""
CANCEL_SECONDS = 60.0
FIRST_WORKERS = 4
"""Attempts handed over while there is no worker yet: what adaptive scaling needs to see."""
_UNREACHABLE = (OSError, TimeoutError)


class DaskEngine:
    """Runs attempts on the workers of ``client``, synchronous or asynchronous; leaves the cluster as it was."""

    name = "dask"

    def __init__(self, client: Any) -> None:
        self._client = client
        self._plan: Plan | None = None
        self._workers: dict[str, float] = {}
        """Address -> desktops it may run."""
        self._status: dict[str, dict[str, Any]] = {}
        self._where: dict[str, tuple[str, float, int]] = {}
        """Attempt -> worker, dollars and steps when it was last seen."""
        self._carried: dict[str, tuple[float, int]] = {}
        """Attempt -> what it had used on workers that died under it."""
        self._looked = 0.0
        self._looking = asyncio.Lock()
        self._alive: set[str] = set()

    async def start(self, plan: Plan) -> None:
        self._plan = plan
        spec = SiteSpec(plan.experiment_id, tuple(plan.models), dict(plan.lab), plan.make_provider)
        refuse_secrets(cloudpickle.dumps(spec))
        await self._register(SitePlugin(spec))
        await self._look(force=True)
        found = await self._ask_all("check")
        answers = {address: "; ".join(answer.get("missing", ["is not set up"])) for address, answer in found.items()}
        wrong = {address: missing for address, missing in answers.items() if missing}
        for address, missing in wrong.items():
            logger.warning("worker %s takes no runs: %s", address, missing)
        if found and len(wrong) == len(found):
            raise ConfigurationError("\n  ".join(("No worker can run desktops:", *map(": ".join, wrong.items()))))

    async def slots(self) -> int:
        """A little more than there are desktops, so that no worker waits for the driver's next look."""
        assert self._plan is not None
        await self._look()
        if self._plan.wanted:
            return self._plan.wanted
        return max(FIRST_WORKERS, math.ceil(1.25 * sum(self._workers.values())))

    async def recover(self, attempts: Sequence[AttemptProgress]) -> tuple[list[Outcome], set[str]]:
        if not attempts:
            return [], set()
        await self._look(force=True)
        outcomes, wanted = [], {attempt.attempt for attempt in attempts}
        for address, status in self._status.items():
            for attempt in wanted.intersection(status["finished"]):
                outcomes.append(await self._fetch(attempt, address))
            self._alive |= wanted.intersection(item["attempt"] for item in status["running"])
        return outcomes, self._alive - {outcome.attempt for outcome in outcomes}

    async def run(self, job: Job) -> Outcome:
        future: Any = None
        try:
            if job.attempt in self._alive:
                address = await self._follow(job.attempt)
            else:
                future = self._submit(job)
                address = await self._wait(future, job.attempt)
            return await self._fetch(job.attempt, address)
        except asyncio.CancelledError:
            await asyncio.shield(self._cancel(job.attempt, future))
            raise
        finally:
            self._alive.discard(job.attempt)
            if future is not None:
                future.release()

    async def settled(self, outcome: Outcome) -> None:
        self._where.pop(outcome.attempt, None)
        self._carried.pop(outcome.attempt, None)
        await asyncio.gather(
            *(
                self._ask(address, "forget", attempt=outcome.attempt)
                for address, status in self._status.items()
                if outcome.worker == address or outcome.attempt in status["finished"]
            )
        )

    async def progress(self, *, thumbnails: bool) -> list[AttemptProgress]:
        await self._look(force=True, thumbnails=thumbnails)
        found: dict[str, AttemptProgress] = {}
        for address, status in list(self._status.items()):
            for item in status["running"]:
                one = AttemptProgress(**item)
                self._note(one.attempt, address, one.cost_usd, one.steps)
                spent, made = self._carried.get(one.attempt, (0.0, 0))
                found[one.attempt] = replace(one, steps=made + one.steps, cost_usd=spent + one.cost_usd)
        return list(found.values())

    async def stop(self) -> None:
        """Clear up after workers that died, take our plugin off the others."""
        plan, self._plan = self._plan, None
        if plan is None:
            return
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                await self._ask_all("sweep", experiment=plan.experiment_id, patience=CANCEL_SECONDS)
                await self._on_client(
                    self._client.scheduler.unregister_worker_plugin(name=plugin_name(plan.experiment_id))
                )
        except _UNREACHABLE as error:
            logger.error("the cluster could not be cleared up: %s; its workers do so when they end", error)

    # Attempts

    def _submit(self, job: Job) -> Any:
        assert self._plan is not None
        payload = cloudpickle.dumps(job)
        refuse_secrets(payload)
        return self._client.submit(
            work,
            self._plan.experiment_id,
            payload,
            key=f"cambio-lab-{job.attempt}",
            resources={RESOURCE: 1},
            retries=0,
            pure=False,
        )

    async def _wait(self, future: Any, attempt: str) -> str:
        """Until the attempt is over; the worker that has its result."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(done.set))
        await done.wait()
        if future.status == "finished":
            return str((await self._on_client(future._result()))["worker"])
        if future.status == "error":
            error = await self._on_client(future._exception())
            if type(error).__name__ in ("KilledWorker", "CommClosedError"):
                raise AttemptLost(f"Its workers died: {error}")
            raise AttemptLost(f"It failed on its worker: {type(error).__name__}: {error}")
        return await self._follow(attempt)  # the future is lost, not the run

    async def _follow(self, attempt: str) -> str:
        """Look for an attempt on the workers until it has ended there."""
        seen = time.monotonic()
        while True:
            await self._look(force=True)
            for address, status in self._status.items():
                if attempt in status["finished"]:
                    return address
                if any(attempt == item["attempt"] for item in status["running"]):
                    seen = time.monotonic()
            if time.monotonic() - seen > AWAY_SECONDS:
                raise AttemptLost("Its worker has not been seen again.")
            await asyncio.sleep(LOOK_SECONDS)

    async def _fetch(self, attempt: str, address: str) -> Outcome:
        """The result and its bundle, from the worker's disk to ours. :class:`AttemptLost` when it cannot be had."""
        for _ in range(3):
            answer = await self._ask(address, "result", attempt=attempt)
            if answer.get("answer") is None:
                await asyncio.sleep(LOOK_SECONDS)
                continue
            outcome = Outcome.from_json(answer["answer"])
            if not outcome.bundle or await self._copy(outcome, address):
                return outcome
        raise AttemptLost("Its worker was gone before the record had been fetched.")

    async def _copy(self, outcome: Outcome, address: str) -> bool:
        """Stream the bundle to ``runs``; whether it arrived as it was sent."""
        assert self._plan is not None
        target = self._plan.directory / "runs" / outcome.bundle
        partial, digest, offset = target.with_suffix(".part"), hashlib.sha256(), 0
        with await asyncio.to_thread(partial.open, "wb") as file:
            while offset < outcome.bundle_bytes:
                answer = await self._ask(address, "piece", attempt=outcome.attempt, offset=offset)
                piece = answer.get("answer")
                if not piece:
                    break
                await asyncio.to_thread(file.write, piece)
                digest.update(piece)
                offset += len(piece)
        if digest.hexdigest() != outcome.bundle_sha256:
            await asyncio.to_thread(partial.unlink)
            return False
        await asyncio.to_thread(partial.replace, target)
        return True

    async def _cancel(self, attempt: str, future: Any) -> None:
        if future is not None:
            await self._on_client(self._client._cancel([future], force=True))
        await self._ask_all("cancel", attempt=attempt, patience=CANCEL_SECONDS)

    # Workers

    async def _look(self, *, force: bool = False, thumbnails: bool = False) -> None:
        """Who is there, with how many desktops, and what runs on them."""
        async with self._looking:
            if time.monotonic() - self._looked < (LOOK_SECONDS / 4 if force else LOOK_SECONDS):
                return
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    identity = await self._on_client(self._client.scheduler.identity(n_workers=-1))
            except _UNREACHABLE as error:
                logger.warning("the scheduler does not answer: %s", error)
                self._looked = time.monotonic()
                return
            before = set(self._workers)
            self._workers = {
                address: float(worker["resources"].get(RESOURCE, 0)) for address, worker in identity["workers"].items()
            }
            hold = max((status["hold"] for status in self._status.values()), default=0.0)
            found = await self._ask_all("status", thumbnails=thumbnails, hold=hold)
            fresh = {address: answer["answer"] for address, answer in found.items() if "answer" in answer}
            kept = {address: old for address, old in self._status.items() if address in self._workers}
            self._status = {**kept, **fresh}
            self._looked = time.monotonic()
        if gone := before - set(self._workers):
            logger.warning("workers left: %s", ", ".join(sorted(gone)))
            await self._ask_all("sweep", patience=CANCEL_SECONDS)

    def _note(self, attempt: str, address: str, cost: float, steps: int) -> None:
        """Remember where an attempt is; what it had used on a worker that died is carried over to the next."""
        before = self._where.get(attempt)
        if before is not None and before[0] != address:
            spent, made = self._carried.get(attempt, (0.0, 0))
            self._carried[attempt] = (spent + before[1], made + before[2])
        self._where[attempt] = (address, cost, steps)

    async def _ask_all(self, action: str, **arguments: Any) -> dict[str, dict[str, Any]]:
        addresses = list(self._workers)
        answers = await asyncio.gather(*(self._ask(address, action, **arguments) for address in addresses))
        return dict(zip(addresses, answers, strict=True))

    async def _ask(
        self, address: str, action: str, *, patience: float = ANSWER_SECONDS, experiment: str = "", **arguments: Any
    ) -> dict[str, Any]:
        """One question to one worker, directly; an empty answer when it cannot be reached."""
        experiment = experiment or (self._plan.experiment_id if self._plan else "")
        try:
            async with asyncio.timeout(patience):
                remote = getattr(self._client.rpc(address), OPERATION)
                answer = await self._on_client(remote(experiment=experiment, action=action, **arguments))
                return answer if isinstance(answer, dict) else {}
        except _UNREACHABLE as error:
            logger.info("worker %s does not answer %s: %s", address, action, error)
            return {}

    async def _register(self, plugin: SitePlugin) -> None:
        try:
            registered = self._client.register_plugin
            if self._client.asynchronous:
                await registered(plugin, name=plugin.name)
            else:
                await asyncio.to_thread(registered, plugin, name=plugin.name)
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(
                f"The workers cannot load cambio-lab: {error}.",
                hint=f'Install "cambio-lab[dask]=={__version__}" where the scheduler and the workers run.',
            ) from error

    async def _on_client(self, work: Coroutine[Any, Any, T]) -> T:
        """Await something of the client's, in its own loop where that is another thread's."""
        if self._client.asynchronous:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._client.loop.asyncio_loop))
