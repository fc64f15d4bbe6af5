"""Experiments over REST, tags and notes of sessions, and run files exported for a viewer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from cambio_lab.client.workbench import Workbench
from cambio_lab.recording import walls
from tests.live_server import LiveServer

from .conftest import check_envelope

pytestmark = pytest.mark.asyncio(loop_scope="module")
RECORDING = Path(__file__).resolve().parents[2] / "notebooks" / "runs" / "01-first-session-1.cambio"
CELL = "press/demo/default/0"


@pytest.fixture
def wall(server: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An experiment of one cell, with its record where the server looks."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(Path(server.environment["JUPYTER_RUNTIME_DIR"])))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "one.cambio").write_bytes(RECORDING.read_bytes())
    cell = {"id": CELL, "task": "press", "column": "demo", "state": "failure", "reason": "no", "run": "one.cambio"}
    counts = {"total": 1, "done": 1, "success": 0, "failed": 0, "running": 0, "more": 0}
    told = {"id": "c" * 32, "name": "clicks", "directory": str(tmp_path), "words": "1/1 done", "ended": "complete"}
    record = {**told, **counts, "cells": [{**cell, "cost_usd": 0.1}], "live": []}
    walls.publish(record)
    return record


async def test_an_experiment_is_listed_read_and_annotated(server: LiveServer, wall: dict[str, Any]) -> None:
    path = f"/cambio/experiments/{wall['id']}"
    async with server.client() as client:
        (row,) = (await client.get("/cambio/experiments")).json()["experiments"]
        assert row["name"] == "clicks" and "cells" not in row
        change = {"cell": CELL, "tags": ["odd"], "note": "look again"}
        assert (await client.patch(path, json=change)).json() == {"tags": ["odd"], "note": "look again"}
        assert (await client.patch(path, json={"cell": CELL, "note": ""})).json() == {"tags": ["odd"], "note": ""}
        (cell,) = (await client.get(path)).json()["cells"]
        assert (cell["state"], cell["tags"], cell["note"]) == ("failure", ["odd"], "")
        assert (await client.get(f"{path}/runs/one.cambio")).content == RECORDING.read_bytes()
        check_envelope(await client.patch(path, json={"cell": "other", "note": "x"}), 404)
        check_envelope(await client.patch(path, json={"cell": CELL, "tags": ["a,b"]}), 422)
        check_envelope(await client.get(f"{path}/runs/..%2F..%2Fetc%2Fpasswd"), 404)
        check_envelope(await client.get("/cambio/experiments/" + "d" * 32), 404)
    async with httpx2.AsyncClient(base_url=server.url) as stranger:
        for address in ("/cambio/experiments", path, f"{path}/runs/one.cambio"):
            check_envelope(await stranger.get(address), 401)
        check_envelope(await stranger.patch(path, json={"cell": CELL, "tags": []}), 401)


async def test_a_run_file_becomes_a_film(server: LiveServer, tmp_path: Path) -> None:
    data = RECORDING.read_bytes()
    async with server.client() as client:
        answer = await client.put("/cambio/export", params={"format": "html"}, content=data, timeout=60)
        assert answer.raise_for_status().content.startswith(b"<!doctype html>")
        check_envelope(await client.put("/cambio/export", params={"format": "no"}, content=data), 422)
        check_envelope(await client.put("/cambio/export", params={"format": "html"}, content=b"PK no zip"), 422)
        check_envelope(await client.get("/cambio/export"), 405)
    async with httpx2.AsyncClient(base_url=server.url) as stranger:
        check_envelope(await stranger.put("/cambio/export", content=data), 401)


async def test_sessions_have_tags_and_a_note_also_after_their_end(server: LiveServer, session: dict[str, Any]) -> None:
    path = f"/sessions/{session['id']}"
    async with server.client() as client:
        said = (await client.patch(path, json={"tags": ["good", "good", "first"], "note": "live"})).json()
        assert (said["tags"], said["note"]) == (["good", "first"], "live")
        check_envelope(await client.patch(path, json={"tags": ["x" * 61]}), 422)
        nothing = {"name": "renamed", "pinned": None, "tags": None, "note": None}  # null changes nothing
        said = (await client.patch(path, json=nothing)).json()
        assert (said["name"], said["tags"], said["note"]) == ("renamed", ["good", "first"], "live")
        await client.delete(path)
        said = (await client.patch(path, json={"note": "over"})).json()
        assert (said["tags"], said["note"], said["state"]) == (["good", "first"], "over", "ended")
    async with Workbench(server.url, server.token) as lab:
        runs = await lab.runs("over", tag="first")
        assert [row["id"] for row in runs] == [session["id"]]
        await runs.annotate(0, tags=["kept"])
        assert [row["tags"] for row in await lab.runs(tag="kept")] == [("kept",)]
