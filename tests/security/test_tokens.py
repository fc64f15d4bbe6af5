"""A token goes only to the origin that it belongs to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from cambio_lab.client.message import NoRedirect
from tests.client.environment import find_server


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"JUPYTER_RUNTIME_DIR": str(tmp_path), "CAMBIO_LAB_URL": "https://a.example/u", "CAMBIO_LAB_TOKEN": "secret"}


@pytest.mark.parametrize(
    "url",
    [
        *("https://b.example", "http://a.example/u", "https://a.example:8443/u", "https://a.example.b.example/u"),
        *("https://a.example/", "https://a.example/other", "https://a.example/u2", "https://a.example/u/../other"),
        "https://a.example/u/%2e%2e/other",
    ],
)
def test_the_token_of_one_server_is_not_sent_to_another(environment: dict[str, str], url: str) -> None:
    assert find_server(url, environment=environment).headers == {}


def test_a_token_without_an_address_is_not_sent_to_an_unknown_server(tmp_path: Path) -> None:
    environment = {"JUPYTER_RUNTIME_DIR": str(tmp_path), "CAMBIO_LAB_TOKEN": "secret"}
    assert find_server("https://b.example", environment=environment).token == ""


@pytest.mark.parametrize("url", ["https://a.example/u", "https://a.example:443/u/named-server", "https://A.example/u/"])
def test_the_token_is_sent_to_its_own_origin(environment: dict[str, str], url: str) -> None:
    assert find_server(url, environment=environment).token == "secret"


def test_a_token_in_the_given_address_wins(environment: dict[str, str]) -> None:
    assert find_server("https://b.example/?token=own", environment=environment).token == "own"


def test_the_token_of_a_hub_stays_with_the_hub(tmp_path: Path) -> None:
    environment = {
        "JUPYTER_RUNTIME_DIR": str(tmp_path),
        "JUPYTERHUB_SERVICE_URL": "http://[::1]:4567/user/ana/",
        "JUPYTERHUB_API_TOKEN": "hub-token",
    }
    assert find_server(environment=environment).url == "http://[::1]:4567/user/ana"
    assert find_server("http://[::1]:4567/user/ana", environment=environment).token == "hub-token"
    assert find_server("https://b.example", environment=environment).token == ""
    other_user = "http://[::1]:4567/user/bob"
    assert find_server(other_user, environment=environment).token == ""
    assert find_server(other_user, environment={**environment, "CAMBIO_LAB_TOKEN": "mine"}).token == ""


async def test_a_redirect_of_the_socket_gets_no_token() -> None:
    asked: list[str] = []

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.close()

    other = await asyncio.start_server(elsewhere, "127.0.0.1", 0)
    target = f"ws://127.0.0.1:{other.sockets[0].getsockname()[1]}/"

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(redirect, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with other, server:
        with pytest.raises(InvalidStatus):
            async with NoRedirect(f"ws://127.0.0.1:{port}/ws", additional_headers={"Authorization": "token secret"}):
                pass
        await asyncio.sleep(0)
    assert asked == []
