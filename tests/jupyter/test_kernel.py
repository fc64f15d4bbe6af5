"""In real kernels, against a real server and desktop: what a cell shows, and what an interrupt does."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest

from ..kernels import OLD, Kernel, other_ipykernel
from ..live_server import LiveServer

SETUP = """
from cambio_lab import Workbench
lab = Workbench()
session = await lab.create_session("Kernel", model="demo", approval="never")
"""
BUSY = "# " + "a rather long message " * 40
LIMIT = 0.5
SLEEP = """
import asyncio
print("sleeps", flush=True)
while True:
    await asyncio.sleep(0.25)
"""


@pytest.fixture(scope="session", params=["installed", OLD])
def ipykernel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """Where ipykernel comes from: the newest is installed, the other one is what many servers still have."""
    return None if request.param == "installed" else other_ipykernel(tmp_path_factory.mktemp("ipykernel"), OLD)


def environment(server: LiveServer) -> dict[str, str]:
    return {"CAMBIO_LAB_URL": server.url, "CAMBIO_LAB_TOKEN": server.token}


async def test_a_cell_shows_the_turn_and_the_desktop(live: LiveServer) -> None:
    async with Kernel(environment(live)) as kernel:
        await kernel.run(SETUP)
        cell = await kernel.run('turn = await session.send("Hello from a cell")')
        page, screenshot = cell.outputs
        assert cell.updates > 3, "the cell did not stream"
        html, plain = page["data"]["text/html"], page["data"]["text/plain"]
        assert "I am the demo model" in html and "Hello from a cell" in html
        assert "type &#x27;# Hello from a cell&#x27;" in html and html.count("<img ") >= 3
        assert "You: Hello from a cell" in plain and "running" not in plain and "<progress" not in html
        assert set(screenshot["data"]) == {"image/png", "text/plain"}
        assert "1280x800" in screenshot["data"]["text/plain"]
        again = await kernel.run("turn")
        assert "<img " in again.outputs[0]["data"]["text/html"]
        silent = await kernel.run('quiet = await session.send("Nothing to see", show=False)\nprint(quiet.text)')
        assert not silent.outputs and "demo model" in silent.stream
        last = await kernel.run('await session.send("As the last value")')
        assert [output["output_type"] for output in last.outputs] == ["display_data", "display_data"], "shown twice"
        await kernel.run("await session.end()")
        outputs = str([cell.outputs, again.outputs, silent.stream, last.outputs])
        assert live.token not in outputs


@pytest.mark.parametrize("send", ["await session.send({0!r})", "%%agent --session Kernel\n{0}"])
async def test_an_interrupt_ends_the_turn(live: LiveServer, ipykernel: Path | None, send: str) -> None:
    async with Kernel(environment(live), path=ipykernel) as kernel:
        version = (await kernel.run("import ipykernel; print(ipykernel.__version__)")).stream.strip()
        assert (version == OLD) == (ipykernel is not None)
        await kernel.run(SETUP + "%load_ext cambio_lab")
        usual = min([await interrupted_sleep(kernel) for _ in range(2)])
        took: list[float] = []
        for _ in range(3):  # the session goes on after an interrupt, and can be interrupted again
            cell = await kernel.start(send.format(BUSY))
            await cell.until("screenshot")
            pressed = await kernel.interrupt()
            ended, idle = await asyncio.gather(cell.finish(20), until_idle(live))
            print(
                f"ipykernel {version}: cell {ended - pressed:.3f} s, turn {idle - pressed:.3f} s, sleep {usual:.3f} s"
            )
            took.append(max(ended, idle) - pressed)
            assert cell.error is not None and cell.error["ename"] in ("TurnCancelled", "TurnInterrupted")
            shown = "".join(cell.error["traceback"])
            assert shown.startswith("The turn was stopped: ") and len(shown.splitlines()) == 1, shown
            assert "stopped" in cell.outputs[0]["data"]["text/plain"]
        # What the kernel itself takes to end a cell that sleeps shows how busy the machine is.
        assert min(took) <= max(LIMIT, 4 * usual), (took, usual)
        after = await kernel.run('print((await session.send("Still there?", show=False)).text)')
        assert "demo model" in after.stream
        await kernel.run("await session.end()")


async def test_a_cell_that_waits_for_approval_says_so_and_shows_the_time(live: LiveServer) -> None:
    async with Kernel(environment(live)) as kernel:
        await kernel.run(SETUP.replace("never", "always"))
        cell = await kernel.start('turn = await session.send("May I?")')
        await cell.until("waiting for approval: ")
        await cell.until("2.", timeout=10)
        assert re.search(r"\(\d steps?, [12]\.\d s, running\)", cell.outputs[0]["data"]["text/plain"])
        await kernel.interrupt()
        await cell.finish(20)


async def test_an_error_shows_the_cells_line_and_no_inner_frames(live: LiveServer) -> None:
    async with Kernel(environment(live)) as kernel:
        await kernel.run("from cambio_lab import Workbench; lab = Workbench()")
        cell = await kernel.start('name = "Odd"\nawait lab.create_session(name, display="big")')
        await cell.finish()
        assert cell.error is not None
        shown = "".join(cell.error["traceback"])
        assert 'line 2: await lab.create_session(name, display="big")' in shown
        assert "display: must be WIDTHxHEIGHT in pixels, such as 1280x800" in shown
        assert len(shown.splitlines()) <= 4, shown


async def interrupted_sleep(kernel: Kernel) -> float:
    """Seconds from an interrupt to the end of a cell that only sleeps, and wakes as often as ours do."""
    cell = await kernel.start(SLEEP)
    await cell.until("sleeps")
    pressed = await kernel.interrupt()
    return await cell.finish(20) - pressed


async def until_idle(server: LiveServer) -> float:
    """When the server says that no session of it works any more."""
    async with asyncio.timeout(10), server.client() as client:
        while (await client.get("/sessions")).json()["sessions"][0]["state"] != "idle":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return time.monotonic()
