"""The Docker Engine, from asyncio: calls through the synchronous ``docker`` package on threads, streams natively.

``docker`` is imported on first use, off the event loop: it costs a quarter of a second.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from cambio_lab.errors import DesktopUnavailable

from . import Endpoint, find_endpoint

T = TypeVar("T")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


_AT_ONCE = 8
"""Calls that are made at the same time; others wait."""
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


def on_thread(call: Callable[[], T]) -> Future[T]:
    """Make ``call`` on a thread of its own, which may outlive the interpreter.

    A pool's threads may not: a call that an engine never answers held up a server's shutdown for its whole time limit.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # from now on it cannot be cancelled

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="docker", daemon=True).start()
    return future


class Engine:
    """One engine: ``host``, else the one that the ``docker`` command would use (``DOCKER_HOST``, contexts)."""

    def __init__(self, host: str | None = None) -> None:
        self._endpoint = Endpoint(host) if host else find_endpoint()
        self.host = self._endpoint.host
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._idle: list[Any] = []
        """Clients without a call: ``requests`` sessions are not made to be shared."""
        self._closed = False
        self._version: str | None = None
        self._podman: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether the engine is reached on this machine, so that the ports it publishes may be, too."""
        address = urlsplit(self.host)
        return address.scheme in ("unix", "npipe") or address.hostname in ("localhost", "127.0.0.1", "::1")

    def _client(self) -> Any:
        import docker
        from docker.transport.unixconn import UnixHTTPConnection

        UnixHTTPConnection.connect = _connect_or_close
        tls = self._endpoint.tls_config() if self._endpoint.secure else False
        client = docker.APIClient(base_url=self.host, tls=tls, version=self._version, timeout=60)
        # Else the package keeps a connection for each of the last 25 URLs: descriptors for containers long gone.
        client.headers["Connection"] = "close"
        self._version = client.api_version  # asked of the engine once, not once for each client
        return client

    def _run(self, action: Callable[[Any], T], client: Any) -> T:
        import docker.errors
        import requests.exceptions

        try:
            client = client or self._client()
            return action(client)
        except docker.errors.APIError as error:
            raise EngineError(str(error.explanation or error), error.response.status_code) from error
        except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
            raise DesktopUnavailable("No Docker Engine answers.", hint=START_DOCKER) from error
        finally:
            if client is not None:
                self._idle.append(client)

    async def call(self, action: Callable[[Any], T]) -> T:
        """Run ``action(client)`` on a thread; ``client`` is a ``docker.APIClient``.

        Raises :class:`EngineError` when the engine refuses, ``DesktopUnavailable`` when none answers.
        """
        if self._version is None and not await self.answers():
            raise DesktopUnavailable("No Docker Engine answers.", hint=START_DOCKER)
        async with self._slots:
            if self._closed:
                raise DesktopUnavailable("The connection to the Docker Engine was closed.")
            client = self._idle.pop() if self._idle else None
            return await asyncio.wrap_future(on_thread(partial(self._run, action, client)))

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
        """Take no more calls; those that wait fail."""
        self._closed = True
        for client in self._idle:
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
