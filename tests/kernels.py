"""Real IPython kernels in processes of their own, driven as a notebook's server drives them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from jupyter_client.manager import AsyncKernelManager

ROOT = Path(__file__).resolve().parent.parent
OLD = "6.30.1"


def other_ipykernel(directory: Path, version: str = OLD) -> Path:
    """Another ipykernel beside the installed one; everything it needs is there already."""
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--target",
        directory,
        f"ipykernel=={version}",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return directory


class Kernel:
    """``async with Kernel(env) as kernel: await kernel.run("1 + 1")``."""

    def __init__(self, environment: dict[str, str], *, path: Path | None = None) -> None:
        first = [str(path)] if path is not None else []
        search = [*first, str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])]
        self._environment = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(search)}
        self._environment.pop("JPY_PARENT_PID", None)

    async def __aenter__(self) -> Kernel:
        self.manager = AsyncKernelManager(kernel_name="python3")
        await self.manager.start_kernel(env=self._environment)
        self.client = self.manager.client()
        self.client.start_channels()
        await self.client.wait_for_ready(timeout=60)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.stop_channels()
        await self.manager.shutdown_kernel(now=True)

    async def start(self, code: str) -> Execution:
        """Begin to execute; the cell's outputs are collected while it is awaited."""
        return Execution(self, self.client.execute(code))

    async def run(self, code: str, timeout: float = 60) -> Execution:
        """Execute a cell to its end; raises when it fails."""
        execution = await self.start(code)
        await execution.finish(timeout)
        if execution.error is not None:
            raise AssertionError("\n".join(execution.error["traceback"]))
        return execution

    async def interrupt(self) -> float:
        """As the stop button of a notebook does; returns when it was pressed."""
        pressed = time.monotonic()
        await self.manager.interrupt_kernel()
        return pressed


class Execution:
    """One cell's run: ``outputs`` in order, updated ones replaced."""

    def __init__(self, kernel: Kernel, message_id: str) -> None:
        self._kernel = kernel
        self._id = message_id
        self.outputs: list[dict[str, Any]] = []
        self.updates = 0
        self.stream = ""
        self.error: dict[str, Any] | None = None

    async def finish(self, timeout: float = 60) -> float:
        """Until the kernel says that it is idle again; returns when that was."""
        async with asyncio.timeout(timeout):
            while True:
                if await self._take():
                    return time.monotonic()

    async def until(self, words: str, timeout: float = 30) -> None:
        """Until an output contains ``words``."""
        async with asyncio.timeout(timeout):
            while words not in str(self.outputs) + self.stream:
                if await self._take():
                    raise AssertionError(f"the cell ended without {words!r}: {self.outputs} {self.stream} {self.error}")

    async def _take(self) -> bool:
        message = await self._kernel.client.get_iopub_msg(timeout=60)
        content, kind = message["content"], message["msg_type"]
        if kind == "update_display_data":
            self._update(content)
        elif message["parent_header"].get("msg_id") != self._id:
            return False
        elif kind in ("display_data", "execute_result"):
            self.outputs.append({**content, "output_type": kind})
        elif kind == "stream":
            self.stream += content["text"]
        elif kind == "error":
            self.error = content
        return bool(kind == "status" and content["execution_state"] == "idle")

    def _update(self, content: dict[str, Any]) -> None:
        self.updates += 1
        for output in self.outputs:
            if output.get("transient", {}).get("display_id") == content["transient"]["display_id"]:
                output.update(content)
