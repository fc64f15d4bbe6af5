"""The store's promises, measured: pages anywhere in a long history, grouped and single commits, pictures.

    .venv/bin/python -m benchmarks.store [--messages 100000]

Prints JSON. ``page_ms`` is the time of ``MessageTable.page`` as a handler waits for it, thread hop included, while
another task keeps adding messages.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from cambio_lab.store import MessageQuery, SessionQuery, SessionRow, Store, new_message_id


def quantiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "p50": round(statistics.median(ordered) * 1000, 3),
        "p99": round(ordered[int(len(ordered) * 0.99)] * 1000, 3),
        "max": round(ordered[-1] * 1000, 3),
    }


async def fill(store: Store, messages: int) -> float:
    """One long session; rows per second with many writers at once."""
    await store.sessions.insert(SessionRow("long", "long", "active", 1.0, {}))
    began = time.perf_counter()
    for start in range(0, messages, 2000):
        await asyncio.gather(
            *(
                store.messages.append(
                    "long", "user" if number % 2 else "assistant", f"message {number} " + "x" * 200, time=float(number)
                )
                for number in range(start, min(start + 2000, messages))
            )
        )
    return messages / (time.perf_counter() - began)


async def page_times(store: Store, messages: int, rounds: int = 300, **filters: Any) -> list[float]:
    places = random.Random(1)
    times = []
    for _ in range(rounds):
        query = MessageQuery(
            offset=places.randrange((messages // 2 if "role" in filters else messages) - 100), limit=100, **filters
        )
        began = time.perf_counter()
        page = await store.messages.page("long", query)
        times.append(time.perf_counter() - began)
        assert len(page.rows) == 100
        assert page.total >= messages // 2
    return times


async def keep_adding(store: Store) -> None:
    number = 0
    while True:
        await store.messages.append("long", "user", f"more {number}", time=1e9)
        number += 1
        await asyncio.sleep(0.001)


async def single_commits(store: Store, count: int = 500) -> list[float]:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        await store.write(store.messages.appending(new_message_id(), "long", "user", "single", None, 1e9))
        times.append(time.perf_counter() - began)
    return times


async def pictures(store: Store, count: int = 100) -> list[float]:
    times = []
    for _ in range(count):
        data = os.urandom(250_000)
        began = time.perf_counter()
        await store.screenshots.put(data)
        times.append(time.perf_counter() - began)
    return times


async def listing(store: Store, sessions: int = 10_000) -> dict[str, dict[str, float]]:
    await store.write(
        *(
            store.sessions.inserting(SessionRow(f"s{n}", f"name {n}", "active" if n % 10 else "error", float(n), {}))
            for n in range(sessions)
        )
    )
    found = {}
    queries = {
        "newest": SessionQuery(),
        "filtered": SessionQuery(status="error"),
        "middle": SessionQuery(offset=sessions // 2),
        "by name": SessionQuery(sort=[("name", True)]),
    }
    for name, query in queries.items():
        times = []
        for _ in range(100):
            began = time.perf_counter()
            await store.sessions.page(query)
            times.append(time.perf_counter() - began)
        found[name] = quantiles(times)
    return found


async def measure(messages: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        store = await Store.open(Path(folder))
        result: dict[str, Any] = {"messages": messages, "grouped_rows_per_second": round(await fill(store, messages))}
        result["page_ms"] = quantiles(await page_times(store, messages))
        result["page_of_one_role_ms"] = quantiles(await page_times(store, messages, role="user"))
        adding = asyncio.create_task(keep_adding(store))
        result["page_while_adding_ms"] = quantiles(await page_times(store, messages))
        result["page_newest_first_while_adding_ms"] = quantiles(await page_times(store, messages, newest_first=True))
        adding.cancel()
        await asyncio.gather(adding, return_exceptions=True)
        result["acknowledged_single_write_ms"] = quantiles(await single_commits(store))
        result["picture_250_kb_ms"] = quantiles(await pictures(store))
        result["sessions_page_of_10000_ms"] = await listing(store)
        await store.close()
        began = time.perf_counter()
        store = await Store.open(Path(folder))
        result["open_again_ms"] = round((time.perf_counter() - began) * 1000, 1)
        await store.close()
        return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    print(json.dumps(asyncio.run(measure(parser.parse_args().messages)), indent=1))
