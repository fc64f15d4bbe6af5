"""Secrets are seeded everywhere they may come in and looked for everywhere they must not come out."""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cambio_lab.agent.extras import ExtraResult
from cambio_lab.desktop.machine import CommandResult
from cambio_lab.errors import ActionError, InvalidRequest
from cambio_lab.recording.placeholders import Mask
from cambio_lab.sessions.agent import SecretDesktop, SecretTools
from cambio_lab.sessions.config import SessionConfig
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
    """As it is, as JSON would write it, and a file of it alone as a record would keep it."""
    data = secret.encode()
    kept = [base64.b64encode(data), hashlib.sha256(data).hexdigest().encode()]
    return [data, json.dumps(secret)[1:-1].encode(), *kept]


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


GIVEN = {
    name: f"SEEDED-{name.lower()}-hunter2-ä" for name in ("FILE", "SYSTEM", "META", "KEY", "NAME", "CLIP", "UPLOAD")
}
"""One for each way in."""


async def test_no_way_in_is_a_way_out(
    start_server: Callable[..., Any], messages_api: MessagesApi, tmp_path: Path
) -> None:
    """Files read by the editor, the system text, metadata, names, the clipboard and files that people put there."""
    messages_api.policy = Script(
        [
            reply("I write it.", tool("bash", command="cd; echo {{FILE}} > typed.txt")),
            reply("In the editor, too.", editor("create", path="made.txt", file_text="is {{FILE}}.")),
            reply("I read it.", editor("view", path="typed.txt"), tool("bash", command="cat made.txt")),
            reply("And change it.", editor("str_replace", path="typed.txt", old_str="{{FILE}}", new_str="{{FILE}}!")),
        ]
    )
    server = await start_server(
        desktop="local", model="claude-sonnet-5-5", env=messages_api.environment, data_dir=tmp_path / "data"
    )
    said: dict[str, str] = {}
    async with server.client() as client:
        config = {"secrets": GIVEN, "system": f"Log in with {GIVEN['SYSTEM']}."}
        made = await client.post("/sessions", json={"name": f"First {GIVEN['NAME']}", "config": config}, timeout=60)
        session = made.json()
        assert session["name"] == "First {{NAME}}"
        said["created"], at = json.dumps(session), f"/sessions/{session['id']}"
        assert (await client.put(f"{at}/clipboard", json={"text": GIVEN["CLIP"]})).status_code == 200
        assert (await client.put(f"{at}/files/put.txt", content=GIVEN["UPLOAD"].encode())).status_code == 200
        said["renamed"] = (await client.patch(at, json={"name": f"With {GIVEN['NAME']}"})).text
        async with observing(server, session["id"], stream=True) as observer:
            metadata = {"deep": [{GIVEN["KEY"]: GIVEN["META"]}]}
            await observer.send({"content": "Look.", "metadata": metadata})
            await observer.turn_end()
            said["socket"] = json.dumps([observer.first, *observer.seen])
        files = {name: await client.get(f"{at}/files/{name}.txt") for name in ("put", "typed", "made")}
        clipboard = (await client.get(f"{at}/clipboard")).json()
        (tmp_path / "data" / "run.cambio").write_bytes((await client.get(f"{at}/run")).content)
        for path in (at, f"{at}/history", f"{at}/steps", "/sessions", "/health", "/metrics"):
            said[path] = (await client.get(path)).text
        await client.delete(at)
    await server.stop()

    assert {name: answer.text for name, answer in files.items()} == {
        "put": GIVEN["UPLOAD"],
        "typed": GIVEN["FILE"] + "!\n",
        "made": f"is {GIVEN['FILE']}.",
    }, "people get the true bytes"
    assert clipboard == {"text": GIVEN["CLIP"]}
    said["model"] = json.dumps(messages_api.bodies)
    assert "Log in with {{SYSTEM}}." in said["model"]
    assert "1\\t{{FILE}}" in said["model"] and "is {{FILE}}." in said["model"]
    assert '"{{KEY}}": "{{META}}"' in json.dumps(json.loads(said[f"{at}/history"]))
    assert "With {{NAME}}" in said["renamed"]
    places = [(name, text.encode()) for name, text in said.items()] + list(everything_in(tmp_path / "data"))
    found = {
        f"{name} in {place}"
        for place, data in places
        for name, secret in GIVEN.items()
        if any(spelling in data for spelling in spellings(secret))
    }
    assert found == set()
    record = b"".join(data for place, data in places if place.endswith("(rows)"))
    assert b"{{CLIP}}" in record and base64.b64encode(b"{{UPLOAD}}") in record, "it was recorded"


def editor(command: str, **arguments: str) -> Any:
    return tool("str_replace_based_edit_tool", command=command, **arguments)


