"""Callers without a token who hold connections or flood the log: bounded per address, in time and in bytes."""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx2
import psutil
import pytest

from cambio_lab.server.bounds import FIRST_SECONDS, WAITING_PER_ADDRESS
from tests.live_server import LiveServer

from .measure import cost, loaded

Start = Callable[..., Any]
HALF = b"GET /sessions HTTP/1.1\r\nHost: localhost\r\n"
HALF_BODY = (
    b"POST /sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
)
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Allow this process the 3,000 sockets that the attack needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.asynccontextmanager
async def half_open(server: LiveServer, count: int, data: bytes) -> AsyncIterator[list[Connection]]:
    """Connections that sent the beginning of a request."""
    made: list[Connection] = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(data)
        made.append((reader, writer))
    yield made
    for _, writer in made:
        writer.close()


def descriptors(server: LiveServer) -> int:
    assert server.process is not None
    return int(psutil.Process(server.process.pid).num_fds())


async def ended(connections: list[Connection]) -> int:
    """How many of the connections the server has closed."""
    count = 0
    for reader, _ in connections:
        try:
            count += await asyncio.wait_for(reader.read(1), 0.001) == b""
        except TimeoutError:
            pass
        except ConnectionResetError:
            count += 1
    return count


@pytest.mark.parametrize("data", [HALF, pytest.param(HALF_BODY, marks=pytest.mark.slow)], ids=["headers", "body"])
async def test_3000_half_open_requests_leave_the_server_usable(
    start_server: Start, many_descriptors: None, data: bytes
) -> None:
    server: LiveServer = await start_server()
    async with server.client() as client:
        assert (await client.get("/sessions")).status_code == 200
    before, log = descriptors(server), len(server.log())
    kept, asking = await asyncio.open_connection("127.0.0.1", server.port)
    asking.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await kept.readuntil(b"}")
    async with half_open(server, 3000, data) as made, server.client() as client:
        started = time.monotonic()
        assert (await client.get("/sessions")).status_code == 200
        waited = time.monotonic() - started
        created = await client.post("/sessions", json={})
        assert created.status_code == 200
        assert (await client.delete(f"/sessions/{created.json()['id']}")).status_code == 200
        await kept.read(4096)
        asking.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await kept.read(12)) == b"HTTP/1.1 200", "a connection that was served before stays"
        asking.close()
        assert descriptors(server) - before < WAITING_PER_ADDRESS + 40
        if data is HALF:
            await asyncio.sleep(FIRST_SECONDS + 1 - (time.monotonic() - started))
            async with asyncio.timeout(10):  # the last ones waited until the server took them
                while await ended(made) < 3000:  # noqa: ASYNC110 - no event says it
                    await asyncio.sleep(0.2)
        grown = len(server.log()) - log
        print(f"answered after {waited * 1000:.0f} ms; log +{grown} bytes")
        assert waited < 2 and grown < 60_000
    assert "Traceback" not in server.log()


async def test_a_slow_request_is_served_and_a_kept_connection_stays(start_server: Start) -> None:
    server: LiveServer = await start_server()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for _ in range(3):
        writer.write(b"GET /health HTTP/1.1\r\n")
        await asyncio.sleep(1)
        writer.write(b"Host: localhost\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        await reader.readexactly(int(fields[b"content-length"]))
    writer.close()


async def test_three_thousand_refused_requests_write_few_lines(start_server: Start) -> None:
    server: LiveServer = await start_server()
    log = len(server.log())
    async with httpx2.AsyncClient(base_url=server.url) as unknown:

        async def flood() -> None:
            for _ in range(300):
                assert (await unknown.get("/sessions")).status_code == 401

        await asyncio.gather(*(flood() for _ in range(10)))
    grown = len(server.log()) - log
    print(f"3,000 refused requests: log +{grown} bytes")
    assert grown < 100_000


async def test_a_malformed_message_is_answered_in_the_envelope(start_server: Start) -> None:
    server: LiveServer = await start_server()
    head = f"POST /sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: token {server.token}\r\n".encode()
    for raw in (
        head + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\xb2\r\n{}\r\n0\r\n\r\n",
        head + b"Transfer-Encoding: gzip\r\n\r\n",
        head + b"no colon\r\n\r\n",
        b"\x16\x03\x01\x02\x00 not HTTP\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(raw)
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.startswith(b"HTTP/1.1 400 ") and b'"error": "Bad Request"' in answer.replace(b'":"', b'": "'), raw
        writer.close()
    assert "Traceback" not in server.log()


REFUSED = b"GET /sessions HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF_UPGRADE = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


async def opened_and_left(server: LiveServer, data: bytes) -> None:
    """3,000 connections, fifty at a time, that send ``data`` and close without reading."""

    async def some() -> None:
        for _ in range(60):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(data)
            writer.close()

    await asyncio.gather(*(some() for _ in range(50)))


async def header_by_header(server: LiveServer, data: bytes) -> None:
    """As many connections as may wait, each of which sends a short line every 10 ms."""
    made = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(WAITING_PER_ADDRESS - 4)]
    for number in range(150):
        for _, writer in made:
            writer.write((data if not number else b"X%d: " % number + b"x" * 200) + b"\r\n")
        await asyncio.sleep(0.01)
    for _, writer in made:
        writer.close()


async def asked_again_and_again(server: LiveServer, data: bytes) -> None:
    """A hundred connections that repeat a request as soon as it is answered."""
    end = time.monotonic() + 4

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        while time.monotonic() < end:
            writer.write(data)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
        writer.close()

    await asyncio.gather(*(one() for _ in range(100)))


@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.parametrize(
    ("flood", "data"),
    [
        *((opened_and_left, data) for data in (b"", HALF, HALF_BODY, REFUSED, HALF_UPGRADE, b"\x16\x03\x01\r\n\r\n")),
        *((header_by_header, HALF[:-2]), (header_by_header, HALF_UPGRADE[:-2]), (asked_again_and_again, REFUSED)),
    ],
)
async def test_a_flood_delays_no_other_client(
    start_server: Start, many_descriptors: None, flood: Callable[..., Any], data: bytes
) -> None:
    server: LiveServer = await start_server(limits=True)
    async with server.client() as client:
        assert (await client.get("/api/status")).status_code == 200
    await loaded(server)
    async with cost(server) as found:
        began = time.monotonic()
        await flood(server, data)
        await asyncio.sleep(max(0.0, began + 3 - time.monotonic()))
    print(f"{flood.__name__}: {found}")
    # A hundred that ask without pause fill the loop, and `measure.prefer` makes the system halt it 50 ms a second.
    assert (
        found.percentile(0.9 if flood is asked_again_and_again else 0.99) <= 20
        and found.memory < 32e6
        and found.log < 300_000
    )
