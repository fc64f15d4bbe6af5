"""``/ws``: what is sent, what may be sent, and what hostile or slow peers can do (nothing)."""

from __future__ import annotations

import asyncio
import json
import random
import struct
from typing import Any

import aiohttp
import psutil
import pytest

from tests.live_server import LiveServer

from .conftest import check_envelope

pytestmark = pytest.mark.asyncio(loop_scope="module")
DOCUMENTED = {"status", "tool_execution", "agent_response", "error", "heartbeat"}


async def connect(server: LiveServer, client: aiohttp.ClientSession, path: str, **options: Any) -> Any:
    return await client.ws_connect(server.ws_url + path, headers=server.headers, **options)


async def turn(socket: Any, content: str = "Take a screenshot") -> list[dict[str, Any]]:
    """Send a message; everything up to the ``idle`` after the answer."""
    await socket.send_json({"content": content})
    found = []
    async with asyncio.timeout(60):
        while True:
            message = json.loads((await socket.receive()).data)
            found.append(message)
            if message["type"] == "status" and message["status"] == "idle" and len(found) > 1:
                return found


async def make(server: LiveServer) -> str:
    async with server.client() as client:
        created = await client.post("/sessions", json={})
        assert created.status_code == 200, created.text
        return str(created.json()["id"])


async def test_a_turn_as_documented(server: LiveServer) -> None:
    session = await make(server)
    async with aiohttp.ClientSession() as client, await connect(server, client, f"/ws/{session}") as socket:
        first = await socket.receive_json()
        assert (first["type"], first["status"], first["sequence"]) == ("status", "idle", 0)
        found = await turn(socket)
        assert {message["type"] for message in found} <= DOCUMENTED
        assert [message["sequence"] for message in found] == list(range(1, len(found) + 1))
        answers = [message for message in found if message["type"] == "agent_response"]
        assert len(answers) == 1 and "demo model" in answers[0]["content"]
        metadata = answers[0]["metadata"]
        assert metadata["tool_calls"][0] == "screenshot" and metadata["processing_time"] > 0
        assert metadata["usage"]["requests"] >= 1 and metadata["stopped"] is False
        shown = [message for message in found if message["type"] == "tool_execution"]
        assert [one["status"] for one in shown[:2]] == ["started", "completed"]
        assert shown[1]["result"]["dimensions"] == "1280x800"
        async with server.client() as rest:
            image = await rest.get(shown[1]["result"]["image_path"])
            assert image.status_code == 200 and image.headers["content-type"] == "image/png"
            assert image.content[:8] == b"\x89PNG\r\n\x1a\n"
            assert struct.unpack(">II", image.content[16:24]) == (1280, 800)
            history = (await rest.get(f"/sessions/{session}/history")).json()
            assert [one["role"] for one in history["messages"]] == ["user", "assistant"]
            assert history["messages"][1]["metadata"]["tool_calls"] == metadata["tool_calls"]
            steps = (await rest.get(f"/sessions/{session}/steps")).json()
            assert steps["total"] == len(metadata["tool_calls"])
            page = (await rest.get(f"/sessions/{session}/events")).json()
            assert page["events"] == found and page["last_sequence"] == len(found) and not page["has_next"]
            page = (await rest.get(f"/sessions/{session}/events?after=1&limit=2")).json()
            assert page["events"] == found[1:3] and page["has_next"]
            assert (await rest.get(f"/sessions/{session}/events?after=x")).status_code == 400
            assert (await rest.get("/sessions/none/events")).status_code == 404
            await rest.delete(f"/sessions/{session}")
            assert await drain(socket) == aiohttp.WSCloseCode.OK
            page = (await rest.get(f"/sessions/{session}/events")).json()
            assert page["events"][:-1] == found and page["events"][-1]["status"] == "ended"


async def drain(socket: Any) -> int | None:
    async for _ in socket:
        pass
    code: int | None = socket.close_code
    return code


