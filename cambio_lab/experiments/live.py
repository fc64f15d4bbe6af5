"""What ``setup`` and ``check`` are given: the desktop of the running session, in few words."""

from __future__ import annotations

import asyncio
import functools
import inspect
import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from ..desktop.base import Desktop, Screenshot
from ..desktop.machine import CommandResult, FileInfo
from ..errors import ActionError
from ..events import Usage

if TYPE_CHECKING:
    from ..sessions import Session

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
