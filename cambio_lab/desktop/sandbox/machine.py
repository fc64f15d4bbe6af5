"""The control connection to a sandbox's process 1, the programs that it starts, and the sandbox's folder."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import struct
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cambio_lab.errors import DesktopLost, DesktopUnavailable

from ..machine import STDERR, STDOUT, Machine
from .bubblewrap import HOME

_MAX_FRAME = 1 << 16
_PIECES = 16
"""Pieces of output read ahead of the consumer; then the program has to wait."""
EVENTS = ("listening", "ready", "managed")
"""What process 1 says of a desktop's start, in this order."""
_CREDENTIALS = struct.Struct("3i")
Frame = dict[str, Any]


class Control:
    """A connection to process 1. Its frames are bounded and typed: the sandbox is not trusted."""

    def __init__(self, sock: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.pid: int = _CREDENTIALS.unpack(credentials)[0]
        """Process 1 as this machine numbers it (while it listens itself: the server, before the first frame)."""

    @classmethod
    async def open(cls, path: str, first: Frame, fds: Sequence[int] = ()) -> Control:
        """Connect and send a frame with descriptors. ``OSError`` when nothing listens any more."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, path)
            data = json.dumps(first).encode()
            header = len(data).to_bytes(4, "big")
            if fds:
                socket.send_fds(sock, [header], fds)
                header = b""
            reader, writer = await asyncio.open_unix_connection(sock=sock)
        except BaseException:
            sock.close()
            raise
        control = cls(sock, reader, writer)
        writer.write(header + data)
        await writer.drain()
        return control

    async def send(self, frame: Frame) -> None:
        data = json.dumps(frame).encode()
        self._writer.write(len(data).to_bytes(4, "big") + data)
        await self._writer.drain()

    async def receive(self) -> Frame | None:
        """The next frame; ``None`` when process 1 has gone."""
        try:
            size = int.from_bytes(await self._reader.readexactly(4), "big")
            if size > _MAX_FRAME:
                return None
            frame = json.loads(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, OSError, ValueError):
            return None
        return frame if isinstance(frame, dict) else None

    def close(self) -> None:
        self._writer.close()


class Streams:
    """The three pipes of a :class:`Process`; output is read ahead, bounded."""

    def __init__(self, stdin: asyncio.StreamWriter, stdout: asyncio.StreamReader, stderr: asyncio.StreamReader) -> None:
        self._stdin = stdin
        self._pieces: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(_PIECES)
        self._open = 2
        pairs = ((STDOUT, stdout), (STDERR, stderr))
        self._readers = [asyncio.create_task(self._pump(number, stream)) for number, stream in pairs]

    async def _pump(self, number: int, stream: asyncio.StreamReader) -> None:
        try:
            while data := await stream.read(65536):
                await self._pieces.put((number, data))
        finally:
            self._open -= 1
            if self._open == 0:
                with suppress(asyncio.QueueFull):
                    self._pieces.put_nowait(None)

    async def write(self, data: bytes) -> None:
        self._stdin.write(data)
        await self._stdin.drain()

    async def close_stdin(self) -> None:
        self._stdin.close()

    async def read(self) -> tuple[int, bytes] | None:
        if self._open == 0 and self._pieces.empty():
            return None
        return await self._pieces.get()

    def abandon(self) -> None:
        for reader in self._readers:
            reader.cancel()


class SandboxProcess(Streams):
    """A program in the sandbox, with pipes to this server."""

    def __init__(
        self,
        control: Control,
        stdin: asyncio.StreamWriter,
        *outputs: tuple[asyncio.ReadTransport, asyncio.StreamReader],
    ) -> None:
        super().__init__(stdin, *(reader for _, reader in outputs))
        self._control = control
        self._ends: list[asyncio.StreamWriter | asyncio.BaseTransport] = [stdin, *(pipe for pipe, _ in outputs)]
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._killed = asyncio.Event()
        self._listener = asyncio.create_task(self._listen(), name="sandbox-program")

    async def _listen(self) -> None:
        try:
            while (frame := await self._control.receive()) is not None:
                if "killed" in frame:
                    self._killed.set()
                elif isinstance(code := frame.get("code"), int) and not self._code.done():
                    self._code.set_result(code)
        finally:
            self._killed.set()
            if not self._code.done():
                self._code.set_result(-signal.SIGKILL)  # the whole sandbox ended

    async def wait(self) -> int:
        return await asyncio.shield(self._code)

    async def kill(self, spare: Sequence[int] = ()) -> None:
        with suppress(OSError):
            self._killed.clear()
            await self._control.send({"op": "kill", "spare": list(spare)})
            if not self._listener.done():
                await self._killed.wait()

    def abandon(self) -> None:
        super().abandon()
        self._listener.cancel()
        self._control.close()
        for end in self._ends:
            end.close()


async def _write_pipe(end: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    pipe = os.fdopen(end, "wb", 0)
    transport, protocol = await loop.connect_write_pipe(lambda: asyncio.streams.FlowControlMixin(loop), pipe)
    return asyncio.StreamWriter(transport, protocol, None, loop)


async def _read_pipe(end: int) -> tuple[asyncio.ReadTransport, asyncio.StreamReader]:
    reader, pipe, loop = asyncio.StreamReader(), os.fdopen(end, "rb", 0), asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return transport, reader


class SandboxMachine(Machine):
    """Programs that process 1 starts: inside the sandbox as its unprivileged user, or without walls as this one."""

    def __init__(
        self, folder: Path, home: str = HOME, roots: Sequence[str] = (HOME, "/tmp"), python: str = "/usr/bin/python3"
    ) -> None:
        super().__init__(home, roots, python)
        self.control_path = str(folder / "control")

    async def spawn(self, argv: Sequence[str]) -> SandboxProcess:
        await self.managed.wait()
        frame: Frame = {"op": "spawn", "argv": list(argv), "token": secrets.token_hex(8)}
        stdin, stdout, stderr = os.pipe(), os.pipe(), os.pipe()
        theirs, ours = [stdin[0], stdout[1], stderr[1]], [stdin[1], stdout[0], stderr[0]]
        try:
            control = await Control.open(self.control_path, frame, theirs)
        except OSError as error:
            for end in ours:
                os.close(end)
            raise DesktopLost("The desktop's sandbox has ended.") from error
        finally:
            for end in theirs:
                os.close(end)
        return SandboxProcess(control, await _write_pipe(ours[0]), await _read_pipe(ours[1]), await _read_pipe(ours[2]))


class Supervision:
    """The connection that shows whether a sandbox lives, and how far its start is."""

    def __init__(self, control: Control, folder: Path, end_signal: int) -> None:
        self.folder = folder
        self._control = control
        self._end_signal = end_signal
        self._reached: set[str] = set()
        self._changed = asyncio.Event()
        self.ended = False
        self._task = asyncio.create_task(self._listen(), name="sandbox-supervision")

    @classmethod
    async def open(cls, folder: Path, end_signal: int) -> Supervision:
        """Watch the sandbox in ``folder``. ``OSError`` when it has ended."""
        return cls(await Control.open(str(folder / "control"), {"op": "watch"}), folder, end_signal)

    async def _listen(self) -> None:
        try:
            while (frame := await self._control.receive()) is not None:
                if isinstance(event := frame.get("event"), str) and event in EVENTS:
                    self._reached.add(event)
                self._changed.set()
        finally:
            self.ended = True
            self._changed.set()

    async def reached(self, event: str) -> None:
        """Wait for ``event``. :class:`DesktopUnavailable` when the sandbox ends before."""
        while event not in self._reached:
            if self.ended:
                raise DesktopUnavailable("The desktop ended while it started.")
            self._changed.clear()
            await self._changed.wait()

    def kill(self) -> None:
        """End every process of the sandbox at once."""
        if not self.ended:
            with suppress(ProcessLookupError):
                os.kill(self._control.pid, self._end_signal)

    async def close(self) -> None:
        """Stop watching; the sandbox lives on."""
        self._task.cancel()
        await asyncio.wait([self._task])
        self._control.close()

    async def end(self) -> None:
        """Kill every process of the sandbox, stop watching, and remove its folder."""
        self.kill()
        await asyncio.wait([self._task], timeout=_END_TIMEOUT)
        await self.close()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)


_END_TIMEOUT = 5.0
USERS = range(61184, 65520)
"""Where a server that is root takes a user for each sandbox from: none of these has a name or files."""
_LONGEST_SOCKET_PATH = 107


async def end_sandbox(folder: Path, end_signal: int) -> None:
    """End a sandbox that may have ended already, or never began, and remove its folder."""
    try:
        supervision = await Supervision.open(folder, end_signal)
    except OSError:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    else:
        await supervision.end()


def make_folder(folder: Path, user: int | None) -> None:
    """Make it, with the one in it that the X server's socket will be in, for ``user`` (``None``: this one)."""
    for path in (folder, folder / "run"):
        path.mkdir(mode=0o700)
        if user is not None:
            os.chown(path, user, user)


def is_ours(folder: Path) -> bool:
    """Whether a folder of the shared temporary directory was made by this user."""
    try:
        owner = folder.lstat().st_uid
    except OSError:
        return False
    return owner == os.geteuid() or (os.geteuid() == 0 and owner in USERS)


def parent_folder(prefix: str) -> Path:
    """The temporary directory, or /tmp where socket paths would not fit or another user could not enter."""
    folder = Path(tempfile.gettempdir())
    longest = len(os.fsencode(f"{folder}/{prefix}12345678/control"))
    closed = os.geteuid() == 0 and any(not path.stat().st_mode & 0o001 for path in (folder, *folder.parents))
    return Path("/tmp") if longest > _LONGEST_SOCKET_PATH or closed else folder