async def test_every_reader_sees_the_same_and_a_late_one_gets_what_it_missed(server: LiveServer) -> None:
    session = await make(server)
    async with aiohttp.ClientSession() as client:
        one = await connect(server, client, f"/ws/{session}")
        two = await connect(server, client, f"/ws/{session}?after=0")
        stream = await connect(server, client, f"/ws/{session}?stream=true")
        for socket in (one, two, stream):
            await socket.receive()
        found = await turn(one)
        same = [json.loads((await two.receive()).data) for _ in found]
        assert same == found
        deltas: list[dict[str, Any]] = []
        seen: list[str] = []
        while not seen or seen[-1] != found[-1]["content"]:
            message = json.loads((await stream.receive()).data)
            seen.append(message["content"] if message["type"] == "status" else "")
            deltas.append(message)
        assert [message["sequence"] for message in deltas] == list(range(1, len(deltas) + 1))
        answer = next(message for message in found if message["type"] == "agent_response")
        last_tool = max(index for index, message in enumerate(deltas) if message["type"] == "tool_execution")
        pieces = [
            message["content"]
            for message in deltas[last_tool:]
            if message["type"] == "agent_delta" and message["metadata"]["kind"] == "text"
        ]
        assert "".join(pieces) == answer["content"]
        late = await connect(server, client, f"/ws/{session}?after=3")
        assert (await late.receive_json())["sequence"] == 3
        assert [json.loads((await late.receive()).data) for _ in found[3:]] == found[3:]
        for socket in (one, two, stream, late):
            await socket.close()


@pytest.mark.parametrize("after", ["-1", "x", "1.5", "999999999", "", "1&after=2"])
async def test_a_bad_position_is_refused_before_the_upgrade(
    server: LiveServer, session: dict[str, Any], after: str
) -> None:
    async with aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await connect(server, client, f"/ws/{session['id']}?after={after}")
        assert refusal.value.status == 400


async def test_no_such_session_and_no_upgrade(server: LiveServer, session: dict[str, Any]) -> None:
    ended = await make(server)
    async with server.client() as rest, aiohttp.ClientSession() as client:
        await rest.delete(f"/sessions/{ended}")
        for kind in ("ws", "vnc"):
            for name, status in (("unknown", 404), (ended, 409)):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                    await connect(server, client, f"/{kind}/{name}")
                assert refusal.value.status == status
        check_envelope(await rest.get(f"/ws/{session['id']}"), 400)
        check_envelope(await rest.get(f"/vnc/{ended}"), 409)


WRONG = [
    "", "{", "nul", "[]", "7", '"text"', "{}", '{"content": 5}', '{"content": ""}', '{"content": null}',
    '{"content": "x", "content": "y"}', '{"content": NaN}', '{"content": "\\ud800"}', '{"type": "dance"}',
    '{"type": 5}', '{"type": ["stop"]}', '{"content": "x", "metadata": []}', '{"content": "x", "metadata": 1e999}',
    '{"type": "approve"}', '{"type": "deny", "tool_use_id": 5}', '{"type": "take_control", "viewer": {}}',
    '{"type": "offer_tools", "tools": {}}', '{"type": "tool_result"}', "[" * 100_000, "9" * 5000,
    '{"content": "x", "metadata": {"a": ' + "[" * 970 + "]" * 970 + "}}",
    '{"content": "x", "metadata": {"options": {"max_turn_seconds": 1' + "0" * 400 + "}}}",
]  # fmt: skip


async def test_whatever_is_wrong_is_said_and_the_connection_stays(server: LiveServer) -> None:
    session = await make(server)
    async with aiohttp.ClientSession() as client, await connect(server, client, f"/ws/{session}") as socket:
        await socket.receive()
        for frame in [*WRONG, b"\x00\x01binary"]:
            await (socket.send_bytes(frame) if isinstance(frame, bytes) else socket.send_str(frame))
            answer = await socket.receive_json(timeout=5)
            assert answer["type"] == "error" and "sequence" not in answer, frame
            assert answer["error"] and isinstance(answer["details"], str)
        found = await turn(socket)
        assert found[-1]["status"] == "idle"


