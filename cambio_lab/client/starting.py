"""How far a slow first desktop is: what the socket of all sessions says while ``POST /sessions`` is not answered."""

from __future__ import annotations

import asyncio
import json

from websockets.exceptions import WebSocketException

from ..jupyter.progress import Progress
from .discovery import Address
from .message import Message, open_socket

PATIENCE = 3.0
"""Seconds before anybody asks: a desktop from the pool is there sooner, and connections are counted."""


async def tell(address: Address, name: str | None, bar: Progress) -> None:
    """Move ``bar`` along until cancelled. Without news (an old server, too many connections) it only shows the time."""
    await asyncio.sleep(PATIENCE)
    try:
        async with open_socket(address, f"{address.ws_url}/ws") as socket:
            async for frame in socket:
                _take(Message.parse(json.loads(frame)), name, bar)
    except (OSError, WebSocketException):
        return  # the request itself tells what is wrong


def _take(message: Message, name: str | None, bar: Progress) -> None:
    if message.event != "progress" or (name is not None and message.metadata.get("name") != name):
        return
    fraction = message.metadata.get("fraction")
    label = f"Starting a desktop: {message.content}"
    if isinstance(fraction, int | float):
        bar.total, bar.unit = 100.0, "%"
        bar.to(round(100.0 * fraction), label)
    else:
        bar.total = None
        bar.to(0.0, label)
