"""Programs in a running container, started by the engine; and the way to its VNC server through the engine.

That way serves where the published port cannot be reached: this server runs in a container beside the desktops', or
the engine on another machine.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cambio_lab.errors import DesktopLost

from ..machine import STDOUT, Machine, until_managed
from .engine import Engine, EngineError, HijackedStream

HOME = "/home/user"
USER, XVNC = "1000:1000", "900:900"
"""Who programs run as, and who the X server runs as: the first can neither signal nor trace the second."""
_TOKEN = "CAMBIO_LAB_PROCESS"

# Finds what descends from one exec by a variable that its children inherit, wherever they hid since.
_KILL = (
    'for f in $(grep -lzsx -- "$1" /proc/[0-9]*/environ); do p=${f#/proc/}; p=${p%/environ}; '
    'g=$(ps -o pgid= -p "$p" | tr -d " "); case " $2 " in *" $g "*) ;; *) kill -KILL "$p" 2>/dev/null;; esac; done; '
    "echo done"
)


class ExecProcess:
    """A program started by the engine in a running container."""

    def __init__(self, engine: Engine, container: str, exec_id: str, token: str, stream: HijackedStream) -> None:
        self._engine = engine
        self._container = container
        self._exec_id = exec_id
        self._token = token
        self._stream = stream

    async def write(self, data: bytes) -> None:
        self._stream.writer.write(data)
        await self._stream.writer.drain()

    async def close_stdin(self) -> None:
        if self._stream.writer.can_write_eof():
            self._stream.writer.write_eof()

    async def read(self) -> tuple[int, bytes] | None:
        return await self._stream.read()

    async def wait(self) -> int:
        # The stream ends before the engine has noted the exit code.
        for pause in (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0):
            await asyncio.sleep(pause)
            state = await self._engine.call(lambda client: client.exec_inspect(self._exec_id))
            if not state["Running"]:
                return int(state["ExitCode"])
        raise DesktopLost("A program in the desktop closed its output but did not end.")

    async def kill(self, spare: Sequence[int] = ()) -> None:
        arguments = [f"{_TOKEN}={self._token}", " ".join(map(str, spare))]
        killer = await start_exec(self._engine, self._container, ["sh", "-c", _KILL, "kill", *arguments])
        # Wait for the script's `done` rather than its exit: Docker can report the exit seconds late while child
        # processes survive.
        said = b""
        try:
            while b"done" not in said and (piece := await killer.read()) is not None:
                said = (said + piece[1])[-64:]
        finally:
            killer.abandon()

    def abandon(self) -> None:
        self._stream.close()


async def start_exec(engine: Engine, container: str, argv: Sequence[str], *, user: str = USER) -> ExecProcess:
    """Start ``argv`` as ``user``. Raises :class:`~cambio_lab.errors.DesktopLost` when the container is gone."""
    token = secrets.token_hex(8)
    folder = HOME if user == USER else "/"
    try:
        created = await engine.call(
            lambda client: client.exec_create(
                container, list(argv), stdin=True, environment={_TOKEN: token}, workdir=folder, user=user
            )
        )
        stream = await engine.hijack(f"/exec/{created['Id']}/start", {"Detach": False, "Tty": False})
    except EngineError as error:
        # The engine refuses to start a program in a paused container, which would hang them both.
        frozen = error.status == 409 and "paused" in str(error)
        state = "is frozen" if frozen else "is gone or does not answer"
        raise DesktopLost(f"The desktop's container {state}.") from error
    except OSError as error:
        raise DesktopLost("The Docker Engine does not answer.") from error
    return ExecProcess(engine, container, created["Id"], token, stream)


class ContainerMachine(Machine):
    """Programs in a container, by default as the desktop's own user."""

    def __init__(self, engine: Engine, container: str, user: str = USER) -> None:
        super().__init__(HOME, (HOME, "/tmp"), "python3")
        self._engine = engine
        self._container = container
        self._user = user

    async def spawn(self, argv: Sequence[str]) -> ExecProcess:
        await until_managed(self)
        return await start_exec(self._engine, self._container, argv, user=self._user)


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
