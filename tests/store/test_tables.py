"""What is written is what is read: sessions, messages, steps, events, transcript, exchanges."""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cambio_lab.store import EventRow, ExchangeRow, MessageQuery, SessionQuery, StepRow, Store
from cambio_lab.store.rows import Role

from .conftest import session_row


async def test_a_session_comes_back_as_it_was_written(store: Store) -> None:
    row = session_row(config={"timeout": 60, "system": "ä"}, usage={"cost_usd": 0.5}, vnc_port=5901, desktop_id="d")
    await store.sessions.insert(row)
    assert await store.sessions.get("s-1") == row
    await store.sessions.update("s-1", status="inactive", ended_at=1001.5, end_reason="request")
    assert await store.sessions.get("s-1") == replace(row, status="inactive", ended_at=1001.5, end_reason="request")
    assert await store.sessions.get("nobody") is None
    assert await store.sessions.live() == []
    with pytest.raises(KeyError, match="colour"):
        await store.sessions.update("s-1", colour="red")


async def test_a_listing_filters_sorts_counts_and_pages(store: Store) -> None:
    for number in range(30):
        await store.sessions.insert(
            session_row(f"s-{number:02}", created_at=1000.0 + number // 2, name=f"name {number % 3}")
        )
    for number in range(0, 30, 3):
        await store.sessions.update(f"s-{number:02}", status="error" if number % 2 else "inactive")

    newest = await store.sessions.page(SessionQuery(limit=4))
    assert newest.total == 30
    assert [row.id for row in newest.rows] == ["s-29", "s-28", "s-27", "s-26"]  # ties: newest first

    active = await store.sessions.page(SessionQuery(status="active", limit=5, offset=18))
    assert (active.total, [row.id for row in active.rows]) == (20, ["s-02", "s-01"])

    between = await store.sessions.page(SessionQuery(created_after=1000.0, created_before=1003.0, status="active"))
    assert {row.created_at for row in between.rows} == {1001.0, 1002.0}  # both ends exclusive
    assert between.total == len(between.rows) == 3

    ordered = await store.sessions.page(SessionQuery(sort=[("status", True), ("created_at", False)], limit=100))
    assert [row.status for row in ordered.rows] == ["active"] * 20 + ["error"] * 5 + ["inactive"] * 5
    assert [row.created_at for row in ordered.rows[20:25]] == sorted(
        [row.created_at for row in ordered.rows[20:25]], reverse=True
    )
    with pytest.raises(ValueError, match="config"):
        await store.sessions.page(SessionQuery(sort=[("config", True)]))


async def test_an_unknown_sort_key_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="config"):
        await store.sessions.page(SessionQuery(sort=[("config", True)]))


async def test_a_removed_session_leaves_nothing_and_an_active_one_stays(store: Store) -> None:
    await store.sessions.insert(session_row())
    await store.messages.append("s-1", "user", "hello", time=1.0)
    await store.sessions.update("s-1", status="inactive")
    await store.sessions.remove("s-1")
    assert await store.sessions.get("s-1") is None
    assert (await store.sessions.page(SessionQuery())).total == 0
    assert (await store.messages.page("s-1", MessageQuery())).rows == []


