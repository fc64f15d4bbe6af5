"""The Docker Engine, from asyncio: calls through the synchronous ``docker`` package on threads, streams natively.

``docker`` is imported on first use, off the event loop: it costs a quarter of a second.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import queue
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from cambio_lab.errors import DesktopUnavailable

from . import Endpoint, find_endpoint

T = TypeVar("T")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class DaemonThreads:
    """At most ``count`` threads, begun as they are needed.

    Like the standard library's ``ThreadPoolExecutor``, whose threads the interpreter joins when it ends: a call that an
    engine never answers held up a server's shutdown for its whole time limit.
    """

    def __init__(self, count: int, name: str) -> None:
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._serve, name=f"{name}_{n}", daemon=True) for n in range(count)]
        self._idle = iter(self._threads)
        self._over = False

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Make ``call`` on a thread. ``RuntimeError`` after :meth:`close`."""
        if self._over:
            raise RuntimeError("no more calls are taken")
        future: Future[T] = Future()
        self._work.put((future, call))
        for thread in itertools.islice(self._idle, 1):
            thread.start()
        return future

    def _serve(self) -> None:
        while (job := self._work.get()) is not None:
            future, call = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:
                    future.set_exception(error)
            del job, future, call  # what the next job waits for must not keep the last one's result

    def close(self) -> None:
        """Take no more calls and cancel those that wait. The threads end after what they are doing."""
        self._over = True
        with suppress(queue.Empty):
            while True:
                if (job := self._work.get_nowait()) is not None:
                    job[0].cancel()
        for _ in self._threads:
            self._work.put(None)


START_DOCKER = "Start Docker, point DOCKER_HOST at an engine, or use desktop=sandbox."


def _connect_or_close(self: Any) -> None:
    """Connect, for docker's ``UnixHTTPConnection``: its own leaves the socket open when the engine has gone away."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(self.timeout)
        connection.connect(self.unix_socket)
    except BaseException:
        connection.close()
        raise
    self.sock = connection


class EngineError(Exception):
    """The engine refused a call; ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


