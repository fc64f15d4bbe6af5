"""One attempt at a cell: session, setup, turns, check, record; and the engine that runs attempts on this machine."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..desktop.base import Desktop
from ..errors import CambioError, DesktopError
from ..events import QuestionAnswered, QuestionAsked, TurnFailed, TurnFinished
from . import live
from .engine import AttemptLost, AttemptProgress, Job, Judgement, Outcome, Plan, Stage, judge_exception, judge_turn
from .evidence import Witness, judge
from .limits import default_concurrency
from .live import Live, human_policy
from .task import Verdict
from .workplace import Meter, Workplace

if TYPE_CHECKING:
    from ..sessions.session import Session

logger = logging.getLogger(__name__)
ENDING = 30.0
"""Seconds that ending a session and packing its record may take before the attempt gives up on them."""
THUMBNAIL_SECONDS, THUMBNAIL_WIDTH = 2.0, 480
ANSWER = 2_000
"""Characters of the final text that the table keeps; the recorded run has all of it."""


class Attempt:
    """Runs once. :meth:`progress` may be asked meanwhile."""

    def __init__(self, place: Workplace, job: Job, worker: str = "") -> None:
        self.job = job
        self._place = place
        self._worker = worker
        self._stage: Stage = "start"
        self._session: Session | None = None
        self._meter: Meter | None = None
        self._live: Live | None = None
        self._verdict = Verdict(False, 0.0)
        self._limit = ""
        self._evidence: dict[str, Any] | None = None
        self._thumbnail: bytes | None = None
        self._thumbnail_at = 0.0

    async def run(self) -> Outcome:
        """From start to record. Cancelling it ends the session; whatever else happens is in the outcome."""
        started_at, began = time.time(), time.monotonic()
        judgement = await self._judge() or Judgement(None, "")
        meter, session = self._meter or Meter(None), self._session
        digest = session.desktop.image_digest if session is not None else None
        outcome = Outcome(
            self.job.attempt,
            self.job.cell.cell_id,
            success=self._verdict.success,
            score=self._verdict.score,
            reason=self._verdict.reason,
            failure=judgement.failure,
            error=judgement.error,
            fatal=judgement.fatal,
            answer=(self._live.answer if self._live else "")[:ANSWER],
            steps=meter.steps,
            human_steps=meter.human_steps,
            usage=meter.usage,
            model_seconds=meter.model_seconds,
            desktop_seconds=meter.desktop_seconds,
            started_at=started_at,
            run_id=session.id if session is not None else "",
            worker=self._worker,
            environment={**self._place.versions, **({"image": digest} if digest else {})},
            evidence=self._evidence,
        )
        record = await self._finish()
        return replace(outcome, **record, wall_seconds=time.monotonic() - began)

    async def progress(self, *, thumbnails: bool) -> AttemptProgress:
        session, meter = self._session, self._meter
        if session is None or meter is None:
            return AttemptProgress(self.job.attempt, self.job.cell.cell_id)
        state = session.state if self._stage == "turn" else self._stage
        if thumbnails and time.monotonic() - self._thumbnail_at >= THUMBNAIL_SECONDS:
            self._thumbnail_at = time.monotonic()
            try:
                async with asyncio.timeout(2):
                    self._thumbnail = (await session.desktop.thumbnail(THUMBNAIL_WIDTH)).data
            except (TimeoutError, DesktopError):  # the desktop is closing; the last thumbnail stays
                logger.debug("no thumbnail of %s", self.job.cell.cell_id)
        return AttemptProgress(
            self.job.attempt, self.job.cell.cell_id, state, meter.steps, meter.usage.cost_usd, self._thumbnail
        )

    # From start to verdict

    async def _judge(self) -> Judgement | None:
        """Do it all; ``None`` when the check says yes. A cancelled attempt ends its session before it goes."""
        seconds = self.job.cell.task.timeout
        try:
            async with asyncio.timeout(seconds) as clock:
                return await self._go()
        except asyncio.CancelledError:
            await self._finish()
            raise
        except Exception as error:
            if isinstance(error, TimeoutError) and clock.expired() and self._stage in ("turn", "check"):
                return Judgement("limit", f"The task's time of {seconds:g} s was over.")
            judgement = judge_exception(self._stage, error)
            if judgement.failure == "task":
                logger.warning("%s", self.job.cell.cell_id, exc_info=error)
            return judgement

    async def _go(self) -> Judgement | None:
        task = self.job.cell.task
        session, meter = await self._place.create(self.job)
        self._session, self._meter = session, meter
        meter.most_steps = self.job.steps
        desktop: Desktop = session.desktop
        self._live = Live(session, desktop, self.job.cell.seed)
        if self.job.cell.policy is not None and meter.policy is not None:
            meter.policy.bind(self.job.cell.policy, task, self._live)
            meter.shown = self.job.cell.policy is human_policy
        if task.answer is not None:
            session.gate.answering = self._answer
        self._stage = "setup"
        if task.setup is not None:
            await live.call(task.setup, self._live)
        self._stage = "turn"
        for text in task.texts(self._live):
            if judgement := await self._turn(text):
                return judgement
            if self._limit:
                break
        self._stage = "check"
        self._verdict = await self._check()
        if self._verdict.success:
            return None
        if self._limit:
            return Judgement("limit", f"The agent reached {self._limit}.")
        return Judgement("agent", self._verdict.reason or "The check says no.")

    async def _answer(self, question: QuestionAsked) -> QuestionAnswered:
        """Let the task's function answer the agent."""
        task = self.job.cell.task
        assert task.answer is not None and self._live is not None
        words = await live.call(task.answer, self._live, question)
        return QuestionAnswered(question.tool_use_id, "answered", str(words), "task")

    async def _turn(self, text: str) -> Judgement | None:
        """Send one message and wait for the turn's end."""
        assert self._session is not None and self._meter is not None and self._live is not None
        session, meter = self._session, self._meter
        meter.begin()
        await session.send(text)
        turn = session.turn_task
        assert turn is not None
        over = asyncio.create_task(meter.out_of_steps.wait())
        try:
            await asyncio.wait({turn, over}, return_when=asyncio.FIRST_COMPLETED)
            if not turn.done():
                self._limit = "max_steps"
                await session.stop()
            await asyncio.wait({turn})
        finally:
            over.cancel()
        if meter.policy is not None and meter.policy.failure is not None:
            raise meter.policy.failure
        end = meter.end
        if not isinstance(end, TurnFinished):
            rejected = meter.client.rejected if meter.client else None
            return judge_turn(end if isinstance(end, TurnFailed) else None, rejected)
        self._live.answers.append(end.text)
        self._limit = self._limit or end.limit or ""
        return None

    async def _check(self) -> Verdict:
        """The author's verdict, with what it read kept."""
        check = self.job.cell.task.check
        if check is None:  # ended its turn: all that was asked
            return Verdict(not self._limit, float(not self._limit))
        assert self._live is not None
        witness = Witness(self.job.cell.task, self._live)
        try:
            return await judge(self.job.cell.task, self._live)
        finally:
            self._evidence = witness.evidence()

    # What it leaves

    async def _finish(self) -> dict[str, Any]:
        """End the session and pack its record; neither may lose the outcome, and a stop must not leave a desktop."""
        session = self._session
        if session is None:
            return {}
        return await asyncio.shield(self._wind_up(session.id))

    async def _wind_up(self, session_id: str) -> dict[str, Any]:
        try:
            async with asyncio.timeout(ENDING):
                return await self._place.close_session(session_id, self.job)
        except (TimeoutError, CambioError, OSError) as error:
            logger.error("a session could not be wound up: %s", error)
            return {}


