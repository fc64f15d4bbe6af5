"""Threads that do not delay the end of the process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonThreads(Executor):
    """At most ``count`` threads, begun as they are needed.

    Like the standard library's ``ThreadPoolExecutor``, whose threads the interpreter joins when it ends: a call that an
    engine never answers held up a server's shutdown for its whole time limit.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._over = False

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call ``function`` on a thread. ``RuntimeError`` after :meth:`shutdown`."""
        with self._lock:
            if self._over:
                raise RuntimeError("no more calls are taken")
            future: Future[T] = Future()
            self._work.put((future, partial(function, *args, **kwargs)))
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._count:
                name = f"{self._name}_{len(self._threads)}"
                self._threads.append(threading.Thread(target=self._serve, name=name, daemon=True))
                self._threads[-1].start()
            return future

    def _serve(self) -> None:
        while (job := self._work.get()) is not None:
            future, call = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:
                    future.set_exception(error)
            del job, future, call  # what the next job waits for must not keep the last one's result
            self._idle.release()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; those that wait are cancelled if asked. The threads end after what they are doing."""
        with self._lock:
            self._over = True
            with suppress(queue.Empty):
                while cancel_futures:
                    if (job := self._work.get_nowait()) is not None:
                        job[0].cancel()
            for _ in self._threads:
                self._work.put(None)
        if wait:
            for thread in self._threads:
                thread.join()