async def test_metadata_may_have_any_keys(server: LiveServer) -> None:
    session = await make(server)
    given = dict.fromkeys(("event", "status", "content", "message", "message_id", "metadata", "given", "self"), "mine")
    async with aiohttp.ClientSession() as client, await connect(server, client, f"/ws/{session}") as socket:
        await socket.receive()
        await socket.send_json({"content": "hi", "metadata": given})
        taken = await socket.receive_json(timeout=5)
        assert (taken["status"], taken["metadata"]["event"], taken["metadata"]["message"]) == (
            "thinking", "user_message", "hi"
        )  # fmt: skip
        assert taken["metadata"]["status"] == "mine"
        async with server.client() as rest:
            (stored, *_) = (await rest.get(f"/sessions/{session}/history")).json()["messages"]
            assert stored["metadata"] == given and stored["id"] == taken["metadata"]["message_id"]


async def test_a_request_for_approval_is_one_message(server: LiveServer) -> None:
    async with server.client() as rest, aiohttp.ClientSession() as client:
        session = (await rest.post("/sessions", json={"config": {"approval": "always"}})).json()["id"]
        async with await connect(server, client, f"/ws/{session}") as socket:
            await socket.send_json({"content": "hi"})
            while True:
                message = await socket.receive_json(timeout=20)
                if message.get("status") == "waiting_approval":
                    break
            assert message["metadata"]["event"] == "approval" and message["metadata"]["tool_use_id"]
        await rest.delete(f"/sessions/{session}")


def hostile(rng: random.Random) -> tuple[str, Any]:
    """One frame, as ``(how, what)``."""
    kind = rng.randrange(8)
    if kind == 0:
        return "bytes", rng.randbytes(rng.randrange(2000))
    if kind == 1:
        return "text", "".join(chr(rng.randrange(1, 0xD7FF)) for _ in range(rng.randrange(200)))
    if kind == 2:
        return "text", rng.choice(["[", '{"a":']) * rng.randrange(1, 50_000)
    if kind == 3:
        return "text", json.dumps({"content": rng.choice([None, 5, [], {}, True, 1.5])})
    if kind == 4:
        return "text", json.dumps({"type": rng.choice(["", "x" * 500, "approve", "tool_result", "watch"])})
    if kind == 5:
        return "raw", rng.randbytes(rng.randrange(1, 60))  # not even frames
    if kind == 6:
        return "text", json.dumps({"content": "x"})[: rng.randrange(1, 14)]
    return "huge", 50_000_000 if rng.random() < 0.02 else 0


async def test_5000_hostile_frames(server: LiveServer) -> None:
    """One connection after another, each until the server ends it; a bystander's heartbeats are never late."""
    victim, bystander = await make(server), await make(server)
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    rng, sent = random.Random(7), 0
    async with aiohttp.ClientSession() as client:
        watched = await connect(server, client, f"/ws/{bystander}", timeout=aiohttp.ClientWSTimeout(ws_close=5))
        await watched.receive()
        late = asyncio.create_task(longest_answer(watched))
        before = 0
        while sent < 5000:
            sent += await attack(server, client, victim, rng, min(200, 5000 - sent))
            if not before and sent > 1000:
                before = process.memory_info().rss
        after = process.memory_info().rss
        late.cancel()
        worst = await asyncio.gather(late, return_exceptions=True)
        assert not isinstance(worst[0], Exception)
        await watched.close()
        async with server.client() as rest:
            assert (await rest.get(f"/sessions/{victim}")).json()["status"] == "active"
            assert (await rest.get("/health")).status_code == 200
        print(f"{sent} frames; memory {before / 1e6:.1f} -> {after / 1e6:.1f} MB; slowest answer {WORST[-1]:.3f} s")
        assert after - before < 10e6
        assert WORST[-1] < 2.0


WORST = [0.0]


async def longest_answer(socket: Any) -> None:
    """Ask the bystander's socket something small again and again, and keep the longest time to an answer."""
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        await socket.send_str("?")
        await socket.receive()
        WORST[-1] = max(WORST[-1], loop.time() - started)
        await asyncio.sleep(0.05)


