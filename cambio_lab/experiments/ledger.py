"""Store which cells are done, what each attempt cost. Tables in the store's database.

A cell is done once: the row's change from open to done and the attempt's end commit together, and a second result for
the same cell is kept as a discarded attempt (its money counts, its verdict does not).
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, StoreError
from ..store import FILE_NAME, Store
from ..store.database import execute, select
from .engine import NO_VERDICT, AttemptProgress, Outcome
from .grid import Cell
from .task import comparable

SCHEMA = """
CREATE TABLE IF NOT EXISTS experiment_facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS experiment_cells (
    cell_id TEXT PRIMARY KEY, position INTEGER NOT NULL, task TEXT NOT NULL, model TEXT NOT NULL,
    setting TEXT NOT NULL, repeat INTEGER NOT NULL, seed INTEGER NOT NULL, digest TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'open', attempt TEXT, attempts INTEGER NOT NULL DEFAULT 0, outcome TEXT);
CREATE TABLE IF NOT EXISTS experiment_attempts (
    attempt TEXT PRIMARY KEY, cell_id TEXT NOT NULL, state TEXT NOT NULL, started_at REAL NOT NULL, ended_at REAL,
    worker TEXT NOT NULL DEFAULT '', run_id TEXT NOT NULL DEFAULT '', steps INTEGER NOT NULL DEFAULT 0,
    cost_usd REAL NOT NULL DEFAULT 0, failure TEXT, error TEXT NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS experiment_attempts_state ON experiment_attempts (state);
"""
_CELL = "cell_id, task, model, setting, repeat, seed, state, attempts, outcome"
"""The fields of :class:`CellRow`, in their order."""


@dataclass(frozen=True, slots=True)
class CellRow:
    """A cell as it stands: ``state`` is ``open``, ``done`` or ``failed`` (no verdict: infrastructure or task)."""

    cell_id: str
    task: str
    model: str
    setting: str
    repeat: int
    seed: int
    state: str
    attempts: int
    outcome: Outcome | None


class Ledger:
    """Reads and writes of one experiment; every write is on disk when it returns."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def prepare(self, cells: Iterable[Cell]) -> None:
        """Make the tables and add the cells that are new.

        Raises :class:`ConfigurationError` naming the tasks whose question changed since results were counted.
        """
        rows = [
            (cell.cell_id, number, cell.task.name, cell.model, cell.setting, cell.repeat, cell.seed, cell.digest)
            for number, cell in enumerate(cells)
        ]
        changed = await self.store.database.write(partial(_prepare, rows))
        if changed:
            raise ConfigurationError(
                f"These tasks are not the ones that were run before: {', '.join(changed)}.",
                hint="Give the experiment another name, or forget their results with experiment.forget(task=...).",
                details={"tasks": changed},
            )

    async def begin(self, attempt: str, cell_id: str) -> None:
        """An attempt is about to start; on disk before anything is spent."""
        await self.store.database.write(partial(_begin, attempt, cell_id, time.time()))

    async def note(self, attempt: str, *, steps: int, cost_usd: float) -> None:
        """What a running attempt has used so far, so that a killed one is charged."""
        sql = "UPDATE experiment_attempts SET steps = ?, cost_usd = ? WHERE attempt = ? AND state = 'running'"
        await self.store.database.write(execute(sql, steps, cost_usd, attempt))

    async def finish(self, outcome: Outcome, *, final: bool) -> bool:
        """Count ``outcome``; ``False`` when the cell was already done. ``final=False`` leaves the cell open."""
        return await self.store.database.write(partial(_finish, outcome, final, time.time()))

    async def lose(self, attempt: str, error: str) -> None:
        """An attempt is gone without a result (killed process or worker); its cell stays open."""
        sql = "UPDATE experiment_attempts SET state = 'lost', ended_at = ?, failure = 'infrastructure', error = ?"
        sql += " WHERE attempt = ? AND state = 'running'"
        await self.store.database.write(execute(sql, time.time(), error, attempt))

    async def forget(self, *, task: str | None = None, failed_only: bool = False) -> int:
        """Open cells again; what was spent stays on the books. How many."""
        states = "('failed')" if failed_only else "('done', 'failed')"
        only, values = (" AND task = ?", (task,)) if task else ("", ())
        sql = f"UPDATE experiment_cells SET state = 'open', outcome = NULL WHERE state IN {states}{only}"
        return await self.store.database.write(execute(sql, *values))

    async def rescore(self, changes: Iterable[tuple[Outcome, str]]) -> None:
        """Replace the outcomes of finished cells, with the digest of the task that judged them."""
        sql = "UPDATE experiment_cells SET outcome = ?, digest = ?, state = 'done' WHERE cell_id = ?"
        rows = [(json.dumps(outcome.to_json()), digest, outcome.cell_id) for outcome, digest in changes]
        await self.store.write(*(execute(sql, *row) for row in rows))

    async def cells(self) -> list[CellRow]:
        return await self.store.database.read(read_cells)

    async def running(self) -> list[AttemptProgress]:
        """Attempts that have begun and not ended, with what they had used when it was noted last."""
        sql = "SELECT attempt, cell_id, state, steps, cost_usd FROM experiment_attempts WHERE state = 'running'"
        return [AttemptProgress(*row) for row in await self.store.database.read(select(sql))]

    async def spent(self) -> tuple[float, int]:
        """Dollars and steps of all attempts, whatever became of them."""
        return await self.store.database.read(read_spent)

    async def facts(self, **facts: str) -> dict[str, str]:
        """What is known about the experiment (``id``, ``name``), with ``facts`` added."""
        return await self.store.database.write(partial(_facts, facts))


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A read-only connection to an experiment's database, also while another process runs it.

    Raises :class:`StoreError` when there is none.
    """
    if not path.is_file():
        raise StoreError(f"There is no experiment in {path.parent.name!r}.", hint="Name its folder, or run it first.")
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
    connection.execute("PRAGMA query_only = ON")
    return connection


def read_cells(connection: sqlite3.Connection) -> list[CellRow]:
    """All cells in the grid's order; none before the first ``run`` has made its tables."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiment_cells'").fetchone():
        return []
    found = connection.execute(f"SELECT {_CELL} FROM experiment_cells ORDER BY position")
    return [CellRow(*(*row[:-1], row[-1] and Outcome.from_json(json.loads(row[-1])))) for row in found]


def load_cells(directory: Path) -> list[CellRow]:
    """The cells of the experiment in ``directory``; :class:`~cambio_lab.errors.StoreError` when there is none."""
    with closing(open_for_reading(directory / FILE_NAME)) as connection:
        return read_cells(connection)


def open_row(cell: Cell) -> CellRow:
    """Return the row of a cell that was never run."""
    return CellRow(cell.cell_id, cell.task.name, cell.model, cell.setting, cell.repeat, cell.seed, "open", 0, None)


def read_spent(connection: sqlite3.Connection) -> tuple[float, int]:
    row = connection.execute("SELECT total(cost_usd), sum(steps) FROM experiment_attempts").fetchone()
    return float(row[0]), int(row[1] or 0)


def read_counts(connection: sqlite3.Connection) -> dict[str, int]:
    """How many cells are ``open``, ``done`` and ``failed``, and how many attempts ``running``."""
    counts = dict.fromkeys(("open", "done", "failed"), 0)
    counts |= dict(connection.execute("SELECT state, count(*) FROM experiment_cells GROUP BY state"))
    query = "SELECT count(*) FROM experiment_attempts WHERE state = 'running'"
    return counts | {"running": int(connection.execute(query).fetchone()[0])}


def _prepare(rows: list[tuple[Any, ...]], connection: sqlite3.Connection) -> list[str]:
    for statement in filter(str.strip, SCHEMA.split(";")):
        connection.execute(statement)
    known = dict(connection.execute("SELECT cell_id, digest FROM experiment_cells WHERE state = 'done'"))
    changed = {
        task for cell_id, _, task, *_, now in rows if known.get(cell_id, now) != now and comparable(known[cell_id], now)
    }
    if changed:
        return sorted(changed)
    connection.execute("UPDATE experiment_cells SET position = position + ?", (len(rows),))
    connection.executemany(
        "INSERT INTO experiment_cells (cell_id, position, task, model, setting, repeat, seed, digest)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (cell_id) DO UPDATE SET position = excluded.position, seed = excluded.seed,"
        " digest = excluded.digest",
        rows,
    )
    return []


def _begin(attempt: str, cell_id: str, now: float, connection: sqlite3.Connection) -> None:
    begun = connection.execute(
        "INSERT OR IGNORE INTO experiment_attempts (attempt, cell_id, state, started_at) VALUES (?, ?, 'running', ?)",
        (attempt, cell_id, now),
    )
    if begun.rowcount:  # else a worker continued it while no driver was connected
        sql = "UPDATE experiment_cells SET attempt = ?, attempts = attempts + 1 WHERE cell_id = ?"
        connection.execute(sql, (attempt, cell_id))


def _finish(outcome: Outcome, final: bool, now: float, connection: sqlite3.Connection) -> bool:
    counted = False
    if final:
        state = "failed" if outcome.failure in NO_VERDICT else "done"
        text = json.dumps(outcome.to_json(), separators=(",", ":"))
        sql = "UPDATE experiment_cells SET state = ?, outcome = ?, attempt = ? WHERE cell_id = ? AND state = 'open'"
        counted = connection.execute(sql, (state, text, outcome.attempt, outcome.cell_id)).rowcount == 1
    attempt_state = "done" if counted else ("discarded" if final else "failed")
    connection.execute(
        "INSERT INTO experiment_attempts"
        " (attempt, cell_id, state, started_at, ended_at, worker, run_id, steps, cost_usd, failure, error)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (attempt) DO UPDATE SET state = excluded.state,"
        " ended_at = excluded.ended_at, worker = excluded.worker, run_id = excluded.run_id,"
        " steps = max(experiment_attempts.steps, excluded.steps),"
        " cost_usd = max(experiment_attempts.cost_usd, excluded.cost_usd),"
        " failure = excluded.failure, error = excluded.error"
        " WHERE experiment_attempts.state <> 'done'",
        (
            *(outcome.attempt, outcome.cell_id, attempt_state, outcome.started_at or now, now, outcome.worker),
            *(outcome.run_id, outcome.steps, outcome.usage.cost_usd, outcome.failure, outcome.error),
        ),
    )
    return counted


def _facts(facts: Mapping[str, str], connection: sqlite3.Connection) -> dict[str, str]:
    connection.executemany("INSERT OR REPLACE INTO experiment_facts VALUES (?, ?)", list(facts.items()))
    return dict(connection.execute("SELECT name, value FROM experiment_facts"))
