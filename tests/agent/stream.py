"""A turn's events one by one: the agent waits until the test asks for the next, as it waits for a session to store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from cambio_lab.events import Event


async def turn_events(agent: Any, content: str, **options: Any) -> AsyncGenerator[Event, None]:
    """Yield the events of one turn; leaving early cancels it."""
    queue: asyncio.Queue[Event] = asyncio.Queue(1)

    async def emit(event: Event) -> None:
        await queue.put(event)
        await queue.join()

    turn = asyncio.create_task(agent.run(content, emit, **options))
    getting = asyncio.create_task(queue.get())
    try:
        while True:
            await asyncio.wait({turn, getting}, return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                await turn
                return
            yield getting.result()
            getting = asyncio.create_task(queue.get())
            queue.task_done()
    finally:
        turn.cancel()
        getting.cancel()
        await asyncio.wait({turn, getting})