async def test_messages_page_both_ways_by_role_and_by_time(store: Store) -> None:
    await store.sessions.insert(session_row())
    for number in range(1, 101):
        role: Role = "user" if number % 2 else "assistant"
        await store.messages.append("s-1", role, f"m{number}", {"n": number}, time=float(number // 10))

    page = await store.messages.page("s-1", MessageQuery(limit=3, offset=50))
    assert (page.total, [row.content for row in page.rows]) == (100, ["m51", "m52", "m53"])
    assert page.rows[0].metadata == {"n": 51}
    page = await store.messages.page("s-1", MessageQuery(limit=3, offset=98, newest_first=True))
    assert [row.content for row in page.rows] == ["m2", "m1"]
    page = await store.messages.page("s-1", MessageQuery(role="assistant", limit=2, offset=10))
    assert (page.total, [row.content for row in page.rows]) == (50, ["m22", "m24"])
    page = await store.messages.page("s-1", MessageQuery(created_after=2.0, created_before=4.0))
    assert (page.total, [row.content for row in page.rows]) == (10, [f"m{n}" for n in range(30, 40)])
    page = await store.messages.page("s-1", MessageQuery(created_after=2.0, created_before=4.0, role="user"))
    assert [row.content for row in page.rows] == ["m31", "m33", "m35", "m37", "m39"]
    page = await store.messages.page("s-1", MessageQuery(created_after=99.0))
    assert (page.total, page.rows) == (0, [])
    page = await store.messages.page("s-1", MessageQuery(limit=10, offset=200))
    assert (page.total, page.rows) == (100, [])


async def test_a_clock_that_is_set_back_does_not_disorder_the_history(store: Store) -> None:
    await store.sessions.insert(session_row())
    await store.messages.append("s-1", "user", "first", time=5000.0)
    second = await store.messages.append("s-1", "user", "second", time=1.0)
    assert second.created_at == 5000.0
    page = await store.messages.page("s-1", MessageQuery(created_after=4999.0))
    assert [row.content for row in page.rows] == ["first", "second"]


async def test_clearing_counts_and_starts_anew(store: Store) -> None:
    await store.sessions.insert(session_row())
    for number in range(7):
        await store.messages.append("s-1", "user", str(number), time=1.0)
    assert await store.write(store.messages.clearing("s-1")) == [7]
    assert await store.write(store.messages.clearing("s-1")) == [0]
    added = await store.messages.append("s-1", "assistant", "new", time=2.0)
    assert added.position == 1
    assert (await store.messages.page("s-1", MessageQuery())).total == 1


async def test_a_message_of_nobody_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="no session"):
        await store.messages.append("nobody", "user", "hello", time=1.0)


async def test_a_step_is_completed_or_interrupted(store: Store) -> None:
    begun = StepRow("s-1", 1, "toolu_1", "left_click", "computer", {"coordinate": [1, 2]}, "started", 10.0)
    await store.write(store.steps.appending(begun))
    await store.write(store.steps.appending(replace(begun, step=2, tool_use_id="toolu_2")))
    ended = replace(begun, status="completed", ended_at=10.5, text="Clicked.", timing={"total": 500.0}, sha256="ab")
    await store.write(store.steps.appending(ended))
    assert await store.write(store.steps.interrupting("s-1", 11.0)) == [1]
    first, second = await store.steps.of("s-1")
    assert first == ended
    assert (second.status, second.ended_at) == ("interrupted", 11.0)
    assert await store.steps.of("s-1", after=1) == [second]


async def test_readers_see_their_own_numbers_of_the_same_events(store: Store) -> None:
    await store.sessions.insert(session_row())
    await store.events.append(
        [
            EventRow("s-1", 1, 1, 1.0, "StatusChanged", '{"a":1}', '{"status":"idle"}'),
            EventRow("s-1", None, 2, 1.0, "TextDelta", '{"a":2}'),
            EventRow("s-1", None, None, 1.0, "RequestSent", None, '{"images":0}'),
            EventRow("s-1", 2, 3, 1.0, "TurnFinished", '{"a":3}', "{}"),
        ]
    )
    assert await store.events.after("s-1", 0, stream=False) == [(1, '{"a":1}'), (2, '{"a":3}')]
    assert await store.events.after("s-1", 1, stream=True, limit=1) == [(2, '{"a":2}')]
    assert [row.kind for row in await store.events.records("s-1")] == ["StatusChanged", "RequestSent", "TurnFinished"]
    assert [row.kind for row in await store.events.records("s-1", kinds=["RequestSent"])] == ["RequestSent"]
    row = await store.sessions.get("s-1")
    assert row is not None
    assert (row.last_sequence, row.last_stream_sequence) == (2, 3)


async def test_a_conversation_comes_back_to_the_byte_with_its_images_kept_once(store: Store) -> None:
    data = base64.b64encode(b"\x89PNG image").decode()
    image = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": data},
        "cache_control": {"type": "ephemeral"},
    }
    odd = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUI"}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Take a screenshot"},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [image, odd]}, image]},
        {"role": "assistant", "content": [{"type": "text", "text": "ä 漢"}]},
    ]
    for message in messages:
        await store.write(await store.transcript.appending("s-1", message))
    assert await store.transcript.load("s-1") == messages
    assert len(list((store.directory / "screenshots").glob("*/*"))) == 1
    assert data not in str(await store.transcript.stored("s-1"))
    await store.write(store.transcript.dropping("s-1", 2))
    assert await store.transcript.load("s-1") == messages[:1]
    await store.write(await store.transcript.appending("s-1", messages[2]))
    await store.write(store.transcript.clearing("s-1"))
    assert await store.transcript.load("s-1") == []