async def finished(work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, also when the caller is cancelled meanwhile: it ends first."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise


class _PerThread(threading.local):
    client: Any = None


class Engine:
    """One engine: ``host``, else the one that the ``docker`` command would use (``DOCKER_HOST``, contexts)."""

    def __init__(self, host: str | None = None) -> None:
        self._endpoint = Endpoint(host) if host else find_endpoint()
        self.host = self._endpoint.host
        self._threads = DaemonThreads(8, "docker")
        self._local = _PerThread()
        self._clients: list[Any] = []
        self._version: str | None = None
        self._podman: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether the engine is reached on this machine, so that the ports it publishes may be, too."""
        address = urlsplit(self.host)
        return address.scheme in ("unix", "npipe") or address.hostname in ("localhost", "127.0.0.1", "::1")

    def _client(self) -> Any:
        """A client of this thread's own: ``requests`` sessions are not made to be shared."""
        if self._local.client is None:
            import docker
            from docker.transport.unixconn import UnixHTTPConnection

            UnixHTTPConnection.connect = _connect_or_close
            tls = self._endpoint.tls_config() if self._endpoint.secure else False
            client = docker.APIClient(base_url=self.host, tls=tls, version=self._version, timeout=60)
            # Else the package keeps a connection for each of the last 25 URLs: descriptors for containers long gone.
            client.headers["Connection"] = "close"
            self._version = client.api_version  # asked of the engine once, not once for each thread
            self._local.client = client
            self._clients.append(client)
        return self._local.client

    def _run(self, action: Callable[[Any], T]) -> T:
        import docker.errors
        import requests.exceptions

        try:
            return action(self._client())
        except docker.errors.APIError as error:
            raise EngineError(str(error.explanation or error), error.response.status_code) from error
        except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
            raise DesktopUnavailable("No Docker Engine answers.", hint=START_DOCKER) from error

    async def call(self, action: Callable[[Any], T]) -> T:
        """Run ``action(client)`` on a thread; ``client`` is a ``docker.APIClient``.

        Raises :class:`EngineError` when the engine refuses, ``DesktopUnavailable`` when none answers.
        """
        if not self._clients and not await self.answers():
            raise DesktopUnavailable("No Docker Engine answers.", hint=START_DOCKER)
        return await asyncio.wrap_future(self._threads.submit(partial(self._run, action)))

    async def finish(self, action: Callable[[Any], T]) -> T:
        """Like :meth:`call`, but :func:`finished`: what the call made can be removed then."""
        return await finished(self.call(action))

    async def lines(self, action: Callable[[Any], Any]) -> AsyncIterator[dict[str, Any]]:
        """The JSON objects of a streaming call (a build, a pull), as they come."""
        stream = iter(await self.call(action))
        while (line := await self.call(lambda _: next(stream, None))) is not None:
            yield line

    async def answers(self, timeout: float = 3.0) -> bool:
        """Whether an engine is there: it is asked, because an installed ``docker`` program proves nothing."""
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await self._connect()
                try:
                    writer.write(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
                    return b" 200 " in await reader.readline()
                finally:
                    writer.transport.abort()
        except (OSError, TimeoutError, ValueError):
            return False

    async def podman(self) -> str:
        """Return the version of Podman if that is what answers, else an empty text; asked once."""
        if self._podman is None:
            parts = (await self.call(lambda client: client.version())).get("Components") or []
            self._podman = next((part["Version"] for part in parts if part["Name"] == "Podman Engine"), "")
        return self._podman

    async def _connect(self) -> Streams:
        address = urlsplit(self.host)
        if address.scheme == "unix":
            return await asyncio.open_unix_connection(address.path, limit=1 << 20)
        if address.scheme not in ("tcp", "http", "https") or address.hostname is None:
            raise DesktopUnavailable(f"An engine at {self.host!r} is not supported.", hint=START_DOCKER)
        secure = self._endpoint.ssl_context() if self._endpoint.secure else None
        port = address.port or (2376 if secure else 2375)
        return await asyncio.open_connection(address.hostname, port, ssl=secure, limit=1 << 20)

    async def hijack(self, path: str, body: Mapping[str, Any]) -> Streams:
        """``POST path`` and take over the connection: attach and exec streams, without a thread for each."""
        reader, writer = await self._connect()
        data = json.dumps(body).encode() if body else b""  # Podman gives what it does not read to the program
        head = (
            f"POST {path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
        writer.write(head.encode() + data)
        try:
            head_lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except asyncio.IncompleteReadError as error:
            writer.close()
            raise EngineError("the engine closed the connection") from error
        except BaseException:
            writer.transport.abort()
            raise
        status = int(head_lines[0].split()[1])
        if status not in (101, 200):
            writer.close()
            raise EngineError(head_lines[0], status)
        return reader, writer

    def close(self) -> None:
        """Close the connections to the engine; calls that still run fail."""
        self._threads.close()
        for client in self._clients:
            client.close()


class HijackedStream:
    """Standard streams of a process without a terminal, multiplexed as the engine does it."""

    said = b""
    """The end of what :meth:`until` read; it is hostile, so only 4 KB are kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self._stream = 0
        self._left = 0

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def close_stdin(self) -> None:
        if self.writer.can_write_eof():
            self.writer.write_eof()

    async def read(self) -> tuple[int, bytes] | None:
        """The next piece: stream number (1 or 2) and bytes; ``None`` at the end."""
        try:
            while self._left == 0:
                self._stream, self._left = struct.unpack(">BxxxI", await self._reader.readexactly(8))
            data = await self._reader.read(min(self._left, 1 << 18))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        if not data:
            return None
        self._left -= len(data)
        return self._stream, data

    async def until(self, word: bytes) -> bool:
        """Read until ``word`` was said; false when the stream ends before."""
        while word not in self.said:
            if (piece := await self.read()) is None:
                return False
            self.said = (self.said + piece[1])[-4096:]
        return True

    def abandon(self) -> None:
        self.writer.transport.abort()
