"""Selecting a line and clicking the middle button must not run it: the policy `risky` lets both clicks pass."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

import psutil
import pytest

from cambio_lab.desktop import make_provider
from cambio_lab.desktop.base import Point
from cambio_lab.desktop.connected import ConnectedDesktop
from cambio_lab.desktop.provider import DesktopOptions
from cambio_lab.settings import Settings
from tests.desktop.programs import content, launch, wait_for, wait_for_window

Start = Callable[[bool], Awaitable[ConnectedDesktop]]
LINE = Point(60, 32)
"""A place on the first line of a terminal in the upper left corner."""


@pytest.fixture(params=["docker", "local"])
async def start(request: pytest.FixtureRequest) -> AsyncIterator[Start]:
    """Start a desktop with ``primary_paste`` and a terminal in which `sh` shows a line that is a command."""
    if request.param == "docker":
        request.getfixturevalue("docker_host")
    providers = []

    async def begin(allowed: bool) -> ConnectedDesktop:
        settings = Settings(pool_size=0, primary_paste=allowed)
        provider = await make_provider(settings, server_id=f"test-{secrets.token_hex(4)}", kind=request.param)
        providers.append(provider)
        desktop = await provider.acquire("test", DesktopOptions())
        assert isinstance(desktop, ConnectedDesktop)
        shell = "echo 'touch ~/pwned; echo done >~/ran'; exec sh"
        await launch(desktop, "xterm", "-geometry", "80x24+0+0", "-T", "victim", "-e", "sh", "-c", shell)
        await wait_for_window(desktop, "victim")
        return desktop

    yield begin
    for provider in providers:
        await provider.stop()
    # The helpers of a local desktop die with it; asyncio reads their exit codes in threads.
    await asyncio.to_thread(psutil.wait_procs, psutil.Process().children(), 5)
    await asyncio.sleep(0.05)


async def paste(desktop: ConnectedDesktop, how: str) -> bool:
    """Select the line, click the middle button, and return whether the line was run before the next one."""
    await desktop.click("left", LINE, count=3)
    if how == "click":
        await desktop.click("middle", LINE)
    else:
        await desktop.button_down("middle")
        await desktop.button_up("middle")
    await desktop.type_text("\necho next >~/next\n")
    await wait_for(desktop, "next")
    return await content(desktop, "pwned") is not None


@pytest.mark.parametrize("how", ["click", "press"])
async def test_a_middle_click_does_not_run_the_selected_line(start: Start, how: str) -> None:
    assert not await paste(await start(False), how)


async def test_a_middle_click_pastes_where_that_is_allowed(start: Start) -> None:
    assert await paste(await start(True), "click")
