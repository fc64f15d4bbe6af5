"""A client that notes everything it was told, so that it can be compared with what a server says later."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import websockets
from websockets.exceptions import InvalidStatus

from tests.live_server import LiveServer

Message = dict[str, Any]


class Observer:
    """Reads one session's socket for as long as the server lives. ``seen`` is every stamped message, in order."""

    def __init__(self, server: LiveServer, session_id: str, *, stream: bool = False) -> None:
        self.server = server
        self.session_id = session_id
        self.stream = stream
        self.seen: list[Message] = []
        self.first: Message = {}
        self.closed = asyncio.Event()
        self._changed = asyncio.Condition()
        self._socket: Any = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, after: int | None = None) -> Observer:
        query = [f"stream={'true' if self.stream else 'false'}", f"token={self.server.token}"]
        query += [f"after={after}"] if after is not None else []
        url = f"{self.server.ws_url}/ws/{self.session_id}?{'&'.join(query)}"
        self._socket = await self._connect(url)
        self.first = json.loads(await self._socket.recv())
        self._task = asyncio.create_task(self._read())
        return self

    async def _connect(self, url: str) -> Any:
        """Connect; after a restart the session may still wait for its desktop (503)."""
        async with asyncio.timeout(30):
            while True:
                try:
                    return await websockets.connect(url, max_size=None, ping_interval=None)
                except InvalidStatus as error:
                    if error.response.status_code != 503:
                        raise
                await asyncio.sleep(0.1)

    async def send(self, body: Message) -> None:
        await self._socket.send(json.dumps(body))

    async def wait_for(self, condition: Callable[[Message], bool], seconds: float = 30.0, *, start: int = 0) -> Message:
        """The first message from index ``start`` on that meets ``condition``."""
        async with asyncio.timeout(seconds), self._changed:
            while True:
                for message in self.seen[start:]:
                    if condition(message):
                        return message
                await self._changed.wait()

    async def turn_end(self, start: int = 0, seconds: float = 60.0) -> Message:
        return await self.wait_for(lambda m: m["type"] in ("agent_response", "error"), seconds, start=start)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(Exception):  # the server may be dead: the socket then has no proper end
            await asyncio.wait_for(self._socket.close(), 2)

    async def _read(self) -> None:
        try:
            async for frame in self._socket:
                message = json.loads(frame)
                if "sequence" in message:
                    async with self._changed:
                        self.seen.append(message)
                        self._changed.notify_all()
        except websockets.ConnectionClosed:
            pass
        finally:
            self.closed.set()


@asynccontextmanager
async def observing(server: LiveServer, session_id: str, **options: Any) -> AsyncIterator[Observer]:
    after = options.pop("after", None)
    observer = await Observer(server, session_id, **options).start(after)
    try:
        yield observer
    finally:
        await observer.close()


async def create(client: httpx2.AsyncClient, **config: Any) -> Message:
    """A session without approvals."""
    answer = await client.post("/sessions", json={"config": {"approval": "never", **config}})
    assert answer.status_code == 200, answer.text
    body: Message = answer.json()
    return body


async def output_of(*command: str, env: dict[str, str] | None = None) -> str:
    """What a program prints; its failure is the test's."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=env)
    out, _ = await process.communicate()
    assert process.returncode == 0, command
    return out.decode()


async def containers_of(server: LiveServer, host: str) -> list[str]:
    """Ids of all containers of this server, running or not."""
    identity = (server.data_dir / "cambio_lab" / "server-id").read_text().strip()
    label = f"label=org.cambio-lab.server={identity}"
    return (await output_of("docker", "-H", host, "ps", "-aq", "--no-trunc", "--filter", label)).split()
