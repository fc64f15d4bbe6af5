"""A client of the API for Python programs, without IPython; here, its background event loop and the ways into it.

A kernel's own loop stands still while a cell computes, differs from script to script and cannot be waited on from a
magic. Sockets therefore live on a loop of their own, in one daemon thread of the process; cells and scripts reach it
through :class:`Portal`. A waiting call wakes ten times a second, because a kernel interrupt is only seen by a thread
that runs Python.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextvars
import difflib
import functools
import inspect
import os
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine, Generator, Mapping
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from ..errors import CambioError

T = TypeVar("T")
P = ParamSpec("P")
C = TypeVar("C", bound=type)

WAKE_SECONDS = 0.1


class Portal:
    """A daemon thread with an event loop, and the ways into it. Starts on first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start ``work`` on the background loop; the answer is in the future."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_serve, args=(self._loop,), name="cambio-lab", daemon=True)
                self._thread.start()
            loop = self._loop
        return asyncio.run_coroutine_threadsafe(work, loop)

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Await ``work`` from another loop. Cancelling the caller cancels the work."""
        future = self.submit(work)
        wrapped = asyncio.wrap_future(future)
        try:
            while not wrapped.done():
                await asyncio.wait({wrapped}, timeout=WAKE_SECONDS)
        except BaseException:
            future.cancel()
            raise
        return wrapped.result()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for ``work`` from code that is not ``async``. An interrupt cancels the work."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("The background loop cannot wait for itself; await the coroutine instead.")
        future = self.submit(work)
        try:
            while not concurrent.futures.wait({future}, timeout=WAKE_SECONDS).done:
                pass
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self, timeout: float = 2.0) -> None:
        """Cancel what runs, stop the thread, close the loop."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None or not thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(_finish(loop), loop)
        thread.join(timeout)

    def forget(self) -> None:
        """After a fork: the thread did not come along, and its loop belongs to the parent."""
        self._lock = threading.Lock()
        self._loop = self._thread = None


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _finish(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    loop.stop()


portal = Portal()
"""The process's portal."""

atexit.register(portal.close)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=portal.forget)


class UserFunction:
    """A function of the user's program: an ``async`` one runs on the loop of its cell, another one in a thread."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._context = contextvars.copy_context()
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    async def __call__(self, *given: Any, **named: Any) -> Any:
        if not inspect.iscoroutinefunction(self._function):
            return await asyncio.to_thread(self._context.copy().run, lambda: self._function(*given, **named))
        if self._loop is None or self._loop.is_closed():
            return await self._function(*given, **named)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._function(*given, **named), self._loop))


class Call(Coroutine[Any, Any, T]):
    """A coroutine that says in plain words when ``await`` was forgotten.

    Without it, ``session = lab.create_session("x")`` fails a cell later, in Python's words: "can't send non-None value
    to a just-started coroutine".
    """

    def __init__(self, work: Coroutine[Any, Any, T], name: str) -> None:
        self._work = work
        self._name = name
        self._started = False

    def __await__(self) -> Generator[Any, Any, T]:
        self._started = True
        return self._work.__await__()

    def send(self, value: Any) -> Any:
        """Continue the coroutine (asyncio's side), or tell a caller who took it for a session."""
        if value is not None and not self._started:
            raise NotAwaited(repr(self))
        self._started = True
        return self._work.send(value)

    def throw(self, kind: Any, value: Any = None, traceback: TracebackType | None = None) -> Any:
        self._started = True
        return self._work.throw(kind if value is None else value)

    def close(self) -> None:
        self._started = True
        self._work.close()

    def __getattr__(self, name: str) -> Any:
        raise NotAwaited(repr(self))

    def __repr__(self) -> str:
        return f"{self._name}(...) was not awaited: write `await` before it."

    def __del__(self) -> None:
        if not self._started:
            self._work.close()
            warnings.warn(repr(self), RuntimeWarning, stacklevel=2)


class NotAwaited(AttributeError):
    """``await`` was forgotten: there is no result yet."""


class WrongArguments(CambioError, TypeError):
    """A method was called with arguments that it does not have, or without those that it needs."""

    def __init__(self, name: str, error: TypeError, given: Mapping[str, Any], signature: inspect.Signature) -> None:
        known = [parameter for parameter in signature.parameters if parameter != "self"]
        near = {one: difflib.get_close_matches(one, known, n=1) for one in given if one not in known}
        meant = " ".join(f"Did you mean {found[0]} instead of {one}?" for one, found in near.items() if found)
        super().__init__(f"{name}() {error}.", hint=meant or f"It takes {', '.join(known)}.")


def calls(kind: C) -> C:
    """Class decorator: every public ``async`` method returns a :class:`Call`."""
    for name, method in list(vars(kind).items()):
        if inspect.iscoroutinefunction(method) and not name.startswith("_"):
            setattr(kind, name, _call(method, f"{kind.__name__.lower()}.{name}"))
    return kind


def _call(method: Callable[P, Coroutine[Any, Any, T]], name: str) -> Callable[P, Coroutine[Any, Any, T]]:
    signature = inspect.signature(method)

    @functools.wraps(method)
    def made(*arguments: P.args, **options: P.kwargs) -> Coroutine[Any, Any, T]:
        try:
            signature.bind(*arguments, **options)
        except TypeError as error:
            raise WrongArguments(name, error, options, signature) from None
        return Call(method(*arguments, **options), name)

    return made
