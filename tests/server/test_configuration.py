"""Flags > environment > Jupyter's files > defaults, the same for the server, ``doctor``, ``image`` and ``runs``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cambio_lab.agent.client import load_sdk
from cambio_lab.cli import main
from cambio_lab.errors import ConfigurationError
from cambio_lab.settings import resolve
from tests.live_server import LiveServer, free_port
from tests.messages_api import MessagesApi

Start = Callable[..., Any]


class Unconfigured(LiveServer):
    """``cambio-lab serve`` with nothing but what the test gives on the command line."""

    def _command_line(self) -> list[str]:
        self.environment["JUPYTER_TOKEN"] = self.token
        return [sys.executable, "-m", "cambio_lab.cli", "serve", *self.arguments]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    servers: list[LiveServer] = []

    async def start(config: str, *arguments: str, **options: Any) -> LiveServer:
        server = Unconfigured(*arguments, data_dir=tmp_path / f"data-{len(servers)}", **options)
        folder = server.data_dir / "config"
        folder.mkdir(parents=True)
        (folder / "jupyter_server_config.py").write_text(config)
        servers.append(server)
        await server.start()
        return server

    yield start
    for server in servers:
        await server.stop()


async def test_serve_keeps_what_jupyters_configuration_says(serve: Start) -> None:
    port = free_port()
    config = (
        f"c.ServerApp.port = {port}\nc.ServerApp.base_url = '/lab/'\nc.ServerApp.ip = 'localhost'\n"
        "c.ServerApp.local_hostnames = ['localhost', 'agents.example']\nc.CambioLab.desktop = 'local'\n"
    )
    server: LiveServer = await serve(config, port=port, base_url="/lab/")
    async with server.client() as client:
        assert (await client.get("/sessions")).status_code == 200
        assert (await client.get("/sessions", headers={"Host": "agents.example"})).status_code == 200
        assert (await client.get("/sessions", headers={"Host": "evil.example"})).status_code == 403
        assert (await client.get("/cambio/defaults")).json()["desktop"] == "local"


async def test_flags_are_stronger_than_jupyters_configuration(serve: Start) -> None:
    port = free_port()
    config = "c.ServerApp.port = 1\nc.ServerApp.base_url = '/no/'\nc.ServerApp.ip = '0.0.0.0'\n"
    flags = (f"--port={port}", "--base-url=/yes/", "--no-token", "--name=agents.example", "--desktop=local")
    server: LiveServer = await serve(config, *flags, port=port, base_url="/yes/")
    async with server.client() as client:
        assert (await client.get("/sessions")).status_code == 200
        assert (await client.get("/sessions", headers={"Host": "agents.example"})).status_code == 200
    assert "127.0.0.1" in server.log() and "0.0.0.0" not in server.log()  # no token, so this machine only


async def test_a_flag_is_stronger_than_the_environment_and_that_than_files(serve: Start) -> None:
    port = free_port()
    env = {"CAMBIO_LAB_MAX_STEPS": "22", "CAMBIO_LAB_EFFORT": "low"}
    config = "c.CambioLab.max_steps = 11\nc.CambioLab.effort = 'high'\nc.CambioLab.max_desktops = 5"
    flags = (f"--port={port}", "--CambioLab.max_steps=33", "--desktop=local")
    server: LiveServer = await serve(config, *flags, port=port, env=env)
    async with server.client() as client:
        found = (await client.get("/cambio/defaults")).json()
    assert (found["max_steps"], found["effort"], found["max_desktops"]) == (33, "low", 5)


@pytest.fixture
def jupyter_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration file of Jupyter Server that this process reads."""
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("CAMBIO_LAB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CAMBIO_LAB_DESKTOP", "local")
    return tmp_path / "jupyter_server_config.py"


def test_one_order_for_every_command(jupyter_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jupyter_file.write_text("c.CambioLab.max_steps = 11\nc.CambioLab.max_cost_usd = 1\nc.CambioLab.pool_size = 7")
    monkeypatch.setenv("CAMBIO_LAB_MAX_STEPS", "22")
    monkeypatch.setenv("CAMBIO_LAB_POOL_SIZE", "8")
    found = resolve({"pool_size": 9})
    assert (found.max_steps, found.max_cost_usd, found.pool_size, found.max_desktops) == (22, 1.0, 9, 32)
    jupyter_file.write_text("c.CambioLab.max_steps = 'many'")
    monkeypatch.delenv("CAMBIO_LAB_MAX_STEPS")
    with pytest.raises(ConfigurationError, match=r"c\.CambioLab\.max_steps is 'many'"):
        resolve()


def test_the_doctor_reads_the_file_and_makes_one_request(
    jupyter_file: Path,
    messages_api: MessagesApi,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in messages_api.environment.items():
        monkeypatch.setenv(name, value)
    jupyter_file.write_text("c.CambioLab.model = 'claude-haiku-5-5'\nc.CambioLab.redis_url = 'redis://127.0.0.1:1/0'")

    def line(*flags: str) -> str:
        main(["doctor", *flags])
        said = capsys.readouterr().out
        assert "does not answer" in said  # the Redis of the file
        return next(text for text in said.splitlines() if "model service" in text)

    assert line().startswith("[ok]  model service")
    assert [body["model"] for body in messages_api.bodies] == ["claude-haiku-5-5"]
    assert "not needed" in line("--CambioLab.model=demo")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-wrong")
    refused = line()
    assert refused.startswith("[fix]") and "401" in refused and "sk-wrong" not in refused
    monkeypatch.setenv("ANTHROPIC_BASE_URL", f"http://127.0.0.1:{free_port()}")
    assert line().startswith("[fix]")


def test_a_wrong_flag_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--CambioLab.max_steps=many", "--CambioLab.nonsense=1", "--CambioLab.model"):
        with pytest.raises(SystemExit):
            main(["doctor", flag])
        assert flag.partition("=")[0] in capsys.readouterr().err


def test_the_sdk_loads_for_a_second_server_of_one_process() -> None:
    asyncio.run(load_sdk())
    asyncio.run(load_sdk())


async def test_a_temporary_folder_of_80_characters_has_a_desktop(start_server: Start, tmp_path: Path) -> None:
    folder = Path("/tmp") / ("t" * 75)
    folder.mkdir(exist_ok=True)
    server: LiveServer = await start_server(env={"TMPDIR": str(folder)})
    async with server.client() as client:
        created = await client.post("/sessions", json={})
        assert created.status_code == 200, created.text
        screenshot = await client.get(f"/sessions/{created.json()['id']}/screenshot")
        assert screenshot.headers["content-type"] == "image/png"


async def test_a_creation_names_every_wrong_field_and_how_it_must_look(start_server: Start) -> None:
    server: LiveServer = await start_server()
    async with server.client() as client:
        body = {"name": 7, "config": {"display": "big", "timeout": 0, "colour": "red"}}
        answer = (await client.post("/sessions", json=body)).json()
        assert set(answer["details"]) == {"name", "config.display", "config.timeout", "config.colour"}
        small: httpx2.Response = await client.post("/sessions", json={"config": {"display": "big"}})
        assert "1280x800" in small.json()["message"]