async def attack(server: LiveServer, client: aiohttp.ClientSession, session: str, rng: random.Random, most: int) -> int:
    """Send until the connection is gone; how many frames that were."""
    socket = await connect(server, client, f"/ws/{session}", max_msg_size=0)
    reader = asyncio.create_task(drain(socket))
    sent = 0
    try:
        while sent < most and not socket.closed:
            how, what = hostile(rng)
            sent += 1
            if how == "bytes":
                await socket.send_bytes(what)
            elif how == "text":
                await socket.send_str(what)
            elif how == "huge" and what:
                await socket.send_bytes(bytes(what))
            elif how == "raw":
                transport = getattr(socket._response.connection, "transport", None)
                if transport is not None:
                    transport.write(what)
                await asyncio.sleep(0.01)
    except (ConnectionError, aiohttp.ClientError):
        pass
    finally:
        await socket.close()
        await asyncio.wait({reader}, timeout=10)
    return sent


async def test_the_socket_of_all_sessions(server: LiveServer) -> None:
    session = await make(server)
    async with aiohttp.ClientSession() as client, await connect(server, client, "/ws") as socket:
        await until(socket, lambda m: m.get("session_id") == session and m["status"] == "idle")
        await socket.send_json({"type": "watch", "sessions": [session], "width": 160})
        image = await until(socket, lambda m: m["type"] == "thumbnail")
        assert image["session_id"] == session and image["image"].startswith("data:image/jpeg;base64,")
        async with await connect(server, client, f"/ws/{session}") as chat:
            await chat.receive()
            await chat.send_json({"content": "Hello"})
            await until(socket, lambda m: m.get("session_id") == session and m.get("status") == "thinking")
            await socket.send_json({"type": "stop", "session_id": session})
            answer = await until(chat, lambda m: m["type"] == "agent_response")
            assert answer["metadata"]["stopped"] is True
        await socket.send_json({"type": "stop", "session_id": "unknown"})
        assert "no session" in (await until(socket, lambda m: m["type"] == "error"))["details"]
        async with server.client() as rest:
            await rest.delete(f"/sessions/{session}")
        await until(socket, lambda m: m.get("session_id") == session and m.get("status") == "ended")


async def test_one_socket_follows_many_sessions_and_goes_on_after_a_loss(server: LiveServer) -> None:
    ours = [await make(server), await make(server)]
    async with aiohttp.ClientSession() as client, server.client() as rest:
        page = await connect(server, client, "/ws")
        for session in ours:
            await page.send_json({"type": "follow", "session_id": session})
            snapshot = await until(page, lambda m, s=session: m.get("session_id") == s and "sequence" in m)
            assert snapshot["metadata"]["event"] == "snapshot"
        for session in ours:
            await page.send_json({"type": "message", "session_id": session, "content": "Hello"})
        heard: dict[str, list[int]] = {session: [] for session in ours}
        answered: set[str] = set()
        while answered != set(ours):
            message = await until(page, lambda m: "sequence" in m)
            heard[message["session_id"]].append(message["sequence"])
            answered |= {message["session_id"]} if message["type"] == "agent_response" else set()
        for numbers in heard.values():
            assert numbers == list(range(numbers[0], numbers[-1] + 1)), "once and in order"
        await page.send_json({"type": "message", "session_id": ours[0], "content": ""})
        refused = await until(page, lambda m: m["type"] == "error")
        assert refused["session_id"] == ours[0] and "sequence" not in refused
        await page.close()

        middle = heard[ours[0]][2]
        page = await connect(server, client, "/ws")
        await page.send_json({"type": "follow", "session_id": ours[0], "after": middle})
        again = [(await until(page, lambda m: "sequence" in m))["sequence"] for _ in range(4)]
        assert again == [middle, middle + 1, middle + 2, middle + 3]
        for asked, code in (({"session_id": "unknown"}, 404), ({"session_id": ours[1], "after": 10**6}, 422)):
            await page.send_json({"type": "follow", **asked})
            assert (await until(page, lambda m: m["type"] == "unfollowed"))["code"] == code

        take = {"type": "take_control", "session_id": ours[0], "viewer": "ann"}
        for command, holder in ((take, "ann"), ({"type": "unfollow", "session_id": ours[0]}, None)):
            await page.send_json(command)  # whoever no longer shows a session does not keep its mouse
            async with asyncio.timeout(5):
                while (await rest.get(f"/sessions/{ours[0]}")).json()["control"] != holder:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        await page.send_json({"type": "follow", "session_id": ours[1]})
        await until(page, lambda m: "sequence" in m)
        for session in ours:
            await rest.delete(f"/sessions/{session}")
        over = await until(page, lambda m: m["type"] == "unfollowed")
        assert (over["session_id"], over["code"]) == (ours[1], 409)
        await page.close()