async def test_a_removed_image_leaves_a_line_in_its_place(store: Store) -> None:
    data = base64.b64encode(b"image").decode()
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
    await store.write(await store.transcript.appending("s-1", {"role": "user", "content": [block]}))
    assert await store.screenshots.sweep(keep=()) == len(b"image")
    (message,) = await store.transcript.load("s-1")
    assert message["content"] == [{"type": "text", "text": "[the screenshot was removed]"}]


async def test_exchanges_are_kept_byte_for_byte(store: Store) -> None:
    row = ExchangeRow("s-1", 1, 5.0, "ff", b"\x00request", 200, {"request-id": "r"}, b"event: x\n\n\xff", 1.5, 9.0)
    await store.write(store.exchanges.appending(replace(row, status=None, response=b"", headers={})))
    await store.write(store.exchanges.appending(row))
    assert await store.exchanges.of("s-1") == [row]
    assert await store.exchanges.count("s-1") == 1
    assert await store.exchanges.count("s-2") == 0


async def test_the_screenshots_of_a_session_are_known_without_reading_its_record(tmp_path: Path) -> None:
    """Each way by which a record names a screenshot; also in a database of an older version."""
    digests = [hashlib.sha256(bytes([number])).hexdigest() for number in range(6)]
    step, event, observed, message, first, second = digests
    bodies = [b'{"data":"\x01' + first.encode() + b'"}', b'{"data":"\x01' + first.encode() + second.encode() + b'"}']
    bodies[1] = bodies[0][:-2] + b'","data":"\x01' + second.encode() + b'"}'
    shared = len(bodies[0]) - 2
    changes = [
        {"base": None, "prefix": 0, "suffix": 0, "middle": bodies[0].decode()},
        {"base": 1, "prefix": shared - 3, "suffix": 2, "middle": bodies[1][shared - 3 : -2].decode()},
    ]
    source = {"type": "cambio_picture", "sha256": message, "media_type": "image/png"}
    store = await Store.open(tmp_path)
    await store.sessions.insert(session_row())
    await store.write(store.steps.appending(StepRow("s-1", 1, "t", "zoom", None, {}, "completed", 1.0, sha256=step)))
    records = [{"image": event}, {"result": {"sha256": observed}}, {"body_sha256": "f" * 64}]
    rows = [EventRow("s-1", None, None, 1.0, "X", None, json.dumps(one, separators=(",", ":"))) for one in records]
    await store.events.append(rows)
    await store.write(
        await store.transcript.appending("s-1", {"role": "user", "content": [{"type": "image", "source": source}]})
    )
    for number, change in enumerate(changes, 1):
        await store.write(store.exchanges.appending(ExchangeRow("s-1", number, 1.0, "x", json.dumps(change).encode())))
    assert await store.screenshots_of("s-1") == {step, event, observed}

    def older(connection: sqlite3.Connection) -> None:
        connection.execute("DROP TABLE session_screenshots")
        connection.execute("DELETE FROM _sqlite_migrations WHERE name = 'm006_screenshots'")

    await store.database.write(older)
    await store.close()
    store = await Store.open(tmp_path)
    assert await store.screenshots_of("s-1") == set(digests)
    assert await store.screenshot_uses() == dict.fromkeys(digests, 1)
    await store.sessions.update("s-1", status="inactive")
    await store.sessions.remove("s-1")
    assert await store.screenshot_uses() == {}
    await store.close()


async def test_a_sweep_spares_what_a_running_session_is_about_to_name(store: Store) -> None:
    old = await store.screenshots.put(b"old")
    assert await store.screenshots.disk_bytes() == 3
    assert await store.screenshots.sweep((), fresh=60.0) == 0
    assert await store.screenshots.read(old) is not None
    assert await store.screenshots.sweep(()) == 3
    assert await store.screenshots.put(b"old") == old and await store.screenshots.read(old) is not None
    assert await store.screenshots.disk_bytes() == 3
