"""What a check read, kept with the outcome, so that a corrected check judges the same end states without new runs."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Mapping
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..desktop.machine import FileContent
from ..errors import ActionError, CambioError
from ..recording import Contents, calls
from ..recording.calls import RecordingDesktop
from ..recording.run_file import unpack
from ..replay.replay_desktop import ReplayDesktop
from . import live
from .live import Live
from .outcome import NO_VERDICT, Failure, Outcome
from .policies import Observation, oracle_policy
from .scheduler import ExperimentStopped
from .task import Task, Verdict

if TYPE_CHECKING:
    from .experiment import Experiment
    from .ledger import Ledger

Json = dict[str, Any]
LARGEST = 500_000
"""Characters of one outcome's evidence; more is not kept, and its cell cannot be judged again."""


class EvidenceMissing(CambioError):
    """A check reads what the earlier one did not."""


class Witness:
    """Notes what a check reads of ``live``."""

    def __init__(self, task: Task, seen: Live) -> None:
        self._calls: list[Json] = []
        self._task, self._live = task, seen
        seen.desktop = RecordingDesktop(seen.desktop, self._note, itertools.count().__next__)

    async def _note(self, record: Json) -> None:
        self._calls.append(
            {name: record[name] for name in ("method", "arguments", "result", "error") if name in record}
        )

    def evidence(self) -> Json | None:
        """Return it as JSON; ``None`` when it is too large."""
        values = {name: value for name, value in self._live.values.items() if _plain(value)}
        kept = {"question": self._task.question, "values": values, "answers": self._live.answers, "calls": self._calls}
        return kept if len(json.dumps(kept)) <= LARGEST else None


class KeptDesktop(ReplayDesktop):
    """Answers a check with what an earlier one was answered, whatever the order; the last answer repeats."""

    def __init__(self, contents: Contents, calls: list[Json]) -> None:
        super().__init__(contents)
        self._kept: dict[str, list[Json]] = {}
        for call in calls:
            self._kept.setdefault(_key(call["method"], call["arguments"]), []).append(call)

    async def call(self, method: str, **arguments: Any) -> Any:
        return self._answer(method, arguments)

    def read_file(self, path: str) -> FileContent:
        async def read(_: FileContent) -> Any:
            yield self._answer("read_file", {"path": path})

        return FileContent(read)

    def _answer(self, method: str, arguments: Json) -> Any:
        answers = self._kept.get(_key(method, calls.encode_arguments(arguments)), [])
        if not answers:
            raise EvidenceMissing(f"The check reads what was not kept: {method} {str(arguments)[:200]}.")
        call = answers.pop(0) if len(answers) > 1 else answers[0]
        if "error" in call:
            raise calls.decode_error(call["error"])
        return calls.decode(call["result"], self.contents.find)


async def rejudge(task: Task, seed: int, outcome: Outcome, contents: Contents) -> Outcome | None:
    """Return the outcome that ``task``'s check gives now; ``None`` without evidence, or when more than it changed."""
    kept: Mapping[str, Any] | None = outcome.evidence
    if not kept or task.check is None or kept["question"] != task.question:
        return None
    seen = Live(None, KeptDesktop(contents, kept["calls"]), seed)
    seen.random, seen.values, seen.answers = random.Random(seed), dict(kept["values"]), list(kept["answers"])
    try:
        verdict = await judge(task, seen)
    except EvidenceMissing:
        return None
    failure: Failure = "limit" if outcome.failure == "limit" else "agent"
    return replace(
        outcome,
        success=verdict.success,
        score=verdict.score,
        reason=verdict.reason,
        failure=None if verdict.success else failure,
        error="" if verdict.success else verdict.reason or "The check says no.",
    )


async def judge(task: Task, seen: Live) -> Verdict:
    """The author's verdict. What the agent did not make (a missing file) and a failed ``assert`` are a no."""
    assert task.check is not None
    try:
        return Verdict.of(await live.call(task.check, seen))
    except AssertionError as error:
        return Verdict(False, 0.0, f"not so: {error}" if str(error) else "an assertion of the check failed")
    except ActionError as error:
        return Verdict(False, 0.0, error.message)


async def rescore(experiment: Experiment, ledger: Ledger) -> list[dict[str, Any]]:
    """Judge every finished cell again by the tasks' checks of now; see :meth:`Experiment.rescore`."""
    rows, changes, known = [], [], {row.cell_id: row.outcome for row in await ledger.cells()}
    for cell in experiment.grid:
        outcome = known.get(cell.cell_id)
        if outcome is None or not outcome.bundle:
            continue
        contents = await asyncio.to_thread(unpack, experiment.directory / "runs" / outcome.bundle)
        now = await rejudge(cell.task, cell.seed, outcome, contents)
        if now is not None:
            changes.append((now, cell.digest))
        said = {"before": outcome.success, "after": now.success if now else None, "reason": now.reason if now else ""}
        rows.append({"cell": cell.cell_id, "judged": now is not None, **said})
    await ledger.rescore(changes)
    return rows


async def check_tasks(experiment: Experiment, concurrency: int | None) -> list[dict[str, Any]]:
    """Try the checks on untouched and on solved desktops; see :meth:`Experiment.check_tasks`."""
    tasks = experiment.grid.tasks
    rows = {task.name: {"task": task.name, "ok": True, "untouched": "", "solved": ""} for task in tasks}
    trials = (("untouched", _idle, list(tasks)), ("solved", oracle_policy, [t for t in tasks if t.solution]))
    for what, policy, chosen in trials:
        if not chosen:
            continue
        with TemporaryDirectory() as folder:
            trial = type(experiment)(
                chosen,
                models={what: policy},
                repeats=1,
                seed=experiment.grid.seed,
                directory=folder,
                config=experiment.grid.config,
                lab=experiment.lab,
                make_provider=experiment.make_provider,
            )
            try:
                await trial.run(concurrency=concurrency, progress=False)
            except ExperimentStopped as stop:
                for task in chosen:
                    rows[task.name] |= {"ok": False, what: f"not tried: {stop.message}"}
            for cell in trial.cells:
                if (outcome := cell.outcome) is not None:
                    counted = outcome.failure not in NO_VERDICT
                    rows[cell.task][what] = f"{'yes' if outcome.success else 'no'}: {outcome.reason or outcome.error}"
                    right = counted and outcome.success == (what == "solved")
                    rows[cell.task]["ok"] = bool(rows[cell.task]["ok"]) and right
    return list(rows.values())


async def _idle(observation: Observation) -> str:
    return "I leave it as it is."


def _key(method: str, arguments: Json) -> str:
    return json.dumps([method, arguments], sort_keys=True, default=str)


def _plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
