"""``sandbox="cambio"`` in an Inspect task: a desktop of the running server, with a viewer, for each sample.

Configure it as in ``SandboxEnvironmentSpec("cambio", SandboxConfig(network="none"))``.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Mapping
from typing import Any, Literal, overload

from inspect_ai.util import (
    ExecResult,
    OutputLimitExceededError,
    SandboxConnection,
    SandboxEnvironment,
    SandboxEnvironmentLimits,
    SandboxUnavailableError,
    SandboxUserUnsupportedError,
    sandboxenv,
)
from pydantic import BaseModel, ConfigDict

from ..client.files import Ran
from ..client.session import Session
from ..client.workbench import Workbench
from ..errors import DesktopError, InvalidRequest, ServerUnreachable, SessionConflict, SessionEnded, SessionNotFound

LONGEST_SECONDS = 3600.0
MOST_STDIN = 1_000_000
"""Bytes sent with a command; more goes through a file."""
FOLDER, MISSING, FORBIDDEN, TOO_LARGE = 21, 22, 23, 24
_REFUSED = {FOLDER: errno.EISDIR, MISSING: errno.ENOENT, FORBIDDEN: errno.EACCES}
WRITE = f"""
[ -d "$2" ] && exit {FOLDER}
[ -e "$2" ] && [ ! -w "$2" ] && exit {FORBIDDEN}
mkdir -p -- "$(dirname -- "$2")" && cat -- "$1" > "$2" || exit {FORBIDDEN}
"""
READ = f"""
[ -d "$1" ] && exit {FOLDER}
[ -e "$1" ] || exit {MISSING}
[ -r "$1" ] || exit {FORBIDDEN}
[ "$(stat -Lc %s -- "$1")" -gt "$3" ] && exit {TOO_LARGE}
cat -- "$1" > "$2"
"""
GONE = (DesktopError, ServerUnreachable, SessionConflict, SessionEnded, SessionNotFound)


class SandboxConfig(BaseModel):
    """Options of the session that is the sandbox, as ``create_session`` has them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    desktop: str | None = None
    image: str | None = None
    network: str | dict[str, list[str]] | None = None
    display: str | None = None
    system: str | None = None
    approval: str | list[str] | None = None
    effort: str | None = None
    max_steps: int | None = None
    max_cost_usd: float | None = None


class DesktopSandbox(SandboxEnvironment):
    """Inspect's contract over a desktop. Commands run as the desktop's user; no desktop gives root."""

    @classmethod
    async def sample_cleanup(
        cls,
        task_name: str,
        config: BaseModel | str | None,
        environments: dict[str, SandboxEnvironment],
        interrupted: bool,
    ) -> None:
        for environment in environments.values():
            await environment.as_type(DesktopSandbox)._end()

    async def exec(
        self,
        cmd: list[str],
        input: str | bytes | None = None,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: int | None = None,
        timeout_retry: bool = True,
        concurrency: bool = True,
    ) -> ExecResult[str]:
        if user is not None and user != await self._say("id", "-un"):
            raise SandboxUserUnsupportedError(f"A desktop runs nothing as {user!r}, only as its own user.")
        folder, variables = ["-C", cwd] if cwd else [], [f"{name}={value}" for name, value in (env or {}).items()]
        argv = ["/usr/bin/env", *folder, *variables, "/bin/sh", "-c", 'exec "$@"', "sh", *cmd]
        stdin = input.encode() if isinstance(input, str) else input or b""
        if len(stdin) <= MOST_STDIN:
            ran = await self._run(argv, stdin, timeout)
        else:
            path = f"{await self._say('pwd')}/{await self._put(stdin)}"
            ran = await self._run(["/bin/sh", "-c", 'f=$1; shift; exec "$@" < "$f"', "sh", path, *argv], b"", timeout)
            await self._run(["rm", "-f", "--", path])
        if ran.exit_code is None:
            raise TimeoutError(f"The command took longer than {timeout} seconds.")
        out, err = ran.stdout.decode(errors="replace"), ran.stderr.decode(errors="replace")
        if ran.exit_code == 126 and "ermission denied" in err:
            raise PermissionError(err.strip())
        if ran.truncated:
            raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE_STR, out)
        return ExecResult(ran.exit_code == 0, ran.exit_code, out, err)

    async def write_file(self, file: str, contents: str | bytes) -> None:
        name = await self._put(contents.encode() if isinstance(contents, str) else contents)
        ran = await self._run(["/bin/sh", "-c", WRITE, "sh", name, file])
        await self._run(["rm", "-f", "--", name])
        _check(ran, file)

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    async def read_file(self, file: str, text: bool = True) -> str | bytes:
        name = unique_name()
        limit = str(SandboxEnvironmentLimits.MAX_READ_FILE_SIZE)
        _check(await self._run(["/bin/sh", "-c", READ, "sh", file, name, limit]), file)
        data = await self._get(name)
        await self._run(["rm", "-f", "--", name])
        return data.decode() if text else data

    def default_polling_interval(self) -> float:
        return 0.2

    async def _run(self, argv: list[str], stdin: bytes = b"", timeout: float | None = None) -> Ran:
        """Run a program; ``exit_code`` is ``None`` after ``timeout`` seconds."""
        raise NotImplementedError

    async def _put(self, data: bytes) -> str:
        """Write a new file in the home; return its name."""
        raise NotImplementedError

    async def _get(self, name: str) -> bytes:
        """Read a file in the home."""
        raise NotImplementedError

    async def _end(self) -> None:
        """The sample is over."""

    async def _say(self, *argv: str) -> str:
        return (await self._run([*argv])).stdout.decode().strip()


