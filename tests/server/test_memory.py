"""How many heaps the C library keeps for many threads, asked of the library itself; what the collector leaves alone."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import ctypes, sys, threading
from cambio_lab.server import bound_arenas
taken = bound_arenas() if sys.argv[1] == "bound" else None
barrier = threading.Barrier(6)
def work():
    blocks = [bytearray(20_000) for _ in range(50)]
    barrier.wait()
threads = [threading.Thread(target=work) for _ in range(6)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
library = ctypes.CDLL(None)
library.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(library.fdopen(1, b"w"))
print(taken, flush=True)
library.malloc_info(0, out)
library.fflush(out)
"""


def heaps(how: str, **environment: str) -> tuple[str, int]:
    variables = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"} | environment
    command = [sys.executable, "-c", PROGRAM, how]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=variables).stdout
    return said.splitlines()[0], said.count("<heap nr=")


def test_threads_share_two_heaps() -> None:
    free = heaps("free")[1]
    assert free > 2
    assert heaps("bound") == ("True", 2)


def test_what_the_environment_says_is_left_alone() -> None:
    assert heaps("bound", MALLOC_ARENA_MAX="3") == ("False", 3)


TRIMMING = """
from cambio_lab.server import trim
import re
def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1])
blocks = [bytes(100_000) + b"x" for _ in range(2000)]
kept = blocks[::20]
del blocks
before = resident()
print(trim(), before - resident())
"""


def test_holes_go_back_to_the_system() -> None:
    said = subprocess.run([sys.executable, "-c", TRIMMING], capture_output=True, text=True, check=True).stdout.split()
    assert said[0] == "True"
    assert int(said[1]) > 50_000  # KB, of 190 MB


LOADING = """
import asyncio, gc
from cambio_lab.server.extension import _load_the_rest
asyncio.run(_load_the_rest())
print(gc.get_freeze_count(), len(gc.get_objects()))
"""


def test_a_collection_does_not_look_at_the_packages() -> None:
    said = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, text=True, check=True).stdout.split()
    frozen, others = map(int, said)
    assert frozen > 100_000 > others * 10
