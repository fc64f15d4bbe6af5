"""``kill -9`` in the middle of a recording: what was stored is the truth up to the last acknowledged step."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from typing import Any

import httpx2
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from cambio_lab.replay.runs import ForkPoint
from cambio_lab.reports import Run
from cambio_lab.store import Store
from tests.live_server import LiveServer
from tests.messages_api import MessagesApi, Steps


async def test_the_bundle_is_the_truth_up_to_the_last_acknowledged_step(
    start_server: Callable[..., Any], messages_api: MessagesApi, tmp_path: Any
) -> None:
    messages_api.policy = Steps(500, batch=3, thoughts=True)
    server: LiveServer = await start_server("--no-token", model="claude-sonnet-5-5", env=messages_api.environment)
    acknowledged: dict[int, dict[str, Any]] = {}
    async with httpx2.AsyncClient(base_url=server.url, timeout=60) as client:
        created = (await client.post("/sessions", json={"config": {"approval": "never", "max_steps": 1000}})).json()
    async with connect(f"{server.ws_url}/ws/{created['id']}", max_size=None) as socket:
        await socket.send(json.dumps({"content": "work for long"}))
        try:
            async with asyncio.timeout(60):
                async for text in socket:
                    message = json.loads(text)
                    if message["type"] == "tool_execution" and message["status"] == "completed":
                        acknowledged[message["step"]] = message
                    if len(acknowledged) == 25:
                        await server.kill()
        except ConnectionClosed:
            pass
    assert len(acknowledged) >= 25
    run = await _stored(server, created["id"])
    saved = Run.load(run.save(tmp_path / "crash.cambio"))
    assert saved == run and not run.complete
    rows = {row["step"]: row for row in run.rows}
    for step, message in acknowledged.items():
        assert (rows[step]["status"], rows[step]["action"]) == ("completed", message["tool"])
        assert rows[step]["arguments"] == message["arguments"]
        if rows[step]["action"] == "screenshot":
            digest = rows[step]["screenshot"]
            assert hashlib.sha256(saved.screenshot(step)).hexdigest() == digest
            assert digest in message["result"]["image_path"]
    called = [call for call in run.contents.observations if call["method"] in ("screenshot", "move")]
    assert len(called) >= len(acknowledged)  # what led to an acknowledged step is there, too
    asked = json.loads(run.contents.request(0))
    assert asked == messages_api.bodies[0]
    last = max(acknowledged)
    assert ForkPoint.at_step(run.contents, last).history[-1]["role"] == "user"


async def _stored(server: LiveServer, session_id: str) -> Run:
    store = await Store.open(server.data_dir / "cambio_lab")
    try:
        return Run(_in_memory(await Run.from_store(store, session_id)))
    finally:
        await store.close()


def _in_memory(run: Run) -> Any:
    """The contents with their screenshots, so that the store may be closed."""
    from dataclasses import replace

    found = {digest: run.contents.find(digest) for digest in run.contents.screenshots}
    return replace(run.contents, find=found.get)
