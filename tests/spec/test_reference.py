"""Walks the API reference itself: each endpoint, example, code and type is in routes, descriptions and answers."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import jsonschema
import pytest
import pytest_asyncio
import yaml

from cambio_lab.api import NAMES, messages, socket
from cambio_lab.api.routes import ROUTES
from tests.live_server import LiveServer

pytestmark = pytest.mark.asyncio(loop_scope="module")
HERE = Path(__file__).resolve().parent
REFERENCE = (HERE / "api-reference.md").read_text()
API = Path(messages.__file__).parent
OPENAPI = yaml.safe_load((API / "openapi.yaml").read_text())
ASYNCAPI = yaml.safe_load((API / "asyncapi.yaml").read_text())
ENDPOINTS = re.findall(r"\*\*Endpoint\*\*: `(GET|POST|DELETE) ([^`]+)`", REFERENCE)
SOCKETS = re.findall(r"\*\*Endpoint\*\*: `ws://localhost:8000([^`]+)`", REFERENCE)
CODES = re.findall(r"^\| (\d{3}) \| ([^|]+) \|$", REFERENCE, re.M)
TYPES = re.findall(r"^\d\. \*\*(\w+)\*\*: ", REFERENCE, re.M)
CURLS = re.findall(r"```bash\n(curl .*?)```", REFERENCE, re.S)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveServer]:
    """The reference's clients send no token and talk to port 8000: so does this one."""
    found = LiveServer("--no-token", data_dir=tmp_path_factory.mktemp("reference"))
    await found.start()
    yield found
    await found.stop()


def block(after: str, start: str = "**Response**") -> Any:
    """The JSON example that follows a heading."""
    part = REFERENCE[REFERENCE.index(after) :]
    found = re.search(r"```json\n(.*?)```", part[part.index(start) :], re.S)
    assert found is not None
    return json.loads(found[1].replace("[...]", "[]"))


async def test_the_reference_was_read() -> None:
    assert (len(ENDPOINTS), len(SOCKETS), len(CODES), len(TYPES), len(CURLS)) == (8, 2, 11, 5, 5)


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
async def test_each_endpoint_is_described_and_routed(server: LiveServer, method: str, path: str) -> None:
    assert method.lower() in OPENAPI["paths"][path]
    if path != "/metrics":  # Jupyter Server's own
        handler = next(handler for template, _, handler in ROUTES if template == path)
        assert method in handler.methods
    async with server.client() as client:
        for address in (path, path + "/"):
            response = await client.request(method, address.replace("{session_id}", "nobody"), json={})
            assert response.status_code != 405 and (response.status_code != 404 or "{" in path), response.text


@pytest.mark.parametrize("path", SOCKETS)
async def test_each_socket_is_described_and_routed(path: str) -> None:
    assert path in [channel["address"] for channel in ASYNCAPI["channels"].values()]
    assert path in [template for template, _, _ in ROUTES]


@pytest.mark.parametrize("kind", TYPES)
async def test_each_message_type_is_described(kind: str) -> None:
    assert ASYNCAPI["components"]["messages"][kind]["payload"]["properties"]["type"] == {"const": kind}


async def test_every_message_we_know_is_described() -> None:
    described = ASYNCAPI["components"]["messages"]
    assert set(socket.COMMANDS) == {*described["command"]["payload"]["properties"]["type"]["enum"],
                                          "offer_tools", "tool_result"}  # fmt: skip


@pytest.mark.parametrize(("code", "meaning"), CODES)
async def test_each_code_means_what_the_table_says(code: str, meaning: str) -> None:
    if code == "201":
        return  # the documented clients require 200 for a creation: see docs/api.md
    if code == "200":
        assert all("200" in operation["responses"] for item in OPENAPI["paths"].values()
                   for name, operation in item.items() if name != "parameters")  # fmt: skip
        return
    assert NAMES[int(code)] == meaning.strip()


async def test_each_route_is_described() -> None:
    described = {*OPENAPI["paths"], *(channel["address"] for channel in ASYNCAPI["channels"].values())}
    about_itself = {
        "/mcp",
        "/cambio/{name}.yaml",
        "/cambio/docs",
        "/cambio/run/{session_id}",
        "/cambio/static/{path}",
        "unknown",
    }
    for template, _, handler in ROUTES:
        if template in about_itself or template.startswith(("/ws", "/vnc")):
            continue
        methods = {name.upper() for name in OPENAPI["paths"][template] if name != "parameters"}
        assert methods == set(handler.methods) - {"HEAD"}, template
    assert described - {template for template, _, _ in ROUTES} == {"/metrics"}


def fields(example: Any) -> set[str]:
    return set(example)


