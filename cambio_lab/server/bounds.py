"""Bounds on what a caller without a token can hold or cause: connections, time, and everyone else's wait.

Jupyter Server makes a ``tornado.httpserver.HTTPServer``; ``HTTPServer.configure(BoundedServer)`` makes it ours. With
Tornado's defaults a half-open request stays for an hour, and 3,000 of them use up the descriptors of the process, which
then logs 2.3 MB of tracebacks a second; 128 connections are taken at once, which takes 25 ms; and the headers of a
request that has 16,000 of them are parsed for 350 ms, before any handler can ask for a token.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import resource
import socket
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPConnection, HTTPHeaders, HTTPInputError, HTTPMessageDelegate, RequestStartLine
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream
from tornado.web import RequestHandler

from ..api import malformed

FIRST_SECONDS = 10.0
"""From a connection to the end of its first request's headers."""
IDLE_SECONDS = 75.0
"""From one request to the next one's headers, as web servers commonly wait."""
BODY_SECONDS = 300.0
"""For a whole body, such as a notebook over a slow line; routes of ours say less (:mod:`cambio_lab.api.rest`)."""
UNREAD_SECONDS = 30.0
"""For which a client may take nothing of what was sent to it; the kernel then ends its connection."""
WAITING_PER_ADDRESS = 128
"""Connections of one address whose request is not complete; one more closes the oldest that was never served."""
PER_ADDRESS = 512
"""Connections of one address, without WebSockets; one more closes the oldest that was never served, or is closed."""
ACCEPTS = 8
"""Connections that are taken in one turn of the event loop; their set-up costs 0.2 ms each."""
BACKLOG = 512
"""Connections that the system keeps until they are taken; where it has no room, a client tries again after a second."""
ACCEPT_AGAIN_SECONDS = 0.2
"""After the system refused a descriptor."""
HEADER_LINES = 200
LINE_BYTES = 16 * 1024
"""Of a header, such as the cookies of everything on this host."""
TARGET_BYTES = 8 * 1024
"""Of the first line of a request: 15,000 parameters would take 60 ms to parse."""
REQUESTS_PER_TURN = 2
"""Of callers that are not known, which begin in one turn of the event loop."""
KNOWN = 1024
"""Credentials; the one that was not used for longest is forgotten first."""
_TOKEN = re.compile(r"[?&]token=([^&]*)")
_TORNADO_REFUSAL = b"HTTP/1.1 400 Bad Request\r\n\r\n"
logger = logging.getLogger(__name__)


def bound(settings: dict[str, Any]) -> None:
    """Let the next HTTP server of this process, for an application with ``settings``, be bounded."""
    pace = Pace()
    settings["log_function"] = pace.noting(settings.get("log_function", lambda handler: None))
    HTTPServer.configure(BoundedServer, body_timeout=BODY_SECONDS, pace=pace)


