"""A running session as the author of a task sees it: for ``setup`` and ``check``, and for policies in a model's place.

A policy is ``async def policy(observation)``. It returns a list of :func:`action`, or a text, which ends the turn.
It answers the agent's requests as a transport under the SDK, so that loop, desktop, limits, recorder and results are
the same, and a recorded run of it can be replayed like any other.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import inspect
import json
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import httpx2

from ..agent.demo import Block, DemoTransport, Message, current_turn, user_words
from ..agent.http import error_response, message_response
from ..desktop.base import Desktop, Screenshot, Size
from ..desktop.files import FileInfo
from ..desktop.machine import CommandResult
from ..errors import ActionError, ConfigurationError
from ..events import Usage
from .task import Task

if TYPE_CHECKING:
    from ..sessions.session import Session

P = ParamSpec("P")
T = TypeVar("T")


class Facts:
    """What is known of a running session.

    ``random`` is seeded by the cell: the same draws for every model and setting of one repeat. ``values`` carries
    what ``setup`` drew to ``message`` and ``check``. ``answers`` are the agent's final texts, one for each message.
    """

    def __init__(self, session: Session | None, desktop: Desktop, seed: int) -> None:
        self._session = session
        self.desktop = desktop
        self.seed = seed
        self.random = random.Random(seed)
        self.values: dict[str, Any] = {}
        self.answers: list[str] = []

    @property
    def session(self) -> Session:
        """:class:`ActionError` where an earlier run is judged again."""
        if self._session is None:
            raise ActionError("There is no session any more: this check judges a run that is over.")
        return self._session

    @property
    def answer(self) -> str:
        """The agent's last final text, empty before there is one."""
        return self.answers[-1] if self.answers else ""

    @property
    def steps(self) -> int:
        """Tool calls so far."""
        return self.session.steps

    @property
    def usage(self) -> Usage:
        """Tokens and dollars so far."""
        return self.session.usage


class Live(Facts):
    """A running session for the author of a task. Paths are below the desktop's home unless they are absolute."""

    async def shell(self, command: str, timeout: float = 60.0) -> CommandResult:
        """Run a bash command line inside the desktop, apart from the agent's own shell. Does not raise on failure."""
        code, out, err = await self.desktop.execute(["bash", "-c", command], timeout=timeout)
        return CommandResult(out.decode(errors="replace"), err.decode(errors="replace"), code)

    async def spawn(self, command: str) -> None:
        """Start a program that stays (a window, a server) and return at once."""
        await self.desktop.execute(["bash", "-c", f"setsid nohup {command} >/dev/null 2>&1 </dev/null &"])

    async def read(self, path: str) -> str:
        """A text file's content; :class:`~cambio_lab.errors.ActionError` when it is not there."""
        return (await self.read_bytes(path)).decode()

    async def read_bytes(self, path: str) -> bytes:
        return b"".join([chunk async for chunk in self.desktop.read_file(path)])

    async def write(self, path: str, content: str | bytes) -> None:
        """Write a file, creating folders."""
        await self.desktop.write_file(path, content.encode() if isinstance(content, str) else content)

    async def exists(self, path: str) -> bool:
        code, _, _ = await self.desktop.execute(["test", "-e", path])
        return code == 0

    async def wait_for(self, path: str, timeout: float = 20.0) -> None:
        """Wait until ``path`` exists (what a started program leaves when it is ready); ``TimeoutError`` if never."""
        waiting = ["bash", "-c", 'until [ -e "$1" ]; do sleep 0.1; done', "wait", path]
        await self.desktop.execute(waiting, timeout=timeout)

    async def wait_for_window(self, title: str, timeout: float = 60.0) -> None:
        """Wait until a window whose title contains ``title`` is open; ``TimeoutError`` if none ever is."""
        waiting = 'until xwininfo -root -tree | grep -F -- "$1" >/dev/null; do sleep 0.2; done'
        await self.desktop.execute(["bash", "-c", waiting, "wait", title], timeout=timeout)

    async def files(self, path: str = "") -> list[FileInfo]:
        return await self.desktop.list_files(path)

    async def screenshot(self) -> Screenshot:
        """The settled screen."""
        return await self.desktop.screenshot()


