"""Starts sandboxes, one after another, until it is killed."""

from __future__ import annotations

import asyncio
import sys

from cambio_lab.desktop.provider import DesktopOptions
from cambio_lab.desktop.sandbox.provider import SandboxProvider
from cambio_lab.settings import Settings


async def main(server_id: str) -> None:
    provider = SandboxProvider(Settings(), server_id=server_id)
    while True:
        await provider.acquire("test", DesktopOptions())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