class LocalEngine:
    """The default engine; ``concurrency`` overrides the measured one."""

    name = "local"

    def __init__(self) -> None:
        self._place: Workplace | None = None
        self._attempts: dict[str, Attempt] = {}
        self._slots = 1

    async def start(self, plan: Plan) -> None:
        assert plan.store is not None, "the local engine works in the experiment's own store"
        self._slots = plan.wanted or default_concurrency(plan.settings.max_desktops)
        self._place = Workplace(
            plan.store,
            plan.settings,
            owner=plan.experiment_id,
            runs=plan.directory / "runs",
            make=plan.make_provider,
        )
        await self._place.open(plan.models)

    async def slots(self) -> int:
        return self._slots

    async def recover(self, attempts: Sequence[AttemptProgress]) -> tuple[list[Outcome], set[str]]:
        """Charge what attempts had spent: they die with their process, and the store has their counts."""
        found = [await self._running.lost(attempt) for attempt in attempts]
        return [outcome for outcome in found if outcome is not None], set()

    async def run(self, job: Job) -> Outcome:
        attempt = self._attempts[job.attempt] = Attempt(self._running, job)
        try:
            return await attempt.run()
        finally:
            del self._attempts[job.attempt]

    async def settled(self, outcome: Outcome) -> None:
        """Nothing was kept for it."""

    async def progress(self, *, thumbnails: bool) -> list[AttemptProgress]:
        found = await asyncio.gather(*(one.progress(thumbnails=thumbnails) for one in list(self._attempts.values())))
        return list(found)

    async def stop(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            await place.close()

    @property
    def _running(self) -> Workplace:
        if self._place is None:
            raise AttemptLost("The engine has been stopped.")
        return self._place
