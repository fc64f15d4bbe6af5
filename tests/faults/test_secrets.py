"""Secrets are seeded everywhere they may come in and looked for everywhere they must not come out."""

from __future__ import annotations

import json
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cambio_lab.errors import ActionError, InvalidRequest
from cambio_lab.sessions.config import SessionConfig
from cambio_lab.sessions.secrets import SecretDesktop, hide
from tests.agent.fake_desktop import FakeDesktop
from tests.messages_api import MessagesApi
from tests.messages_api.policies import Script
from tests.messages_api.replies import member, reply, tool

from .observer import containers_of, create, observing, output_of

KEY = "sk-ant-api03-SEEDED-KEY-0123456789"
ENVIRONMENT = "SEEDED-AWS-SECRET-abcdef"
TOKEN_PARAMETER = "SEEDED-TOKEN-IN-A-QUERY"
PASSWORD = "SEEDED-hunter2-päss"
SEEDED = [KEY, ENVIRONMENT, TOKEN_PARAMETER, PASSWORD]


def everything_in(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Each file's bytes; of a database also every value of every row, of an archive every member."""
    for path in folder.rglob("*"):
        if not path.is_file() or path.is_symlink():
            continue
        yield str(path), path.read_bytes()
        if path.suffix == ".db":
            yield f"{path} (rows)", rows_of(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    yield f"{path}!{name}", archive.read(name)


def rows_of(path: Path) -> bytes:
    connection = sqlite3.connect(path)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = b"".join(
        value if isinstance(value, bytes) else str(value).encode()
        for table in tables
        for row in connection.execute(f'SELECT * FROM "{table}"')
        for value in row
    )
    connection.close()
    return found


def spellings(secret: str) -> list[bytes]:
    """As it is and as JSON would write it."""
    return [secret.encode(), json.dumps(secret)[1:-1].encode()]


@pytest.mark.docker
async def test_no_secret_comes_out_anywhere(
    start_server: Callable[..., Any], messages_api: MessagesApi, docker_host: str, tmp_path: Path
) -> None:
    messages_api.service.key = KEY
    messages_api.policy = Script(
        [
            reply("I type it.", member("type", text="{{PASSWORD}}\n"), tool("bash", command="echo {{PASSWORD}} | rev")),
            reply("And read it.", tool("bash", command="echo the secret is {{PASSWORD}}; env")),
        ]
    )
    environment = messages_api.environment | {"AWS_SECRET_ACCESS_KEY": ENVIRONMENT, "CAMBIO_LAB_POOL_SIZE": "0"}
    server = await start_server(
        desktop="docker", model="claude-sonnet-5-5", env=environment, data_dir=tmp_path / "data"
    )
    secrets = [*SEEDED, server.token]
    outside: list[str] = []
    async with server.client() as client:
        session = await create(client, secrets={"PASSWORD": PASSWORD})
        outside.append(json.dumps(session))
        async with observing(server, session["id"], stream=True) as observer:
            await observer.send({"content": f"Log in with {PASSWORD}, please."})
            await observer.turn_end()
            outside.append(json.dumps(observer.seen))
        for path in ("", "/history", "/steps"):
            outside.append((await client.get(f"/sessions/{session['id']}{path}")).text)
        bundle = await client.get(f"/sessions/{session['id']}/run")
        (tmp_path / "data" / "run.cambio").write_bytes(bundle.content)
        for path in ("/health", "/metrics", "/sessions", f"/sessions/none?token={TOKEN_PARAMETER}", "/cambio/models"):
            outside.append((await client.get(path)).text)
        outside.append((await client.post("/sessions", json={"config": {"secrets": {"X": "sh"}, "a": PASSWORD}})).text)
        (container,) = await containers_of(server, docker_host)
        outside.append(await output_of("docker", "-H", docker_host, "inspect", container))
        outside.append(await output_of("docker", "-H", docker_host, "exec", container, "env"))
        outside.append(await output_of("docker", "-H", docker_host, "logs", container))
        await client.delete(f"/sessions/{session['id']}")
    await server.stop()

    sent = json.dumps(messages_api.bodies)
    assert "{{PASSWORD}}" in sent, "the model knows the placeholder"
    assert "the secret is {{PASSWORD}}" in sent, "and what it reads is masked"
    places = [(f"answer {number}: {text[:60]}", text.encode()) for number, text in enumerate(outside)]
    places.append(("what the model was sent", sent.encode()))
    places += everything_in(tmp_path / "data" / "cambio_lab")
    places += [(name, data) for name, data in everything_in(tmp_path / "data") if name.endswith((".log", ".cambio"))]
    places += [(name, data) for name, data in everything_in(tmp_path / "data") if ".cambio!" in name]
    assert len(places) > 6
    found = [
        f"{secret[:12]}… in {name}"
        for name, data in places
        for secret in secrets
        for spelling in spellings(secret)
        if spelling in data
    ]
    assert found == []


async def test_the_value_is_typed_and_what_comes_back_is_masked() -> None:
    desktop = FakeDesktop()
    agent: Any = SecretDesktop(desktop, {"PIN": "1234-5678"})
    await agent.type_text("{{PIN}} {{OTHER}} {PIN}")
    assert desktop.done[-1] == ("type_text", "1234-5678 {{OTHER}} {PIN}")
    await agent.click()
    assert desktop.done[-1][0] == "click"
    lost: Any = SecretDesktop(desktop, ["PIN"])
    with pytest.raises(ActionError, match="restarted"):
        await lost.type_text("{{PIN}}")


def test_the_longest_value_is_hidden_first() -> None:
    assert hide("abcdefgh abcd", {"A": "abcd", "B": "abcdefgh"}) == "{{B}} {{A}}"


def test_a_config_shows_names_only() -> None:
    config = SessionConfig.parse({"secrets": {"PIN": "1234-5678"}})
    assert config.given() == {"secrets": ["PIN"]}
    assert "1234" not in repr(config)
    assert SessionConfig.parse(config.given()).given() == {"secrets": ["PIN"]}


@pytest.mark.parametrize(
    "secrets", [{"A": "x"}, {"1": "long enough"}, {"A B": "long enough"}, {"A": 5}, 5, ["x y"], "A"]
)
def test_odd_secrets_are_refused_without_being_quoted(secrets: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        SessionConfig.parse({"secrets": secrets})
    assert "long enough" not in refused.value.describe() + str(refused.value.details)
