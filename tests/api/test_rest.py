"""Bodies, lists, errors: what the reference leaves to common sense, decided once and tested here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from cambio_lab.api import Refused
from cambio_lab.api.desktop import file_time
from cambio_lab.api.rest import Rest
from tests.live_server import LiveServer

from .conftest import check_envelope

pytestmark = pytest.mark.asyncio(loop_scope="module")
JSON = {"Content-Type": "application/json"}

BODIES = [
    (b"{", 400), (b"", 200), (b"[]", 422), (b"null", 422), (b'"x"', 422), (b"7", 422), (b"\xff", 400), (b"{}", 200),
    (b'{"name": "a", "name": "b"}', 400), (b'{"name": NaN}', 400), (b'{"config": {"timeout": Infinity}}', 400),
    (b'{"config": {"timeout": 1e999}}', 400), (b'{"name": "\\ud800"}', 400), (b"[" * 50_000, 400),
    (b'{"surprise": 1}', 422), (b'{"config": {"surprise": 1}}', 422), (b'{"config": []}', 422), (b'{"name": 5}', 422),
    (b'{"name": "' + b"x" * 201 + b'"}', 422), (b'{"config": {"timeout": 0}}', 422),
    (b'{"config": {"timeout": true}}', 422),
    (b'{"config": {"timeout": "60"}}', 422), (b'{"config": {"max_messages": 0}}', 422),
    (b'{"config": {"max_messages": 1.5}}', 422), (b'{"config": {"model": "gpt"}}', 422),
    (b'{"config": {"timeout": 1' + b"0" * 400 + b"}}", 422), (b'{"config": {"max_cost_usd": 1e300}}', 422),
    (b'{"config": {"record": "a\\u0000b.cambio"}}', 422), (b'{"config": {"system": "\\u0000"}}', 422),
    (b'{"config": {"desktop": "docker"}}', 422), (b'{"name": null, "config": null}', 200), (b" " * 1_100_000, 413),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status"), BODIES, ids=[repr(body[:40]) for body, _ in BODIES])
async def test_what_a_creation_may_say(server: LiveServer, body: bytes, status: int) -> None:
    async with server.client() as client:
        response = await client.post("/sessions", content=body, headers=JSON)
        if status == 200:
            assert response.status_code == 200, response.text
            await client.delete(f"/sessions/{response.json()['id']}")
        else:
            check_envelope(response, status)


async def test_unknown_keys_are_named(server: LiveServer) -> None:
    async with server.client() as client:
        body = check_envelope(await client.post("/sessions", json={"config": {"colour": "red", "timeout": -1}}), 422)
        assert set(body["details"]) == {"config.colour", "config.timeout"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/sessions/none", 404), ("DELETE", "/sessions/none", 404), ("GET", "/sessions/none/history", 404),
        ("GET", "/sessions/none/steps", 404), ("GET", "/sessions/none/run", 404),
        ("GET", "/sessions/none/files/x", 404),
        ("GET", "/sessions/none/screenshot", 404), ("GET", "/sessions/a/b/c", 404), ("GET", "/cambio/nothing", 404),
        ("GET", "/health/deeper", 404), ("POST", "/cambio/nothing", 404), ("GET", "/cambio/static/none.js", 404),
        ("GET", "/cambio/static/%2e%2e/extension.py", 403), ("PUT", "/sessions", 405), ("POST", "/health", 405),
        ("DELETE", "/sessions", 405), ("PATCH", "/ws/none", 405), ("POST", "/vnc/none", 405),
        ("TRACE", "/sessions", 405),
        ("GET", "/ws", 400), ("GET", "/sessions/%00", 404), ("GET", "/sessions/%ff", 400),
        ("GET", "/sessions/" + "x" * 3000, 404),
    ],
)  # fmt: skip
async def test_every_failure_has_the_envelope(server: LiveServer, method: str, path: str, status: int) -> None:
    async with server.client() as client:
        response = await client.request(method, path)
        check_envelope(response, status)
        if status == 405:
            assert "OPTIONS" in response.headers["allow"]


async def test_the_callers_request_id_is_kept_and_logged(server: LiveServer) -> None:
    async with server.client() as client:
        body = check_envelope(await client.get("/sessions/none", headers={"X-Request-ID": "mine-1"}), 404)
        assert body["request_id"] == "mine-1" and "mine-1 404" in server.log()
        body = check_envelope(await client.get("/sessions/none", headers={"X-Request-ID": "a\tb<script>"}), 404)
        assert body["request_id"].startswith("req-")


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=-1", "limit=x", "limit=", "limit=1.5", "limit=1&limit=2", "offset=-1", "offset=x",
        "status=open",
        "status=", "created_after=yesterday", "created_after=2024-13-01", "created_before=", "sort=colour:asc",
        "sort=name:up", "sort=", "sort=name,name", "sort=name;drop",
    ],
)  # fmt: skip
async def test_a_bad_query_value_is_400(server: LiveServer, query: str) -> None:
    async with server.client() as client:
        check_envelope(await client.get(f"/sessions?{query}"), 400)


async def test_lists(server: LiveServer) -> None:
    """Pages, filters and sorting over a handful of sessions; nothing is skipped while others are added."""
    async with server.client() as client:
        made = [(await client.post("/sessions", json={"name": f"list {n}"})).json() for n in range(5)]
        await client.delete(f"/sessions/{made[0]['id']}")
        assert (await get(client, "limit=100000"))["limit"] == 200
        newest = [row["name"] for row in (await get(client, "limit=5"))["sessions"]]
        assert newest == ["list 4", "list 3", "list 2", "list 1", "list 0"]
        page = await get(client, "limit=2&offset=1")
        assert page["data"] == page["sessions"] and [row["name"] for row in page["data"]] == ["list 3", "list 2"]
        assert page["pagination"] == {
            "limit": 2, "offset": 1, "total": page["total"], "has_next": True, "has_prev": True
        }  # fmt: skip
        assert (await get(client, f"offset={10**15}"))["sessions"] == []
        ordered = await get(client, "status=active&sort=status:asc,name:asc")
        names = [row["name"] for row in ordered["sessions"]]
        assert names == sorted(names) and "list 0" not in names
        inactive = await get(client, "status=inactive&sort=ended_at:desc&limit=1")
        assert inactive["sessions"][0]["id"] == made[0]["id"] and inactive["sessions"][0]["ended_at"]
        assert (await get(client, "created_after=2999-01-01"))["total"] == 0
        assert (await get(client, "created_before=2999-01-01T00:00:00Z"))["total"] >= 5
        seen, offset = [], 0
        while page := (await get(client, f"limit=2&offset={offset}"))["sessions"]:
            seen += [row["id"] for row in page]
            offset += 2
            if offset == 2:
                made.append((await client.post("/sessions", json={"name": "meanwhile"})).json())
        assert {row["id"] for row in made[:5]} <= set(seen)
        for row in made[1:]:
            await client.delete(f"/sessions/{row['id']}")


async def get(client: httpx2.AsyncClient, query: str) -> dict[str, Any]:
    response = await client.get(f"/sessions?{query}")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def test_a_session_is_changed_and_ended_once(server: LiveServer) -> None:
    async with server.client() as client:
        path = f"/sessions/{(await client.post('/sessions')).json()['id']}"
        changed = (await client.patch(path, json={"name": "renamed", "approval": ["left_click"]})).json()
        assert changed["name"] == "renamed" and changed["config"]["approval"] == ["left_click"]
        assert (await client.get("/sessions?limit=1")).json()["sessions"][0]["name"] == "renamed"
        check_envelope(await client.patch(path, json={"approval": "sometimes"}), 422)
        check_envelope(await client.patch(path, json={"colour": "red"}), 422)
        # All of it or nothing: what speaks against one change speaks against the others.
        check_envelope(await client.patch(path, json={"approval": "never", "name": "no", "display": "bad"}), 422)
        check_envelope(await client.patch(path, json={"approval": "never", "name": "no", "display": "9x9"}), 422)
        kept = (await client.get(path)).json()
        assert (kept["name"], kept["config"]["approval"]) == ("renamed", ["left_click"])
        assert (await client.delete(path + "/")).status_code == 200
        check_envelope(await client.delete(path), 409)
        check_envelope(await client.get(path + "/screenshot"), 409)
        assert (await client.get(path)).json()["status"] == "inactive"
        times = (await client.get(path)).json()["created_at"]
        assert all(row["created_at"] > times for row in (await get(client, f"created_after={times}"))["sessions"])
        assert all(row["created_at"] < times for row in (await get(client, f"created_before={times}"))["sessions"])
        run = await client.get(path + "/run")
        assert run.status_code == 200 and run.content[:2] == b"PK"


async def test_files_clipboard_and_screenshots(server: LiveServer, session: dict[str, Any]) -> None:
    async with server.client() as client:
        path = f"/sessions/{session['id']}"
        data = bytes(range(256)) * 8192  # 2 MB: more than a JSON body may have
        stored = await client.put(f"{path}/files/some folder/ä.bin", content=data)
        assert stored.json() == {"path": "some folder/ä.bin", "size": len(data)}
        fetched = await client.get(f"{path}/files/some folder/ä.bin")
        assert fetched.headers["content-length"] == str(len(data))
        assert fetched.content == data and "attachment" in fetched.headers["content-disposition"]
        listed = (await client.get(f"{path}/files/some folder/")).json()["files"]
        assert [(entry["size"], entry["type"]) for entry in listed] == [(len(data), "file")]
        for escape in ("../../etc/passwd", "/etc/passwd", "//etc", "/", "..", "some folder/../../../x", "a\0b"):
            for safe in ("/", ""):  # a client would fold plain dots itself
                written = quote(escape, safe=safe).replace(".", "%2e")
                body = check_envelope(await client.get(f"{path}/files/{written}"), 400)
                assert body["details"]["path"]
                check_envelope(await client.put(f"{path}/files/{written}", content=data), 400)
        check_envelope(await client.put("/sessions/none/files/x", content=data), 404)
        check_envelope(await client.get(f"{path}/files/none.txt"), 422)
        body = check_envelope(await client.put(f"{path}/files/new/", content=data), 422)
        assert "without a slash" in body["message"]
        assert (await client.put(f"{path}/clipboard", json={"text": "äöß 漢字 🙂"})).status_code == 200
        check_envelope(await client.put(f"{path}/clipboard", json={"text": 5}), 422)
        assert (await client.get(f"{path}/screenshot")).content[:4] == b"\x89PNG"
        small = await client.get(f"{path}/screenshot?width=200")
        assert small.headers["content-type"] == "image/jpeg" and len(small.content) < 20_000
        for width in ("0", "", "15", "4097", "2e2", "²"):
            check_envelope(await client.get(f"{path}/screenshot?width={width}"), 400)
        check_envelope(await client.get(f"{path}/screenshots/{'0' * 64}.png"), 404)


async def test_a_year_has_four_digits() -> None:
    assert file_time(-62135596800) == "0001-01-01T00:00:00Z" and file_time(253402300799) == "9999-12-31T23:59:59Z"


async def test_a_download_that_breaks_off_does_not_look_whole(server: LiveServer, session: dict[str, Any]) -> None:
    async with server.client() as client:
        path = f"/sessions/{session['id']}/files/breaks-off.bin"
        await client.put(path, content=b"\0" * 40_000_000)
        assert (await client.head(path)).status_code == 200
        with pytest.raises(httpx2.TransportError):
            async with client.stream("GET", path) as response:
                assert response.status_code == 200
                os.kill(helper("breaks-off.bin"), signal.SIGKILL)
                async for _ in response.aiter_bytes():
                    pass
        assert "broke off" in server.log() and "Traceback" not in server.log()
        assert len((await client.get(path)).content) == 40_000_000


def helper(path: str) -> int:
    """The process that reads ``path`` in a local desktop."""
    found = [entry for entry in Path("/proc").glob("[0-9]*") if ends_in(entry / "cmdline", f"\0{path}\0".encode())]
    return int(found[0].name)


def ends_in(file: Path, end: bytes) -> bool:
    with contextlib.suppress(OSError):
        return file.read_bytes().endswith(end)
    return False


@pytest.mark.parametrize("left", [False, True])
async def test_work_that_was_cancelled_is_no_empty_200_unless_the_client_left(left: bool) -> None:
    handler: Any = SimpleNamespace(client_left=left)

    async def work() -> None:
        raise asyncio.CancelledError

    with contextlib.nullcontext() if left else pytest.raises(Refused, match="500"):
        await Rest.while_connected(handler, work())


async def test_a_running_turn_forbids_what_would_disturb_it(server: LiveServer) -> None:
    import aiohttp

    async with server.client() as client, aiohttp.ClientSession(headers=server.headers) as sockets:
        created = (await client.post("/sessions", json={"config": {"max_messages": 1}})).json()
        async with sockets.ws_connect(f"{server.ws_url}{created['websocket_url']}") as socket:
            await socket.receive()
            await socket.send_json({"content": "Hello"})
            assert (await socket.receive_json())["metadata"]["event"] == "user_message"
            check_envelope(await client.delete(f"/sessions/{created['id']}/history"), 409)
            await socket.send_json({"content": "Hello again", "when": "idle"})
            while (message := await socket.receive_json())["type"] != "error":
                pass
            assert message["error"] == "Turn running"
            await socket.send_json({"type": "stop"})
            while (message := await socket.receive_json())["type"] != "agent_response":
                pass
            assert message["metadata"]["stopped"]
            while message.get("status") != "idle":
                message = await socket.receive_json()
            await socket.send_json({"content": "One too many"})
            while message["type"] != "error":
                message = await socket.receive_json()
            assert message["error"] == "Message limit reached"
        assert (await client.get(f"/sessions/{created['id']}/history?role=user")).json()["total"] == 1
        assert (await client.get(f"/sessions/{created['id']}")).json()["status"] == "active"
        await client.delete(f"/sessions/{created['id']}")


async def test_health_and_metrics(server: LiveServer) -> None:
    async with server.client() as client:
        health = (await client.get("/health")).json()
        assert health["status"] == "healthy"
        assert health["services"] == {
            "database": "up", "redis": "disabled", "docker": "disabled", "desktop": "local (not isolated)"
        }  # fmt: skip
        await client.get("/sessions/one-that-is-not-there")
        text = (await client.get("/metrics")).text
        assert "one-that-is-not-there" not in text
        assert 'http_requests_total{endpoint="/sessions/{session_id}",method="GET"}' in text
