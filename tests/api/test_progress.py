"""``/ws`` says how far a slow first start is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cambio_lab.agent.options import AgentOptions
from cambio_lab.api.overview_socket import OverviewSocket
from cambio_lab.desktop.provider import Progress
from cambio_lab.sessions.config import SessionConfig
from cambio_lab.sessions.creation import Creation
from tests.sessions.parts import Bench


async def test_a_start_that_takes_long_is_a_status(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    socket: Any = SimpleNamespace(registry=await bench.start())
    options = AgentOptions.from_settings(bench.settings, {})
    starting = Creation(bench.registry.context, "s-1", "first", SessionConfig(), options, tell=lambda one: None)
    starting.created_at = 1700000000.0
    starting.note(Progress("Step 2/9 : RUN apt-get", 0.2))
    message = OverviewSocket._summary(socket, starting.describe())
    assert (message["type"], message["session_id"], message["status"]) == ("status", "s-1", "idle")
    assert message["content"] == "Step 2/9 : RUN apt-get"
    shown = {name: message["metadata"][name] for name in ("event", "fraction", "name", "model", "created_at")}
    assert shown == {
        "event": "progress", "fraction": 0.2, "name": "first", "model": "demo", "created_at": "2023-11-14T22:13:20Z"
    }  # fmt: skip
    starting.failed("The image cannot be built.")
    message = OverviewSocket._summary(socket, starting.describe())
    assert (message["status"], message["content"]) == ("error", "The image cannot be built.")
    assert message["metadata"]["session_status"] == "error"
    await bench.stop()
