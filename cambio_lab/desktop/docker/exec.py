"""Programs in a running container: started by the engine, as the desktop's user or as the one that owns Xvnc."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence

from cambio_lab.errors import DesktopLost

from ..machine import MOST_HELPERS, until_managed
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


async def start_exec(
    engine: Engine,
    container: str,
    argv: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    user: str = USER,
) -> ExecProcess:
    """Start ``argv`` as ``user``. Raises :class:`~cambio_lab.errors.DesktopLost` when the container is gone."""
    token = secrets.token_hex(8)
    variables = dict(environment or {}) | {_TOKEN: token}
    folder = variables.get("PWD", HOME if user == USER else "/")
    try:
        created = await engine.call(
            lambda client: client.exec_create(
                container, list(argv), stdin=True, environment=variables, workdir=folder, user=user
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


class ContainerMachine:
    """Programs in a container, by default as the desktop's own user."""

    home = HOME
    roots: Sequence[str] = (HOME, "/tmp")
    python = "python3"
    managed: asyncio.Task[None] | None = None

    def __init__(self, engine: Engine, container: str, user: str = USER) -> None:
        self._engine = engine
        self._container = container
        self._user = user
        self.helpers = asyncio.Semaphore(MOST_HELPERS)
        self.keyed = asyncio.Event()
        self.keyed.set()

    async def spawn(self, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> ExecProcess:
        await until_managed(self)
        return await start_exec(self._engine, self._container, argv, environment, user=self._user)
