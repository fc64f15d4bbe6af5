"""One message over ``/ws`` and everything that came back, until the turn ended."""

from __future__ import annotations

import json
from typing import Any

import websockets


async def chat(ws_url: str, session_id: str, content: str, query: str = "") -> list[dict[str, Any]]:
    """The messages after sending ``content``, the ``agent_response`` or ``error`` last."""
    seen: list[dict[str, Any]] = []
    async with websockets.connect(f"{ws_url}/ws/{session_id}{query}", max_size=None) as socket:
        await socket.send(json.dumps({"content": content}))
        async for frame in socket:
            seen.append(json.loads(frame))
            if seen[-1]["type"] in ("agent_response", "error"):
                return seen
    raise AssertionError(f"the socket closed before the turn ended: {seen}")