class BoundedServer(HTTPServer):
    """Tornado's server with bounds per address and in all."""

    def initialize(self, *args: Any, **options: Any) -> None:
        self.pace: Pace = options.pop("pace")
        super().initialize(*args, **options)
        self.conn_params.header_timeout = None  # ours closes without a task for each request
        self._open: dict[HTTP1ServerConnection, str] = {}
        self._per_address: Counter[str] = Counter()
        self._waiting: dict[str, OrderedDict[object, IOStream]] = {}
        self._deadlines: dict[object, asyncio.TimerHandle] = {}
        self.served: set[object] = set()
        """Connections that had an answer, or whose caller is known."""
        # Half of the descriptors are for desktops, kernels and the database.
        self._most = max(32, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Listen on ``sockets``; few connections are taken at once, so that a flood of them lets others be served."""
        for listening in sockets:
            listening.listen(BACKLOG)
            self._sockets[listening.fileno()] = listening
            self._handlers[listening.fileno()] = accept_some(listening, self._handle_connection)

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Serve a new connection, or close it where there are too many."""
        ip = str(address[0]) if address else ""
        if len(self._open) >= self._most or self._per_address[ip] >= PER_ADDRESS:
            logger.warning("connection closed: %d of %s, %d in all", self._per_address[ip], ip, len(self._open))
            unserved = (one.stream for one, its in self._open.items() if its == ip and one not in self.served)
            next((found for found in unserved if not found.closed()), stream).close()
            if stream.closed():
                return
        if sys.platform == "linux" and ip:
            stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_SECONDS * 1000))
        write = stream.write
        # Tornado answers a malformed message itself, past every handler.
        stream.write = lambda data: write(malformed() if data == _TORNADO_REFUSAL else data)  # type: ignore[method-assign]
        # Its pattern is searched from the beginning for each piece that arrives: 5 ms for 64 KB.
        stream.read_until_regex = functools.partial(_read_head, stream)  # type: ignore[method-assign]
        super().handle_stream(stream, address)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Note that this connection waits for a request."""
        assert isinstance(server_conn, HTTP1ServerConnection)
        seconds = IDLE_SECONDS
        if server_conn not in self._open:
            self._open[server_conn] = ip = str(getattr(server_conn.context, "address", ("",))[0])
            self._per_address[ip] += 1
            seconds = FIRST_SECONDS
        self._deadlines[server_conn] = asyncio.get_running_loop().call_later(seconds, server_conn.stream.close)
        self.wait(server_conn)
        return _Request(super().start_request(server_conn, request_conn), self, server_conn)

    def wait(self, server_conn: HTTP1ServerConnection) -> None:
        """Count a connection whose request is not complete; close another if there are too many."""
        if (ip := self._open.get(server_conn)) is None:
            return  # closed meanwhile
        waiting = self._waiting.setdefault(ip, OrderedDict())
        waiting[server_conn] = server_conn.stream
        if len(waiting) > WAITING_PER_ADDRESS:
            # An honest client's connection from the same address may be idle for longer than those of a flood.
            spared = self.served | {server_conn}
            oldest = waiting.pop(next((one for one in waiting if one not in spared), next(iter(waiting))))
            logger.warning("connection closed: %d incomplete requests of %s", WAITING_PER_ADDRESS + 1, ip)
            oldest.close()

    def headers_complete(self, server_conn: object) -> None:
        """The headers came in time."""
        if deadline := self._deadlines.pop(server_conn, None):
            deadline.cancel()

    def wait_no_longer(self, server_conn: HTTP1ServerConnection) -> None:
        """Count a connection no longer: its request is complete, or waits for the server."""
        ip = self._open.get(server_conn, "")
        if (waiting := self._waiting.get(ip)) is not None:
            waiting.pop(server_conn, None)
            if not waiting:
                del self._waiting[ip]

    def on_close(self, server_conn: object) -> None:
        """The connection is over, or a WebSocket from here on."""
        assert isinstance(server_conn, HTTP1ServerConnection)
        self.headers_complete(server_conn)
        self.wait_no_longer(server_conn)
        self.served.discard(server_conn)
        vars(server_conn.stream).pop("write", None)  # what a WebSocket sends is not an answer of Tornado's
        if (ip := self._open.pop(server_conn, None)) is not None:
            self._per_address[ip] -= 1
            if not self._per_address[ip]:
                del self._per_address[ip]
        super().on_close(server_conn)


def accept_some(listening: socket.socket, serve: Callable[[socket.socket, Any], None]) -> Callable[[], None]:
    """Give up to ``ACCEPTS`` connections a turn of the event loop to ``serve``; call the result to end that."""
    loop = IOLoop.current()

    def accept(_socket: socket.socket, _events: int) -> None:
        for _ in range(ACCEPTS):
            try:
                connection, address = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor is left: the connection stays where it is
                logger.warning("connections have to wait: %s", error)
                stop()
                waiting.append(loop.call_later(ACCEPT_AGAIN_SECONDS, start))
                return
            serve(connection, address)

    def start() -> None:
        waiting.clear()
        loop.add_handler(listening, accept, IOLoop.READ)

    def stop() -> None:
        for handle in waiting:
            loop.remove_timeout(handle)
        loop.remove_handler(listening)

    waiting: list[object] = []
    start()
    return stop


async def _read_head(stream: IOStream, regex: bytes, max_bytes: int) -> bytes:
    """Read the lines of a request up to the empty one, in time that is linear in their length.

    ``regex`` is Tornado's, for the same. Raises ``HTTPInputError`` for more than a request needs; a line of more than
    ``LINE_BYTES`` ends the connection.
    """
    head = bytearray()
    for _ in range(HEADER_LINES):
        line = await stream.read_until(b"\n", min(LINE_BYTES, max_bytes - len(head)))
        if not head and len(line) > TARGET_BYTES:
            break
        if line not in (b"\n", b"\r\n"):
            head += line
        elif head:
            return bytes(head + line)
    raise HTTPInputError("the request line is too long, or there are too many headers")


class _Request(HTTPMessageDelegate):
    """One request on its way to the application; tells the server how far it has been read."""

    def __init__(self, inner: HTTPMessageDelegate, server: BoundedServer, connection: HTTP1ServerConnection) -> None:
        self._inner = inner
        self._server = server
        self._connection = connection
        self.data_received = inner.data_received  # type: ignore[method-assign]
        self.on_connection_close = inner.on_connection_close  # type: ignore[method-assign]

    def headers_received(self, start_line: Any, headers: HTTPHeaders) -> Any:
        self._server.headers_complete(self._connection)
        if self._server.pace.knows(start_line.path, headers):
            self._server.served.add(self._connection)  # not closed for a flood of others, from here on
        elif (turn := self._server.pace.turn()) is not None:
            return self._later(turn, start_line, headers)
        return self._inner.headers_received(start_line, headers)

    async def _later(self, turn: asyncio.Future[None], start_line: RequestStartLine, headers: HTTPHeaders) -> None:
        self._server.wait_no_longer(self._connection)
        await turn
        self._server.wait(self._connection)
        if (received := self._inner.headers_received(start_line, headers)) is not None:
            await received

    def finish(self) -> None:
        self._server.served.add(self._connection)
        self._server.wait_no_longer(self._connection)
        self._inner.finish()


class Pace:
    """Whose request goes first: callers without a credential that is known to be good take turns.

    A refused request costs half a millisecond. A hundred connections that repeat one as fast as they are answered made
    everyone else wait for 60 to 110 ms: the event loop served all of them between two steps of any other request.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[int, None] = OrderedDict()
        self._queue: deque[asyncio.Future[None]] = deque()
        self._begun = 0

    def knows(self, uri: str, headers: Mapping[str, str]) -> bool:
        """Return whether a user was let in with what this request shows; such a request waits for no turn."""
        credential = _credential(uri, headers)
        if known := credential in self._known:
            self._known.move_to_end(credential)
        return known

    def turn(self) -> asyncio.Future[None] | None:
        """Return ``None`` where another request may begin now, else what to wait for."""
        if self._begun < REQUESTS_PER_TURN and not self._queue:
            self._begin()
            return None
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        return turn

    def noting(self, log: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return ``log``, Tornado's ``log_function``; what a request showed whose user was let in goes first then."""

        def note(handler: RequestHandler) -> None:
            if vars(handler).get("_jupyter_current_user") is not None:
                self._known[_credential(handler.request.uri or "", handler.request.headers)] = None
                if len(self._known) > KNOWN:
                    self._known.popitem(last=False)
            log(handler)

        return note

    def _begin(self) -> None:
        if not self._begun:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._begun += 1

    def _next_turn(self) -> None:
        self._begun = 0
        while self._queue and self._begun < REQUESTS_PER_TURN:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                self._begin()


def _credential(uri: str, headers: Mapping[str, str]) -> int:
    """A number for what a request shows of its caller; Python's hashes differ from process to process."""
    token = _TOKEN.search(uri)
    return hash((headers.get("Authorization", ""), headers.get("Cookie", ""), token and token[1]))
