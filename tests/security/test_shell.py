"""What programs of the desktop can do to the shell tool and, through it, to the server."""

from __future__ import annotations

import asyncio
import time

import pytest
import pytest_asyncio

from cambio_lab.desktop.connected import ConnectedDesktop
from cambio_lab.desktop.sandbox.provider import SandboxDesktop
from cambio_lab.errors import ActionError
from tests.desktop.conftest import kept  # noqa: F401  (a fixture)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def fresh(kept: ConnectedDesktop) -> None:  # noqa: F811
    await kept.restart_shell()


@pytest.mark.timing
async def test_a_flood_of_output_costs_the_server_nothing(kept: ConnectedDesktop) -> None:  # noqa: F811
    """1.5 GB, with everything of ours that could be in the environment repeated in front of it."""
    worst = 0.0
    running = asyncio.create_task(kept.run_command("env; set; head -c 1500000000 /dev/zero; echo end >&2", timeout=90))
    while not running.done():
        begin = time.perf_counter()
        await asyncio.sleep(0.005)
        worst = max(worst, time.perf_counter() - begin - 0.005)
    result = await running
    assert (result.exit_code, result.truncated, result.stderr) == (0, True, "end\n")
    assert len(result.stdout) <= 1_000_000
    assert worst < 0.25, f"the loop was late by {worst:.3f} s"


FIND_HELPER = (
    "for d in /proc/[0-9]*; do tr '\\0' ' ' < $d/cmdline 2>/dev/null | grep -q 'given one command at a time'"
    ' && echo "${d#/proc/}"; done | head -1'
)


@pytest.mark.parametrize(
    "forged",
    [
        "printf 'o\\377\\377\\377\\377'",
        "printf 'q\\0\\0\\0\\1x'",
        "printf 'd\\0\\0\\0\\2[]'",
        "printf 'd\\0\\0\\0\\12{\"code\":[]'",
        "head -c 40000000 /dev/zero | tr '\\0' o",
        "for i in 1 2 3; do printf 'o\\0\\4\\0\\0'; head -c 262144 /dev/zero; done; printf 'x\\0\\0\\0\\1{'",
    ],
)
async def test_forged_helper_output_costs_the_shell_alone(kept: ConnectedDesktop, forged: str) -> None:  # noqa: F811
    helper = (await kept.run_command(FIND_HELPER)).stdout.strip()
    assert helper.isdigit()
    forge = f"({forged}) > /proc/{helper}/fd/1"
    async with asyncio.timeout(40):
        if isinstance(kept, SandboxDesktop):  # the pipe belongs to the server's user, so there is nothing to forge
            assert "Permission denied" in (await kept.run_command(forge)).stderr
        else:
            with pytest.raises(ActionError, match="the shell is new"):
                await kept.run_command(f"{forge}; sleep 5", timeout=20)
        assert (await kept.run_command("echo next")).stdout == "next\n"


async def test_a_killed_or_frozen_helper_is_replaced(kept: ConnectedDesktop) -> None:  # noqa: F811
    helper = (await kept.run_command(FIND_HELPER)).stdout.strip()
    with pytest.raises(ActionError, match="the shell is new"):
        await kept.run_command(f"kill -9 {helper}; sleep 20", timeout=15)
    helper = (await kept.run_command(FIND_HELPER)).stdout.strip()
    assert (await kept.run_command(f"kill -STOP {helper}; sleep 20", timeout=1)).timed_out
    assert (await kept.run_command("echo next")).stdout == "next\n"


async def test_a_shell_that_died_in_between_runs_nothing(kept: ConnectedDesktop) -> None:  # noqa: F811
    await kept.run_command("(sleep 0.2; kill -9 $$) & disown")
    await asyncio.sleep(1)
    with pytest.raises(ActionError, match="did not run; the shell is new"):
        await kept.run_command("touch ran")
    assert (await kept.run_command("test -e ran || echo 'did not run'")).stdout == "did not run\n"
