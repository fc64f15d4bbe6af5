"""Threads that nobody waits for: results, errors, their number, and an interpreter that ends."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from functools import partial

import pytest

from cambio_lab.desktop.docker.engine import DaemonThreads

HANGS = """
import time
from cambio_lab.desktop.docker.engine import DaemonThreads
threads = DaemonThreads(2, "hanging")
for _ in range(3):
    threads.submit(lambda: time.sleep(60))
time.sleep(0.1)
threads.close()
"""


def test_results_and_errors_come_back() -> None:
    threads = DaemonThreads(2, "test")
    assert [threads.submit(partial(pow, 2, n)).result(5) for n in range(5)] == [1, 2, 4, 8, 16]
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 // 0).result(5)
    threads.close()
    with pytest.raises(RuntimeError):
        threads.submit(print)


def test_there_are_never_more_and_idle_ones_are_used_again() -> None:
    threads, go, running = DaemonThreads(3, "counted"), threading.Event(), threading.Semaphore(0)

    def work() -> str:
        running.release()
        go.wait(10)
        return threading.current_thread().name

    futures = [threads.submit(work) for _ in range(7)]
    for _ in range(3):
        assert running.acquire(timeout=5)
    assert not running.acquire(timeout=0.1)
    go.set()
    assert {future.result(5) for future in futures} <= {f"counted_{n}" for n in range(3)}
    for _ in range(20):
        assert threads.submit(lambda: threading.current_thread().name).result(5) in {f"counted_{n}" for n in range(3)}
    threads.close()


def test_what_waits_is_cancelled() -> None:
    threads, go = DaemonThreads(1, "cancelled"), threading.Event()
    first, second = threads.submit(partial(go.wait, 10)), threads.submit(lambda: 4)
    threads.close()
    with pytest.raises(CancelledError):
        second.result(5)
    go.set()
    assert first.result(5) is True


@pytest.mark.timing
def test_a_call_that_is_never_answered_does_not_hold_up_the_end() -> None:
    begin = time.monotonic()
    subprocess.run([sys.executable, "-c", HANGS], check=True, timeout=30)
    assert time.monotonic() - begin < 10
