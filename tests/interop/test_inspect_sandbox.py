"""Inspect's own checks of a sandbox provider, on a desktop of a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from inspect_ai.util import SandboxEnvironment
from inspect_ai.util._sandbox.self_check import *  # noqa: F403

from cambio_lab.interop.inspect_sandbox import CambioSandbox, SandboxConfig

from ..live_server import LiveServer

NO_ROOT = "test_exec_as_user"
"""Adds a user as root, which no desktop of ours gives."""


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["sandbox", "docker"])
async def environments(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, SandboxEnvironment]]:
    live = LiveServer(data_dir=tmp_path_factory.mktemp("server"), desktop=request.param)
    await live.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAMBIO_LAB_URL", live.url)
        patch.setenv("CAMBIO_LAB_TOKEN", live.token)
        config = SandboxConfig(model="demo")
        made = await CambioSandbox.sample_init("self check", config, {})
        yield made
        await CambioSandbox.sample_cleanup("self check", config, made, False)
    await live.stop()


@pytest.fixture
def sandbox_env(environments: dict[str, SandboxEnvironment], request: pytest.FixtureRequest) -> SandboxEnvironment:
    if request.node.originalname == NO_ROOT:
        request.applymarker(pytest.mark.xfail(reason="no root in a desktop", strict=True))
    return environments["default"]


pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


async def test_connection_tells_how_to_enter(environments: dict[str, SandboxEnvironment]) -> None:
    connection = await environments["default"].connection()
    assert connection.type == "cambio" and connection.command