async def until(socket: Any, wanted: Any) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            message: dict[str, Any] = json.loads((await socket.receive()).data)
            if wanted(message):
                return message


async def test_a_client_that_vanishes_with_the_mouse_gives_it_back(server: LiveServer) -> None:
    session = await make(server)
    async with aiohttp.ClientSession() as client, server.client() as rest:
        reader = await connect(server, client, f"/ws/{session}")
        taker = await connect(server, client, f"/ws/{session}")
        await taker.send_json({"type": "take_control", "viewer": "ann"})
        other = await connect(server, client, f"/ws/{session}")
        await other.close()  # it took nothing
        await asyncio.sleep(0.1)
        assert (await rest.get(f"/sessions/{session}")).json()["control"] == "ann"
        taker._response.connection.transport.abort()
        async with asyncio.timeout(5):
            while (await rest.get(f"/sessions/{session}")).json()["control"] is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await turn(reader)
        await reader.close()
        await rest.delete(f"/sessions/{session}")


async def test_a_client_that_leaves_the_overview_gives_control_back(server: LiveServer) -> None:
    session = await make(server)
    async with aiohttp.ClientSession() as client, server.client() as rest:
        overview = await connect(server, client, "/ws")
        await overview.send_json({"type": "take_control", "session_id": session, "viewer": "ann"})
        async with asyncio.timeout(5):
            while (await rest.get(f"/sessions/{session}")).json()["control"] != "ann":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await overview.close()
        async with asyncio.timeout(5):
            while (await rest.get(f"/sessions/{session}")).json()["control"] is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await rest.delete(f"/sessions/{session}")


@pytest.mark.parametrize("path", ["/ws", "/ws/{}"])
async def test_a_stop_that_names_an_ended_turn_says_that_it_stopped_nothing(server: LiveServer, path: str) -> None:
    session = await make(server)
    async with aiohttp.ClientSession() as client, server.client() as rest:
        socket = await connect(server, client, path.format(session))
        await socket.send_json({"type": "stop", "session_id": session, "message_id": "msg-of-an-earlier-turn"})
        answer = await until(socket, lambda message: message["type"] == "error")
        assert "ended already" in answer["details"]
        await rest.delete(f"/sessions/{session}")


async def test_a_message_during_a_turn_is_queued_and_there_is_one_answer(server: LiveServer) -> None:
    session = await make(server)
    async with aiohttp.ClientSession() as client, await connect(server, client, f"/ws/{session}") as socket:
        await socket.receive_json()
        await socket.send_json({"content": "Hello"})
        assert (await socket.receive_json())["metadata"]["event"] == "user_message"
        await socket.send_json({"content": "And quickly"})
        await socket.send_json({"content": "x", "when": "never"})
        await socket.send_json({"type": "take_back", "message_id": "msg-unknown"})
        found: list[dict[str, Any]] = []
        while not found or found[-1]["type"] != "agent_response":
            found.append(await socket.receive_json())
        events = [message.get("metadata", {}).get("event") for message in found]
        assert events.count("message_queued") == events.count("message_delivered") == 1
        assert [one["error"] for one in found if one["type"] == "error"] == ["Invalid request", "Session conflict"]
        queued = next(one["metadata"] for one in found if one.get("metadata", {}).get("event") == "message_queued")
        assert queued["queued"] is True and queued["message"] == "And quickly"
        async with server.client() as rest:
            history = (await rest.get(f"/sessions/{session}/history")).json()["messages"]
            assert [one["role"] for one in history] == ["user", "user", "assistant"]
            assert history[1]["id"] == queued["message_id"]
            await rest.delete(f"/sessions/{session}")