@pytest.mark.parametrize("transform", ["fold -w 8", "base64", "rev", "head -c 12"])
async def test_a_value_that_a_program_transformed_is_not_recognised(transform: str) -> None:
    """A limit, as docs/security.md says it: if this fails, the words there can be stronger."""
    desktop = FakeDesktop()
    value = "SEEDED-hunter2-long"
    shown = await output_of("bash", "-c", f"echo {value} | {transform}")
    desktop.command = CommandResult(shown, "", 0)
    agent = SecretDesktop(desktop, {"PIN": value})
    assert (await agent.run_command(f"echo {{{{PIN}}}} | {transform}")).stdout == shown


async def test_the_value_is_typed_and_what_comes_back_is_masked() -> None:
    desktop = FakeDesktop()
    agent = SecretDesktop(desktop, {"PIN": "1234-5678"})
    await agent.type_text("{{PIN}} {{OTHER}} {PIN}")
    await agent.click()
    typed, clicked = desktop.done[-2:]
    assert typed == ("type_text", "1234-5678 {{OTHER}} {PIN}") and clicked[0] == "click"
    lost = SecretDesktop(desktop, ["PIN"])
    with pytest.raises(ActionError, match="restarted"):
        await lost.type_text("{{PIN}}")
    with pytest.raises(ActionError, match="restarted"):
        await lost.write_file("a", b"{{PIN}}")


async def test_files_and_clipboard_have_the_value_and_the_agent_has_the_placeholder() -> None:
    desktop = FakeDesktop()
    agent = SecretDesktop(desktop, {"PIN": "1234-5678"})
    await agent.set_clipboard("{{PIN}}")
    assert desktop.done[-1] == ("set_clipboard", "1234-5678")
    text = b"x" * 995 + b"{{PIN}}" + b"y" * 2000  # the value crosses the boundary of two pieces
    assert await agent.write_file("a", pieces(text)) == len(text) + 2
    assert desktop.files["a"] == text.replace(b"{{PIN}}", b"1234-5678")
    assert b"".join([piece async for piece in agent.read_file("a")]) == text
    await agent.write_file("{{PIN}}.txt", b"")
    assert (await agent.execute(["find", "."]))[1] == f"f {len(text) + 2} a\nf 0 {{{{PIN}}}}.txt\n".encode()


async def test_an_error_does_not_quote_the_value() -> None:
    agent = SecretDesktop(FakeDesktop(), {"PIN": "1234-5678"})
    with pytest.raises(ActionError) as refused:
        await anext(agent.read_file("{{PIN}}.txt"))
    assert refused.value.message == "{{PIN}}.txt does not exist."
    assert refused.value.__cause__ is None and refused.value.__suppress_context__


async def test_output_cut_in_the_middle_of_a_value_ends_with_the_placeholder() -> None:
    desktop = FakeDesktop()
    agent = SecretDesktop(desktop, {"PIN": "päss-5678"})
    desktop.command = CommandResult("it is pä", "päss-5678 p\ufffd", 0, truncated=True)
    result = await agent.run_command("cat")
    assert (result.stdout, result.stderr) == ("it is {{PIN}}", "{{PIN}} {{PIN}}")


async def test_the_function_of_a_client_is_masked() -> None:
    class Lookup:
        timeout = 5.0

        def schemas(self) -> list[dict[str, Any]]:
            return [{"name": "lookup", "description": "Finds 1234-5678.", "input_schema": {"type": "object"}}]

        async def call(self, name: str, arguments: dict[str, Any], *, tool_use_id: str) -> ExtraResult:
            return ExtraResult("It is 1234-5678.")

    tools = SecretTools(Lookup(), Mask({"PIN": "1234-5678", "LOOK": "lookup"}))
    assert tools.schemas() == [
        {"name": "lookup", "description": "Finds {{PIN}}.", "input_schema": {"type": "object"}},
    ]
    assert (await tools.call("lookup", {}, tool_use_id="a")).text == "It is {{PIN}}."


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 3):
        yield data[start : start + 3]


def test_a_config_shows_names_only() -> None:
    config = SessionConfig.parse({"secrets": {"PIN": "1234-5678"}})
    assert config.given() == {"secrets": ["PIN"]}
    assert "1234" not in repr(config)
    assert SessionConfig.parse(config.given()).given() == {"secrets": ["PIN"]}


@pytest.mark.parametrize(
    "secrets",
    [{"A": "x"}, {"1": "long enough"}, {"A B": "long enough"}, {"A": 5}, {"A": "long enough\ud800"}, 5, ["x y"], "A"],
)
def test_odd_secrets_are_refused_without_being_quoted(secrets: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        SessionConfig.parse({"secrets": secrets})
    assert "long enough" not in refused.value.describe() + str(refused.value.details)
