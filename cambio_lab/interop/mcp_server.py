"""The Model Context Protocol: any MCP client drives a desktop, or has our agent work on it, while people watch.

What the client does itself is a turn whose calls it gives in the model's place: people may have to approve it, can stop
it, and the record replays it. How much must be approved is the server's setting; no tool changes it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ..agent.tools import MEMBERS
from ..errors import CambioError, InvalidRequest, SessionNotFound
from ..sessions.message import Checked
from ..store import MessageQuery, SessionQuery, StepRow

if TYPE_CHECKING:
    from ..sessions.registry import Registry
    from ..sessions.session import Session

log = logging.getLogger(__name__)
WAIT_SECONDS = 50
"""For a turn, before its state is the answer: clients give a call a minute."""
MAX_WORDS = 20_000
Point = list[int]
Block = dict[str, Any]


class Create(Checked):
    """Create a session: a fresh desktop of its own. Returns its id, where a person can watch it, and a screenshot."""

    name: str | None = Field(None, description="Title that people see.")
    model: str | None = Field(None, description="Model of the server's agent, for run_task.")
    display: str | None = Field(None, description='Size of the screen in pixels, such as "1280x800".')
    network: Literal["open", "none"] | None = None
    max_cost_usd: float | None = Field(None, ge=0, description="What run_task may cost in this session.")


class Look(Checked):
    """Return a screenshot of the desktop as it is now."""

    session_id: str


class Act(Checked):
    """Do one thing on the desktop and return the screenshot after it. Coordinates are pixels of the last screenshot."""

    session_id: str
    action: Literal[tuple(sorted(MEMBERS))]  # type: ignore[valid-type]
    coordinate: Point | None = Field(None, description="[x, y] of clicks, mouse_move, scroll; where a drag ends.")
    start_coordinate: Point | None = Field(None, description="[x, y] where left_click_drag begins.")
    text: str | None = Field(None, description='What to type; a key such as "ctrl+s"; keys held during a click.')
    scroll_direction: Literal["up", "down", "left", "right"] | None = None
    scroll_amount: int | None = None
    duration: float | None = Field(None, description="Seconds of wait and hold_key.")
    region: list[int] | None = Field(None, description="[x0, y0, x1, y1] of zoom.")


class RunTask(Checked):
    """Have the server's agent do a task; returns its answer and the last screenshot.

    When it takes long, or waits for a person's approval, the answer says so; call it again without a task to wait on.
    """

    session_id: str
    task: str | None = None


class ListRuns(Checked):
    """List recorded runs (sessions, also those that have ended), newest first."""

    status: Literal["active", "inactive", "error"] | None = None
    limit: int = Field(20, ge=1, le=200)
    offset: int = Field(0, ge=0)


class ReadRun(Checked):
    """Read a recorded run: what was said, each step, and the screenshots of the last steps."""

    session_id: str
    after_step: int = Field(0, ge=0)
    screenshots: int = Field(1, ge=0, le=10, description="How many of the last steps are shown.")


class End(Checked):
    """End a session and remove its desktop; its record stays."""

    session_id: str


class Tools:
    """The tools over one registry; each method takes its model and returns content blocks."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._table: dict[str, tuple[type[Checked], Callable[[Any, str], Awaitable[list[Block]]], bool]] = {
            "create_session": (Create, self._create, False),
            "look": (Look, self._look, True),
            "act": (Act, self._act, False),
            "run_task": (RunTask, self._run_task, False),
            "list_runs": (ListRuns, self._list_runs, True),
            "read_run": (ReadRun, self._read_run, True),
            "end_session": (End, self._end, False),
        }

    def definitions(self) -> list[Block]:
        """Return what ``tools/list`` says."""
        return [
            {
                "name": name,
                "description": " ".join((model.__doc__ or "").split()),
                "inputSchema": model.model_json_schema(),
                "annotations": {"readOnlyHint": reads},
            }
            for name, (model, _, reads) in self._table.items()
        ]

    async def call(self, name: str, arguments: dict[str, Any], base_url: str) -> tuple[list[Block], bool]:
        """Return the content of a result and whether it is an error, in words for the client's model."""
        if name not in self._table:
            return [_text(f"There is no tool {name[:60]!r}.")], True
        model, method, _ = self._table[name]
        try:
            return await method(model.check(arguments, name), base_url), False
        except CambioError as error:
            return [_text(error.describe())], True
        except Exception:
            log.exception("MCP: the tool %s failed", name)
            return [_text(f"{name} failed inside the server.")], True

    async def _create(self, asked: Create, base_url: str) -> list[Block]:
        config = asked.model_dump(exclude_none=True, exclude={"name"})
        session = await self._registry.create(asked.name, config)
        watch = f"{base_url}vnc/{session.id}"
        words = f"A person can watch it at {watch} or in JupyterLab's Agents sidebar."
        facts = {"session_id": session.id, "name": session.name, "display": str(session.desktop.size)}
        return [_text(f"{json.dumps(facts)}\n{words}"), await _screen(session)]

    async def _look(self, asked: Look, _: str) -> list[Block]:
        session = await self._registry.find(asked.session_id)
        return [_text(f"The agent is {session.state}."), await _screen(session)]

    async def _act(self, asked: Act, _: str) -> list[Block]:
        session = await self._registry.find(asked.session_id)
        arguments = asked.model_dump(exclude_none=True, exclude={"session_id", "action"})
        call = {"name": asked.action, "input": arguments}
        before = session.steps
        words = f"{asked.action} {json.dumps(arguments, ensure_ascii=False)}"
        await session.send(words, {"client": "mcp", "options": {"calls": [call]}})
        return await self._outcome(session, before, answer=False)

    async def _run_task(self, asked: RunTask, _: str) -> list[Block]:
        session = await self._registry.find(asked.session_id)
        if asked.task is not None:
            await session.send(asked.task, {"client": "mcp"})
        return await self._outcome(session, session.steps, answer=True)

    async def _outcome(self, session: Session, before: int, *, answer: bool) -> list[Block]:
        """Wait for the turn; return what its steps gave, or the agent's ``answer``, and the last screenshot."""
        if session.turn is None:
            raise InvalidRequest("No task was given yet.", hint="Pass a task.")
        await asyncio.wait({session.turn.task}, timeout=WAIT_SECONDS)
        if not session.turn.task.done():
            waits = session.gate.pending
            state = f"waits for a person's approval of: {waits.shown}" if waits else f"is still {session.state}"
            return [_text(f"The turn {state}. Call run_task without a task to wait on."), await _screen(session)]
        ends = await session.store.events.records(session.id, kinds=("TurnFinished", "TurnFailed"))
        end: Block = json.loads(ends[-1].record or "{}") if ends else {}
        if error := end.get("error"):
            raise InvalidRequest(f"{error} {end.get('details', '')}")
        steps = await session.store.steps.of(session.id, after=before)
        lines = [f"{step.tool}: {step.status}. {step.text}".strip() for step in steps]
        stopped = "A person stopped this. " if end.get("stopped") else ""
        limit = f"A limit was reached ({end['limit']}). " if end.get("limit") else ""
        words = stopped + limit + (str(end.get("text", "")) if answer else "\n".join(lines))
        return [_text(words or "Done."), *await self._images(steps, 1)]

    async def _list_runs(self, asked: ListRuns, _: str) -> list[Block]:
        query = SessionQuery(status=asked.status, limit=asked.limit, offset=asked.offset)
        found = await self._registry.store.sessions.page(query)
        rows = [
            {
                "session_id": row.id,
                "name": row.name,
                "status": row.status,
                "model": row.model,
                "steps": row.steps,
                "cost_usd": row.usage.get("cost_usd", 0),
            }
            for row in found.rows
        ]
        return [_text(json.dumps({"runs": rows, "total": found.total}, ensure_ascii=False))]

    async def _read_run(self, asked: ReadRun, _: str) -> list[Block]:
        store = self._registry.store
        row = await store.sessions.get(asked.session_id)
        if row is None:
            raise SessionNotFound(f"There is no session {asked.session_id[:60]!r}.")
        messages = await store.messages.page(row.id, MessageQuery(limit=200, newest_first=True))
        steps = await store.steps.of(row.id, after=asked.after_step, limit=200)
        facts = {"name": row.name, "status": row.status, "model": row.model, "steps": row.steps, "usage": row.usage}
        lines = [json.dumps(facts, ensure_ascii=False)]
        lines += [f"{message.role}: {message.content}" for message in reversed(messages.rows)]
        lines += [
            f"{step.step}. {step.tool} {json.dumps(step.arguments)}: {step.status}. {step.text}" for step in steps
        ]
        return [_text("\n".join(lines)), *await self._images(steps, asked.screenshots)]

    async def _images(self, steps: Sequence[StepRow], count: int) -> list[Block]:
        """Return the screenshots of the last ``count`` steps that have one."""
        seen = [step.sha256 for step in steps if step.sha256][-count:] if count else []
        found = [await self._registry.store.screenshots.read(sha256) for sha256 in seen]
        return [_image(*one) for one in found if one is not None]

    async def _end(self, asked: End, _: str) -> list[Block]:
        ended = await self._registry.end(asked.session_id)
        return [_text(f"The session ended at {ended['ended_at']}; its record stays.")]


def _text(words: str) -> Block:
    cut = words if len(words) <= MAX_WORDS else f"{words[:MAX_WORDS]}\n[... shortened ...]"
    return {"type": "text", "text": cut}


def _image(data: bytes, media_type: str) -> Block:
    return {"type": "image", "data": base64.b64encode(data).decode("ascii"), "mimeType": media_type}


async def _screen(session: Session) -> Block:
    image = await session.desktop.screenshot()
    return _image(image.data, image.media_type)
