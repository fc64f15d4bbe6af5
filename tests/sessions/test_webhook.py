"""The webhook: a person who watches nothing is told that an agent waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cambio_lab.errors import ConfigurationError
from cambio_lab.sessions.human import MOST_NOTIFICATIONS, Webhook


@asynccontextmanager
async def chat() -> AsyncIterator[tuple[str, asyncio.Queue[str]]]:
    """A chat's incoming address, and the bodies that it was sent."""
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].split()[0])
        heard.put_nowait((await reader.readexactly(length)).decode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook", heard


async def test_a_question_is_posted_without_markup() -> None:
    async with chat() as (url, heard):
        webhook = Webhook(url)
        sending = asyncio.create_task(webhook.run())
        webhook.notify("Expenses", "Tell <!channel> & me?", ["yes", "no"])
        async with asyncio.timeout(10):
            body = json.loads(await heard.get())
        assert body == {"text": "Expenses asks: Tell &lt;!channel&gt; &amp; me? (yes / no)"}
        sending.cancel()
        await asyncio.wait({sending})


async def test_a_service_that_is_away_costs_its_messages_only(caplog: pytest.LogCaptureFixture) -> None:
    webhook = Webhook("http://127.0.0.1:9/secret-token")
    sending = asyncio.create_task(webhook.run())
    webhook.notify("Expenses", "Which?")
    async with asyncio.timeout(10):
        while "webhook not reached" not in caplog.text:  # noqa: ASYNC110 - a line in the log
            await asyncio.sleep(0.01)
    assert not sending.done() and "secret-token" not in caplog.text
    sending.cancel()
    await asyncio.wait({sending})


def test_messages_that_wait_are_bounded_and_a_url_is_checked() -> None:
    webhook = Webhook("https://chat.example.org/hook")
    for _ in range(10 * MOST_NOTIFICATIONS):
        webhook.notify("Expenses", "Which?")
    Webhook("").notify("Expenses", "Which?")
    with pytest.raises(ConfigurationError):
        Webhook("file:///etc/passwd")