def _blocking(
    method: Callable[Concatenate[Live, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[BlockingLive, P], T]:
    @functools.wraps(method)
    def wait(live: BlockingLive, /, *arguments: P.args, **named: P.kwargs) -> T:
        return asyncio.run_coroutine_threadsafe(method(live.live, *arguments, **named), live.loop).result()

    return wait


class BlockingLive(Facts):
    """A :class:`Live` for plain functions, which run in a thread: every method blocks until it is done."""

    def __init__(self, live: Live, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(live._session, live.desktop, live.seed)
        self.random, self.values, self.answers = live.random, live.values, live.answers
        self.live, self.loop = live, loop

    shell, spawn = _blocking(Live.shell), _blocking(Live.spawn)
    read, read_bytes, write = _blocking(Live.read), _blocking(Live.read_bytes), _blocking(Live.write)
    exists, files = _blocking(Live.exists), _blocking(Live.files)
    wait_for, wait_for_window = _blocking(Live.wait_for), _blocking(Live.wait_for_window)
    screenshot = _blocking(Live.screenshot)


async def call(function: Callable[..., Any], live: Live, *arguments: Any) -> Any:
    """Call an author's function, plain (in a thread) or async."""
    if inspect.iscoroutinefunction(function):
        return await function(live, *arguments)
    blocking = BlockingLive(live, asyncio.get_running_loop())
    result = await asyncio.to_thread(function, blocking, *arguments)
    return await result if inspect.isawaitable(result) else result


OWN = frozenset({"bash", "str_replace_based_edit_tool"})
"""Tools of their own; every other action is a member of the computer toolset."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a policy sees before each of its replies. ``screenshot`` is an encoded image, ``size`` its pixels.

    ``results`` are the texts of the last actions, ``random`` is seeded by the cell. ``task`` and ``live`` are for
    reference solutions and baselines: they know more than a model is told.
    """

    message: str
    step: int
    """Replies with actions before this one, in this turn."""
    screenshot: bytes
    size: Size
    results: tuple[str, ...]
    random: random.Random
    task: Task
    live: Live


Policy = Callable[[Observation], Awaitable["Sequence[Block] | str"]]


def action(name: str, **arguments: Any) -> Block:
    """Return one action: a member of the computer toolset (``left_click``, coordinate=[x, y]) or ``bash``."""
    block: Block = {"type": "tool_use", "name": name, "input": arguments}
    return block if name in OWN else {**block, "toolset_name": "computer"}


async def random_policy(observation: Observation) -> Sequence[Block] | str:
    """Click, double-click, type or press keys at random, ten times, within ``live.values["area"]`` if there is one."""
    draw = observation.random
    if observation.step >= 10:
        return "I stop after ten actions."
    left, top, right, bottom = observation.live.values.get("area", (0, 0, *observation.size))
    kind = draw.choices(("left_click", "double_click", "type", "key"), (7, 1, 1, 1))[0]
    if kind == "type":
        words = observation.message.split() or ["hello"]
        return [action("type", text=draw.choice(words).strip(".,:;\"'") or "a")]
    if kind == "key":
        return [action("key", text=draw.choice(("Tab", "Return", "Down", "space")))]
    return [action(kind, coordinate=[draw.randrange(left, right), draw.randrange(top, bottom)])]


async def oracle_policy(observation: Observation) -> Sequence[Block] | str:
    """Follow the task's reference solution, itself a policy; give up where there is none."""
    solution = observation.task.solution
    return "This task has no reference solution." if solution is None else await solution(observation)


async def human_policy(observation: Observation) -> Sequence[Block] | str:
    """Do again, a step at a time, what a person did in the task's demonstration; give up where there is none."""
    task = observation.task
    if task.demonstration is None:
        return "No person has shown how to do this task."
    digest = await asyncio.to_thread(task.demonstrated)
    steps = await asyncio.to_thread(_demonstrated, str(task.demonstration), digest)
    if observation.step >= len(steps):
        return "I did what I was shown."
    name, arguments = steps[observation.step]
    return [action(name, **arguments)]


@lru_cache(maxsize=16)
def _demonstrated(path: str, digest: str) -> tuple[tuple[str, dict[str, Any]], ...]:
    from ..reports import Run

    steps = Run.load(path).human_steps
    if any("characters" in step["arguments"] for step in steps):
        raise ConfigurationError(f"{path} does not have the typed text.", hint="Record it with record_human='full'.")
    return tuple((step["action"], step["arguments"]) for step in steps)


BASELINES: Mapping[str, Policy] = {"random": random_policy, "oracle": oracle_policy, "human": human_policy}


class PolicyTransport(httpx2.AsyncBaseTransport):
    """Answers with the policy that is bound to it; with none it is the demo model."""

    def __init__(self) -> None:
        self._demo = DemoTransport()
        self._policy: Policy | None = None
        self.failure: Exception | None = None
        """What the policy raised: the author's mistake, no evidence about anything."""

    def bind(self, policy: Policy, task: Task, live: Live) -> None:
        self._policy, self._task, self._live = policy, task, live
        self._random = random.Random(live.seed)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._policy is None:
            return await self._demo.handle_async_request(request)
        body = await request.aread()
        try:
            blocks = await self._reply(self._policy, json.loads(body)["messages"])
        except Exception as error:
            self.failure = error
            return error_response(request, 400, "invalid_request_error", f"The policy raised {type(error).__name__}.")
        digest = hashlib.sha256(body).hexdigest()[:16]
        return message_response(request, f"policy_{digest}", blocks)

    async def _reply(self, policy: Policy, messages: Sequence[Message]) -> list[Block]:
        """Return the reply's blocks: a first look at the screen, then the policy's actions, each batch with a look."""
        turn = current_turn(messages)
        texts, screenshot = _results(turn[-1])
        look = action("screenshot")
        if screenshot is None:
            return [look]
        replies = sum(message["role"] == "assistant" for message in turn) - 1
        said = await policy(
            Observation(
                message=user_words(turn[0]),
                step=replies,
                screenshot=screenshot,
                size=self._live.desktop.size,
                results=texts,
                random=self._random,
                task=self._task,
                live=self._live,
            )
        )
        if isinstance(said, str) or not said:
            return [{"type": "text", "text": said or "Done."}]
        return [*({**block} for block in said), look]


def _results(message: Message) -> tuple[tuple[str, ...], bytes | None]:
    """Return texts and the last screenshot of the tool results in ``message``."""
    texts: list[str] = []
    image = None
    for block in message["content"]:
        parts = block.get("content") if isinstance(block, dict) and block["type"] == "tool_result" else []
        pieces: list[Block] = [{"type": "text", "text": parts}] if isinstance(parts, str) else parts or []
        for part in pieces:
            if part["type"] == "image":
                image = base64.b64decode(part["source"]["data"])
            elif part["type"] == "text":
                texts.append(str(part["text"]))
    return tuple(texts), image