async def test_a_session_from_creation_to_end(server: LiveServer) -> None:
    """Every example request of the REST part, in order, gets the example's fields."""
    async with server.client() as client:
        asked = block("#### Create Session", "**Request Body**")
        created = await client.post("/sessions", json=asked)
        assert created.status_code == 200
        session = created.json()
        assert fields(block("#### Create Session")) <= fields(session)
        session_id = session["id"]
        assert session["status"] == "active"
        assert session["vnc_url"] == f"/vnc/{session_id}" and session["websocket_url"] == f"/ws/{session_id}"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", session["created_at"])

        details = (await client.get(f"/sessions/{session_id}")).json()
        assert fields(block("#### Get Session Details")) <= fields(details)

        listed = (await client.get("/sessions", params={"status": "active", "limit": 10})).json()
        example = block("#### List Sessions")
        assert fields(example) <= fields(listed) and fields(example["sessions"][0]) <= fields(listed["sessions"][0])
        paged = block("## Pagination", "```json")
        assert fields(paged) <= fields(listed) and fields(paged["pagination"]) == fields(listed["pagination"])
        assert listed["data"] == listed["sessions"]

        await chat(server, session_id)

        history = (await client.get(f"/sessions/{session_id}/history?limit=20")).json()
        example = block("#### Get Chat History")
        assert fields(example) <= fields(history) and history["total"] == 2
        for given, shown in zip(history["messages"], example["messages"], strict=True):
            assert fields(shown) <= fields(given) and given["role"] == shown["role"]
        assert history["messages"][1]["metadata"]["tool_calls"]

        cleared = (await client.delete(f"/sessions/{session_id}/history")).json()
        example = block("#### Clear Chat History")
        assert fields(cleared) == fields(example) and cleared["message"] == example["message"]
        assert cleared["cleared_messages"] == 2

        ended = (await client.delete(f"/sessions/{session_id}")).json()
        example = block("#### End Session")
        assert fields(ended) == fields(example) and ended["message"] == example["message"]


async def chat(server: LiveServer, session_id: str) -> None:
    """The WebSocket part: the example message, and the documented types with the documented fields."""
    sent = block("#### Message Format", "**Outgoing Message**")
    examples = {
        "agent_response": block("#### Message Format", "**Incoming Message**"),
        "tool_execution": block("#### Message Types", "**Tool Execution Message**"),
        "error": block("#### Message Types", "**Error Message**"),
    }
    seen: dict[str, dict[str, Any]] = {}
    async with aiohttp.ClientSession() as client, client.ws_connect(f"{server.ws_url}/ws/{session_id}") as socket:
        await socket.send_json({"type": "dance"})
        await socket.send_json(sent)
        async with asyncio.timeout(60):
            while "agent_response" not in seen:
                message = json.loads((await socket.receive()).data)
                assert message["type"] in TYPES
                payload = ASYNCAPI["components"]["messages"][message["type"]]["payload"]
                jsonschema.validate(message, {**payload, "components": ASYNCAPI["components"]})
                if message["type"] != "tool_execution" or message["status"] == "completed":
                    seen[message["type"]] = message
    for kind, example in examples.items():
        assert fields(example) <= fields(seen[kind]), kind
    assert fields(examples["tool_execution"]["result"]) <= fields(seen["tool_execution"]["result"])
    assert fields(examples["agent_response"]["metadata"]) <= fields(seen["agent_response"]["metadata"])
    assert isinstance(seen["error"]["details"], str)


@pytest.mark.parametrize("command", CURLS)
async def test_each_curl_line_works_as_it_stands(server: LiveServer, command: str) -> None:
    """Only the port and the example's session id are put in their places."""
    async with server.client() as client:
        session_id = (await client.post("/sessions", json={})).json()["id"]
    command = command.replace("localhost:8000", f"localhost:{server.port}").replace("\\\n", " ")
    command = command.replace("550e8400-e29b-41d4-a716-446655440000", session_id)
    process = await asyncio.create_subprocess_exec(
        *shlex.split(command), "--silent", "--fail-with-body", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output
    assert json.loads(output)


async def test_errors_filters_sorting_health_and_metrics(server: LiveServer) -> None:
    async with server.client() as client:
        envelope = block("### Error Response Format", "```json")
        missing = await client.get("/sessions/550e8400-e29b-41d4-a716-446655440000")
        assert missing.status_code == 404 and fields(missing.json()) == fields(envelope)
        for line in re.findall(r"^GET (/sessions\S*)$", REFERENCE[REFERENCE.index("## Filtering") :], re.M):
            if "{id}" not in line:
                assert (await client.get(line)).status_code == 200, line
        health = (await client.get("/health")).json()
        example = block("#### Health Check")
        assert fields(example) == fields(health) and fields(example["services"]) <= fields(health["services"])
        text = (await client.get("/metrics")).text
        for line in re.findall(r"^(?:# \w+ )?http_requests_total.*", REFERENCE, re.M):
            wanted = re.sub(r"\} \d+$", "}", line)
            labels = re.findall(r'(\w+="[^"]+")', wanted)
            lines = [found for found in text.splitlines() if "http_requests_total" in found]
            assert any(all(label in found for label in labels) for found in lines)


async def test_the_examples_of_sessions_fit_the_description() -> None:
    """What the reference shows must be valid against the schemas that we serve."""
    components = {"components": OPENAPI["components"]}
    for heading, schema in (("#### Get Chat History", "Message"), ("#### List Sessions", "SessionSummary")):
        example = block(heading)
        for item in example.get("messages", example.get("sessions")):
            jsonschema.validate(item, {**components, "$ref": f"#/components/schemas/{schema}"})
    for example, schema in (
        (block("#### Create Session", "**Request Body**"), "NewSession"),
        (block("#### Health Check"), "Health"),
        (block("### Error Response Format", "```json"), "Error"),
    ):
        jsonschema.validate(example, {**components, "$ref": f"#/components/schemas/{schema}"})


async def test_served_descriptions_name_the_base_url(server: LiveServer) -> None:
    async with httpx2.AsyncClient(base_url=server.url) as client:
        for name in ("openapi", "asyncapi"):
            response = await client.get(f"/cambio/{name}.yaml")
            assert response.headers["content-type"].startswith("application/yaml")
            assert yaml.safe_load(response.text)["info"]["title"] == "cambio_lab"
        page = await client.get("/cambio/docs")
        assert page.status_code == 200 and "createSession" in page.text
        assert not re.search(r'(?:src|href)="(?:https?:)?//', page.text)