@sandboxenv(name="cambio")
class CambioSandbox(DesktopSandbox):
    """One session of the running server."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    @classmethod
    async def sample_init(
        cls, task_name: str, config: BaseModel | str | None, metadata: dict[str, str]
    ) -> dict[str, SandboxEnvironment]:
        options: Mapping[str, Any] = config.model_dump(exclude_none=True) if isinstance(config, BaseModel) else {}
        return {"default": cls(await Workbench().create_session(task_name[:200], **options))}

    async def _end(self) -> None:
        await self.session.end()
        await self.session.lab.aclose()

    @classmethod
    def config_deserialize(cls, config: dict[str, Any]) -> BaseModel:
        return SandboxConfig(**config)

    async def connection(self, *, user: str | None = None) -> SandboxConnection:
        """A shell where the desktop is a container, else where to watch it."""
        container = (await self.session.refresh()).get("container_id")
        if not container:
            return SandboxConnection(type="cambio", command=f"echo 'Watch it: {self.session.vnc_url}'")
        command = f"docker exec -it -u 1000:1000 {container} bash -l"
        return SandboxConnection(type="cambio", command=command, container=container)

    async def _run(self, argv: list[str], stdin: bytes = b"", timeout: float | None = None) -> Ran:
        try:
            seconds = LONGEST_SECONDS if timeout is None else min(float(timeout), LONGEST_SECONDS)
            return await self.session.programs.run(argv, stdin=stdin, timeout=seconds)
        except GONE as error:
            raise SandboxUnavailableError(error.describe()) from error

    async def _put(self, data: bytes) -> str:
        return await self.session.files.put(data, unique_name(), show=False)

    async def _get(self, name: str) -> bytes:
        data = await self.session.files.get(name, show=False)
        assert isinstance(data, bytes)
        return data


def unique_name() -> str:
    return f".inspect-{uuid.uuid4().hex}"


def _check(ran: Ran, file: str) -> None:
    """Raise what the contract says for what :data:`WRITE` and :data:`READ` found."""
    if ran.exit_code == TOO_LARGE:
        raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, None)
    if number := _REFUSED.get(ran.exit_code or 0):
        raise OSError(number, os.strerror(number), file)  # the subclass for this number
    if ran.exit_code != 0:
        raise InvalidRequest(f"{file}: {ran.stderr.decode(errors='replace').strip()}")
