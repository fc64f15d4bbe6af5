"""The way to a container's VNC server through the engine, where its published port cannot be reached.

That is so when this server runs in a container beside the desktops', or the engine on another machine.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from cambio_lab.errors import DesktopLost

from ..machine import STDOUT
from .engine import Engine
from .exec import XVNC, ExecProcess, start_exec

log = logging.getLogger(__name__)
_AT_ONCE = 32
"""Connections to one desktop: the server's own and its viewers'."""

# Runs in the container as the user who owns Xvnc, so that programs of the desktop cannot write into the stream.
_PROGRAM = """
import os, socket, threading
server = socket.create_connection(("127.0.0.1", 5900))
def send():
    while data := os.read(0, 1 << 16):
        server.sendall(data)
    server.shutdown(socket.SHUT_WR)
threading.Thread(target=send, daemon=True).start()
while data := server.recv(1 << 18):
    while data:
        data = data[os.write(1, data):]
"""


class Relay:
    """A Unix socket of this user alone; each connection to it is a program in the container. ``path`` says where."""

    def __init__(self, engine: Engine, container: str, folder: Path) -> None:
        self._engine = engine
        self._container = container
        self._folder = folder
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.path = str(folder / "vnc")

    @classmethod
    async def start(cls, engine: Engine, container: str) -> Relay:
        # Not below a long TMPDIR: the path of a socket has at most 107 bytes.
        parent = None if len(tempfile.gettempdir()) < 60 else "/tmp"
        relay = cls(engine, container, Path(await asyncio.to_thread(tempfile.mkdtemp, "", "cambio-vnc-", parent)))
        try:
            relay._server = await asyncio.start_unix_server(relay._accept, relay.path, limit=1 << 18)
        except BaseException:
            await relay.close()
            raise
        return relay

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= _AT_ONCE:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._relay(reader, writer), name="vnc-relay")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass bytes both ways until one side ends; each waits for the other to take them."""
        process: ExecProcess | None = None
        try:
            process = await start_exec(self._engine, self._container, ["python3", "-IS", "-c", _PROGRAM], user=XVNC)
            ways = [asyncio.create_task(_up(reader, process)), asyncio.create_task(_down(process, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.wait(ways)
        except DesktopLost as error:
            log.info("VNC relay failed: container=%s error=%s", self._container[:12], error)
        finally:
            if process is not None:
                process.abandon()
            writer.transport.abort()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


async def _up(reader: asyncio.StreamReader, process: ExecProcess) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            await process.write(data)


async def _down(process: ExecProcess, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while (piece := await process.read()) is not None:
            if piece[0] == STDOUT:
                writer.write(piece[1])
                await writer.drain()
