"""A process that imports everything once and then forks: a life of the server's core without its start-up time.

Reads one JSON object a line: arguments of :func:`live`. Each is lived by a child of its own, which tells on standard
output what clients would be told, one JSON object a line. The child is there to be killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import docker  # noqa: F401

import cambio_lab.agent  # noqa: F401
from cambio_lab.desktop.docker import provider  # noqa: F401
from tests.messages_api import MessagesApi
from tests.messages_api.service import Service

from .workbench import Workbench


class Elsewhere(MessagesApi):
    """The stand-in that runs in the test's process."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.service = Service()

    @property
    def base_url(self) -> str:
        return self.address


def say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def live(directory: str, desktop: str, api: str, server_id: str, session_id: str | None, end: bool) -> None:
    """Take up the session (or create one), say everything it says, send a message, work until killed."""
    bench = Workbench(Path(directory), desktop, Elsewhere(api), max_steps=10**6, max_cost_usd=1e9, session_timeout=0)
    bench.server_id = server_id
    registry = await bench.start()
    session = registry.get(session_id) if session_id else await registry.create()
    reader = session.subscribe()
    say(ready=session.id, container=session.desktop.container_id, state=session.state)
    say(sent=await session.send("Make your steps."))
    async for _, text in reader:
        message = json.loads(text)
        say(message=message)
        if end and message["type"] in ("agent_response", "error"):
            break
    await registry.end(session.id)
    await bench.stop()
    say(left=True)


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(live(**json.loads(line)))
            except BaseException as error:
                say(failed=repr(error))
                raise
            finally:
                os._exit(0)
        say(pid=child)
        os.waitpid(child, 0)
        say(gone=child)


if __name__ == "__main__":
    main()
