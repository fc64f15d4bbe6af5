"""Sessions on containers that come and go in a process with the server's allocator; prints what it held meanwhile.

``python -m tests.faults.cycles COUNT DIRECTORY``: one JSON object, ``before``, ``after`` and ``server_id``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from pathlib import Path

from cambio_lab.server import bound_arenas, keep_trimmed, trim

from .test_leaks import cycle, held
from .workbench import Workbench

WARMING = 10
"""Cycles before the first look: caches and pools fill up."""


async def main(count: int, directory: Path) -> None:
    bound_arenas()
    trimming = asyncio.create_task(keep_trimmed(), name="trimming")
    bench = Workbench(directory, "docker")
    await bench.start()
    found: dict[str, object] = {"server_id": bench.server_id}
    for name, cycles in (("before", WARMING), ("after", count)):
        for _ in range(cycles):
            await cycle(bench)
        gc.collect()
        trim()
        found[name] = held()
    trimming.cancel()
    await bench.stop()
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
