"""What a flood of connections costs the event loop, turn by turn, on a real HTTP server of this process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
from jupyter_server.auth import User
from jupyter_server.base.handlers import JupyterHandler
from tornado.iostream import IOStream
from tornado.web import Application

from cambio_lab.server import Throttle, bounds
from cambio_lab.server.bounds import HEADER_LINES, BoundedServer, Pace

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF_BODY = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"


class Counting(BoundedServer):
    """Counts the connections that each turn of the event loop takes."""

    def initialize(self, *args: Any, **options: Any) -> None:
        super().initialize(*args, **options)
        self.turns: list[int] = []
        self.taken = 0

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        if not self.taken:
            asyncio.get_running_loop().call_soon(self.next_turn)
        self.taken += 1
        super().handle_stream(stream, address)

    def next_turn(self) -> None:
        self.turns.append(self.taken)
        self.taken = 0


class Page(JupyterHandler):
    """Lets the token ``good`` in, as Jupyter's identity provider would; notes the order of the answers."""

    order: ClassVar[list[str]] = []

    async def prepare(self) -> None:  # type: ignore[override]
        if self.request.headers.get("Authorization") == "token good":
            self._jupyter_current_user = User("user")

    def get(self) -> None:
        self.order.append(self.request.headers.get("Authorization", "-"))
        self.finish("ok")


@pytest.fixture
async def server() -> AsyncIterator[Counting]:
    pace = Pace()
    found = Counting(Application([("/", Page)], log_function=pace.noting(lambda handler: None)), pace=pace)
    found.listen(0, "127.0.0.1")
    yield found
    found.stop()
    await found.close_all_connections()


@contextlib.contextmanager
def connected(server: Counting, count: int) -> Any:
    """Sockets that the system has connected and the server has not taken yet: the loop does not run meanwhile."""
    (listening,) = server._sockets.values()
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(listening.getsockname())) for _ in range(count)]


async def answers(sockets: list[socket.socket]) -> list[bytes]:
    async def one(sock: socket.socket) -> bytes:
        sock.setblocking(False)
        return await asyncio.get_running_loop().sock_recv(sock, 65536)

    async with asyncio.timeout(20):
        return await asyncio.gather(*map(one, sockets))


async def test_few_connections_are_taken_in_one_turn(server: Counting) -> None:
    with connected(server, 60) as sockets:
        for sock in sockets:
            sock.send(GET)
        assert {answer[:15] for answer in await answers(sockets)} == {b"HTTP/1.1 200 OK"}
    assert sum(server.turns) == 60
    assert max(server.turns) <= 16


async def test_a_head_that_arrives_by_the_byte_is_not_searched_again_and_again(server: Counting) -> None:
    with connected(server, 1) as (sock,):
        sock.send(GET[:-2])
        for line in range(60):
            sock.send(b"X%d: " % line + b"\r" * 1000 + b"\r\n")
        await asyncio.sleep(0.05)
        began = time.thread_time()
        for _ in range(300):
            sock.send(b"x")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert time.thread_time() - began < 0.1  # 1 ms and more for each byte with Tornado's own


@pytest.mark.parametrize(
    "head",
    [
        GET[:-2] + b"a:\r\n" * 16_000 + b"\r\n",
        GET[:-2] + b"a: b\r\n" * HEADER_LINES + b"\r\n",
        b"GET /?" + b"a&" * 5000 + b" HTTP/1.1\r\n\r\n",
        b"\r\n" * 10_000,
    ],
    ids=["16,000 headers", "one too many", "5,000 parameters", "empty lines"],
)
async def test_more_headers_than_a_request_needs_are_refused_unparsed(server: Counting, head: bytes) -> None:
    with connected(server, 1) as (sock,):
        sock.sendall(head)
        began = time.thread_time()
        (answer,) = await answers([sock])
        assert answer.startswith(b"HTTP/1.1 400 ") and b'"error"' in answer
        assert time.thread_time() - began < 0.05


async def test_odd_ends_of_lines_are_understood(server: Counting) -> None:
    with connected(server, 3) as sockets:
        for sock, head in zip(sockets, (GET.replace(b"\r", b""), b"\r\n" + GET, b"\n" + GET + GET), strict=True):
            sock.send(head)
        assert {answer[:15] for answer in await answers(sockets)} == {b"HTTP/1.1 200 OK"}


async def test_a_flood_from_the_same_address_leaves_room(server: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "PER_ADDRESS", 8)
    with connected(server, 8) as flood, contextlib.ExitStack() as stack:
        for sock in flood:
            sock.send(HALF_BODY)
        async with asyncio.timeout(10):
            while len(server._open) < 8:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        kept = stack.enter_context(connected(server, 1))
        kept[0].send(GET)
        assert (await answers(kept))[0].startswith(b"HTTP/1.1 200 ")
        more = stack.enter_context(connected(server, 12))
        for sock in more:
            sock.send(HALF_BODY)
        async with asyncio.timeout(10):
            while sum(server.turns) < 21 or len(server._open) != 8:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        kept[0].send(GET)
        assert (await answers(kept))[0].startswith(b"HTTP/1.1 200 "), "one that was served stays"


async def test_a_known_caller_does_not_wait_for_a_flood(server: Counting) -> None:
    good = GET[:-2] + b"Authorization: token good\r\n\r\n"
    with connected(server, 41) as sockets:
        for _ in range(2):  # in the second, all are connected and one is known
            Page.order.clear()
            for sock in sockets[:-1]:
                sock.send(GET)
            sockets[-1].send(good)
            await answers(sockets)
    assert len(Page.order) == 41
    assert Page.order.index("token good") <= 16


def test_the_throttle_counts_what_it_leaves_out() -> None:
    throttle = Throttle(burst=3, per_second=50)
    record = logging.LogRecord("x", logging.WARNING, "place.py", 1, "refused %s", ("you",), None)
    assert [throttle.filter(record) for _ in range(6)] == [True] * 3 + [False] * 3
    elsewhere = logging.LogRecord("x", logging.ERROR, "place.py", 2, "failed", (), None)
    assert throttle.filter(elsewhere)
    time.sleep(0.05)
    assert throttle.filter(record)
    assert record.getMessage() == "refused you (3 similar lines left out)"
