"""A recorded run: read it, show it, export it, replay it, fork it."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from ..events import Usage
from ..recording import Contents, Json
from ..recording import run_file as bundle
from ..recording.rows import counted, rows, usage_of
from . import load, write

if TYPE_CHECKING:
    import pandas as pd

    from ..desktop.base import Desktop, Region
    from ..replay.desktop_replay import DesktopReplay
    from ..replay.runs import ForkPoint, Replayed
    from ..store import Store


@dataclass(frozen=True)
class Result:
    """An experiment's verdict on a run. ``success`` and ``score`` are ``None`` where it says nothing of the agent."""

    experiment: str
    task: str
    setting: str
    repeat: int
    success: bool | None
    score: float | None
    failure: str | None
    reason: str
    sample_id: str
    """The task's name, with model and setting where the experiment has several."""
    tags: tuple[str, ...] = ()


class Run:
    """One run. Make it with :meth:`load`, :meth:`from_store` or ``session.run``; it never changes."""

    def __init__(self, contents: Contents, *, source: Path | None = None) -> None:
        self.contents = contents
        self.source = source
        """The file it was loaded from."""
        self.result: Result | None = None
        """Set on the runs of an experiment."""
        self.lab: Any = None
        """The :class:`~cambio_lab.Workbench` that it came from; :meth:`fork` uses it."""

    @classmethod
    def load(cls, source: str | Path | bytes) -> Run:
        """The run in a ``.cambio`` file, or in its bytes. :class:`~cambio_lab.errors.BundleRefused` says why not."""
        if isinstance(source, bytes):
            return cls(bundle.unpack(source))
        return cls(bundle.unpack(Path(source)), source=Path(source))

    @classmethod
    async def from_store(cls, store: Store, session_id: str) -> Run:
        """The run of a session, as far as it has come. :class:`~cambio_lab.errors.SessionNotFound`."""
        from ..recording import collect

        return cls(await collect(store, session_id))

    def save(self, path: str | Path) -> Path:
        """Write the run to ``path``; the same run gives the same bytes."""
        target = Path(path)
        bundle.save(self.contents, target)
        return target

    # Reading

    @property
    def manifest(self) -> Json:
        """What the run was made with; see docs/runs.md."""
        return self.contents.manifest

    @property
    def id(self) -> str:
        return str(self.manifest["session"].get("id", ""))

    @property
    def name(self) -> str:
        return str(self.manifest["session"].get("name", ""))

    @property
    def model(self) -> str:
        return str(self.manifest.get("model", ""))

    @property
    def complete(self) -> bool:
        """Whether the session was over, and nothing of its record is missing."""
        return bool(self.manifest.get("complete"))

    @property
    def prompts(self) -> list[str]:
        """What the user asked, in order."""
        return [event["content"] for event in self.contents.events if event["kind"] == "UserMessage"]

    @property
    def answers(self) -> list[str]:
        """The final text, or the error, of each turn."""
        ends = [event for event in self.contents.events if event["kind"] in ("TurnFinished", "TurnFailed")]
        return [event["text"] if event["kind"] == "TurnFinished" else event["error"] for event in ends]

    @cached_property
    def usage(self) -> Usage:
        """Tokens and money of the whole run."""
        return usage_of(self.manifest.get("usage", {}))

    @cached_property
    def seconds(self) -> float:
        """From the first event to the last."""
        from .documents import seconds

        return seconds(self.contents)

    @cached_property
    def rows(self) -> list[Json]:
        """The steps as plain dictionaries, one for each tool call."""
        return rows(self.contents)

    @property
    def human_steps(self) -> list[Json]:
        """The rows of what people did with mouse and keyboard."""
        return [row for row in self.rows if row["actor"] == "human"]

    @cached_property
    def steps(self) -> pd.DataFrame:
        """The steps as a DataFrame, indexed by step: action, arguments, times in ms, tokens, cost, screenshot, text."""
        from ..recording.rows import frame

        return frame(self.contents)

    @cached_property
    def messages(self) -> list[Json]:
        """The conversation as the model was sent it, screenshots inline."""
        return self.contents.conversation()

    def screenshot(self, which: int | str) -> bytes:
        """The screenshot of a step, or the one with this digest. ``LookupError`` when there is none."""
        found, what = which, f"no screenshot {which}"
        if isinstance(which, int):
            found = next((row["screenshot"] for row in self.rows if row["step"] == which), None) or ""
            what = f"there is no screenshot of step {which}"
        data = self.contents.find(str(found))
        if data is None:
            raise LookupError(what)
        return data

    # Repeating

    async def replay(self, *, pace: float = 0.0) -> Replayed:
        """Run the real loop over the recorded replies and observations: no desktop, no network, no key.

        ``pace`` 0: at once, 1: as slowly as it went. :class:`~cambio_lab.errors.ReplayDiverged` when it does not come
        out as recorded.
        """
        from ..replay.runs import replay

        return await replay(self.contents, pace=pace)

    async def replay_on(
        self, desktop: Desktop, *, masks: tuple[Region, ...] = (), tolerance: float = 0.0, stop_at_first: bool = True
    ) -> DesktopReplay:
        """Perform the recorded actions on a live desktop and compare what it shows with the recorded screenshots."""
        from ..replay.desktop_replay import replay_on

        return await replay_on(self.contents, desktop, masks=masks, tolerance=tolerance, stop_at_first=stop_at_first)

    def fork_point(self, step: int) -> ForkPoint:
        """The point after ``step``: the conversation up to there, and how to bring a desktop there."""
        from ..replay.runs import ForkPoint

        return ForkPoint.at_step(self.contents, step)

    async def fork(
        self, step: int, *, model: str | None = None, message: str | None = None, lab: Any = None, **config: Any
    ) -> Any:
        """Return a live session that continues after ``step``, on a fresh desktop on which the steps are repeated.

        ``model`` replaces the run's, ``message`` is sent at once, ``config`` is as for ``Workbench.create_session``.
        A run that was loaded from a file needs ``lab``, a workbench.
        """
        workbench = lab or self.lab
        if workbench is None:
            raise ConfigurationError("A fork needs a server.", hint="Pass lab=Workbench().")
        self.fork_point(step)  # the same error as from the server, but at once
        recorded = self.manifest.get("config", {})
        options = {name: value for name, value in recorded.items() if name not in ("record", "record_mode")}
        origin = str(self.source.absolute()) if self.source is not None else self.id
        options |= {**config, "model": model or self.model, "fork": {"run": origin, "step": step}}
        session = await workbench.create_session(f"{self.name} from step {step}", **options)
        if message is not None:
            await session.send(message)
        return session

    # Showing and sharing

    def export(self, path: str | Path, format: str | None = None) -> Path:
        """Write the run to ``path`` in ``format``, or in the one that its ending names; see docs/runs.md."""
        target = Path(path)
        write([self], target, format)
        return target

    def to_html(self, path: str | Path | None = None) -> str:
        """A page that needs nothing else; written to ``path`` if given."""
        from .documents import page

        text = page(self.contents, whole=True)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def to_markdown(self, path: str | Path | None = None) -> str:
        """A report; with a ``path``, its screenshots lie in a folder beside it."""
        from .documents import markdown

        return markdown(self, Path(path) if path else None)

    def to_inspect(self, path: str | Path | None = None) -> Json:
        """An inspect_ai log with this run as its one sample; written to ``path`` (.eval, .json, a folder) if given."""
        from .trajectories import InspectExporter, inspect_log

        if path is not None:
            InspectExporter().write([self], Path(path))
        return inspect_log([self])

    def to_video(self, path: str | Path, *, speed: float = 1.0) -> Path:
        """A film (.mp4, .gif, .webp) with pointer, keys and words drawn in, waits shortened; ``speed`` 2: faster."""
        from .video import to_video

        return to_video(self, Path(path), speed=speed)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        from .documents import page

        return {"text/html": page(self.contents), "text/plain": repr(self)}

    def __repr__(self) -> str:
        usage = self.usage
        return (
            f"Run({self.name!r}, {self.model}, {counted(len(self.contents.steps), 'step')}, {self.seconds:.1f} s, "
            f"${usage.cost_usd:.4f}{'' if self.complete else ', not finished'})"
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Run)
            and self.contents.manifest == other.contents.manifest
            and self.contents.lists == other.contents.lists
        )

    __hash__ = None  # type: ignore[assignment]


def export(contents: Contents, name: str) -> tuple[str, bytes]:
    """Return a run in a format: the ending of its file, and the file. A format of several files is a zip."""
    exporter = load(name)
    ending = exporter.suffixes[0] if exporter.suffixes else ""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"run{ending}"
        write([Run(contents)], target, name)
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        if files == [target]:
            return ending, target.read_bytes()
        packed = shutil.make_archive(str(Path(folder) / "all"), "zip", folder)
        return ".zip", Path(packed).read_bytes()
