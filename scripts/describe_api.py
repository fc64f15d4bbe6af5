#!/usr/bin/env python
"""Write ``openapi.yaml``, ``asyncapi.yaml``, their page and the front end's types from pydantic models.

``--check`` writes nothing and fails where the committed files differ.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import described_answers as answers
import described_messages as messages
import yaml
from jinja2 import Environment, FileSystemLoader
from markdown_it import MarkdownIt
from markupsafe import Markup
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from cambio_lab.api import schemas as requests
from cambio_lab.api.sessions import SORT_KEYS

ROOT = Path(__file__).resolve().parent.parent
API = ROOT / "cambio_lab" / "api"
Json = dict[str, Any]
LIMITS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
FAILURES = {
    "400": ("BadRequest", "It cannot be parsed: bad JSON, or a bad query value"),
    "401": ("Unauthorized", "No valid token"),
    "403": ("Forbidden", "Not allowed for this user, from this page or under this Host name"),
    "404": ("NotFound", "There is no such thing"),
    "409": ("Conflict", "The session's state forbids it: it is over, or a turn is running"),
    "413": ("TooLarge", "The body is too large"),
    "415": ("NotJson", "The body is not declared as JSON"),
    "422": ("Invalid", "Parsed, but not valid; `details` names each field"),
    "429": ("RateLimited", "Too many requests from this address"),
    "503": ("Unavailable", "No desktop can be had, or the store takes nothing; the message says what to do"),
}
BODY = "400 413 415 422"
"""What a JSON body can fail at."""


def sort(*keys: str) -> Json:
    return {"type": "string", "pattern": f"^({'|'.join(keys)})(:(asc|desc))?$"}


def number(least: int, default: int) -> Json:
    return {"type": "integer", "minimum": least, "default": default}


TIME = {"type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}]}
LARGER = "Larger than 200 is 200."
QUERY: dict[str, Json] = {
    "Format": {"name": "format", "description": "Default: cambio.", "schema": {"type": "string"}},
    "Status": {"name": "status", "schema": {"$ref": "#/components/schemas/SessionStatus"}},
    "Role": {"name": "role", "schema": {"type": "string", "enum": ["user", "assistant"]}},
    "CreatedAfter": {
        "name": "created_after",
        "description": "Exclusive. A date or a time; without a zone UTC.",
        "schema": TIME,
        "example": "2024-01-01",
    },
    "CreatedBefore": {
        "name": "created_before",
        "description": "Exclusive.",
        "schema": TIME,
        "example": "2034-01-01T00:00:00Z",
    },
    "SessionSort": {
        "name": "sort",
        "description": "Keys with directions, separated by commas: `status:asc,created_at:desc`. "
        f"Keys: {', '.join(SORT_KEYS)}; each once.",
        "schema": sort(*SORT_KEYS),
        "examples": {"one": {"value": "created_at:desc"}},
    },
    "MessageSort": {"name": "sort", "schema": sort("created_at", "timestamp")},
    "StepSort": {"name": "sort", "schema": sort("step")},
    "EventsAfter": {
        "name": "after",
        "description": "The sequence of the last event that is known.",
        "schema": number(0, 0),
    },
    "SessionLimit": {"name": "limit", "description": LARGER, "schema": number(1, 50)},
    "MessageLimit": {"name": "limit", "description": LARGER, "schema": number(1, 100)},
    "StepLimit": {"name": "limit", "description": LARGER, "schema": number(1, 200)},
    "Offset": {"name": "offset", "schema": number(0, 0)},
    "Width": {
        "name": "width",
        "description": "Pixels; asks for a small JPEG.",
        "schema": {"type": "integer", "minimum": 16, "maximum": 4096},
    },
}
PARAMETERS: Json = {
    "SessionId": {
        "name": "session_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "format": "uuid"},
    },
    **{name: {"in": "query", **parameter} for name, parameter in QUERY.items()},
}
NAMED = {
    "name": (
        {"type": "string", "pattern": r"^[0-9a-f]{64}\.(png|jpeg|webp)$"},
        "SHA-256 of the screenshot and its kind.",
    ),
    "path": (
        {"type": "string", "minLength": 1},
        "Below the desktop's home, slashes included; one that ends in a slash is a folder. A slash in front, `..` and "
        "null characters are refused with 400.",
    ),
    "id": ({"type": "string", "pattern": "^[0-9a-f]{32}$"}, "Of the experiment."),
    "run": ({"type": "string"}, "The name of the file, as the cell has it."),
}
IMAGES: Json = {kind: {} for kind in ("image/png", "image/jpeg", "image/webp")}
S = "/sessions/{session_id}"
E = "/cambio/experiments/{id}"
EXAMPLE = {"name": "My Agent Session", "config": {"timeout": 3600, "max_messages": 100}}

# (method, path, id, tag, summary, description, parameters, body, 200, its content, failures)
Body = tuple[type[BaseModel] | str, bool] | None
OPERATIONS: list[tuple[str, str, str, str, str, str, str, Body, str, type[BaseModel] | Json, str]] = [
    ("get", "/sessions", "listSessions", "Sessions", "List sessions", "Newest first unless `sort` says otherwise.",
     "Status CreatedAfter CreatedBefore SessionSort SessionLimit Offset", None,
     "A page in both documented forms", answers.SessionPage, "400"),
    ("post", "/sessions", "createSession", "Sessions", "Create a session",
     "Answers when the desktop is usable. Without a body: the server's defaults.", "", (requests.NewSession, False),
     "The new session", answers.Session, BODY),
    ("get", S, "getSession", "Sessions", "Session details", "", "", None,
     "The session, live or ended", answers.Session, "404"),
    ("patch", S, "changeSession", "Sessions", "Change a session", "What is not named stays.", "",
     (requests.SessionChange, True), "The session as it is now", answers.Session, f"{BODY} 404 409"),
    ("delete", S, "endSession", "Sessions", "End a session",
     "Frees its desktop; history and record stay. Never refused by a rate limit.", "", None,
     "It has ended", answers.Ended, "404 409"),
    ("post", S + "/answer", "answerQuestion", "Sessions", "Answer the agent's question",
     "Also hands the desktop back. 409 when no question waits.", "", (requests.AnswerQuestion, True),
     "It is answered", answers.Stopped, f"{BODY} 404 409"),
    ("post", S + "/stop", "stopTurn", "Sessions", "Stop the running turn",
     "Never refused by a rate limit. Without a running turn, nothing happens.", "", (requests.StopTurn, False),
     "The turn ends with an `agent_response` whose `metadata.stopped` is true", answers.Stopped, f"{BODY} 404 409"),
    ("get", S + "/history", "getHistory", "History", "Chat history",
     "In the order of the conversation unless `sort=timestamp:desc`.",
     "Role CreatedAfter CreatedBefore MessageSort MessageLimit Offset", None,
     "A page in both documented forms", answers.MessagePage, "400 404"),
    ("delete", S + "/history", "clearHistory", "History", "Clear the history",
     "The agent forgets the conversation too.", "", None, "It is cleared", answers.Cleared, "404 409"),
    ("get", S + "/events", "getEvents", "History", "What happened",
     "The messages of `/ws/{session_id}` by sequence, without `agent_delta`.", "EventsAfter MessageLimit", None,
     "A page", answers.EventPage, "400 404"),
    ("get", S + "/steps", "getSteps", "History", "Tool calls", "Oldest first unless `sort=step:desc`.",
     "StepSort StepLimit Offset", None, "A page", answers.StepPage, "400 404"),
    ("get", S + "/run", "getRun", "History", "The recorded run",
     "A `.cambio` file, also of a session that still runs; or another format of `/cambio/formats`.",
     "Format", None, "A file", {"application/zip": {}, "application/octet-stream": {}}, "400 404 422"),
    ("delete", S + "/run", "deleteRun", "History", "Delete the record of a session that has ended", "For good.",
     "", None, "It is deleted", answers.Deleted, "404 409"),
    ("get", "/cambio/formats", "listFormats", "System", "What a run can be exported as", "", "", None,
     "The formats", answers.Formats, ""),
    ("put", "/cambio/export", "exportRun", "System", "Export a run file",
     "The body is a `.cambio` file of at most 256 MiB; the answer is the format of `/cambio/formats`.", "Format",
     ("application/octet-stream", True), "A file", {"application/octet-stream": {}}, "400 413 422"),
    ("get", "/cambio/experiments", "listExperiments", "Experiments", "Experiments of this user",
     "Those that kernels and scripts of this machine run or ran, the last twenty.", "", None,
     "Their walls without cells", answers.Walls, ""),
    ("get", E, "getExperiment", "Experiments", "An experiment's cells and desktops", "", "", None,
     "Its wall", answers.WholeWall, "404"),
    ("patch", E, "annotateCell", "Experiments", "Tag a cell, or note something", "", "",
     (requests.CellChange, True), "What is said of it now", answers.CellAnnotations, f"{BODY} 404"),
    ("get", E + "/runs/{run}", "getCellRun", "Experiments", "The run file of a cell", "", "", None,
     "A file", {"application/zip": {}}, "404"),
    ("get", S + "/screenshot", "getScreenshot", "Desktop", "The desktop now",
     "The settled screen; with `width` a small JPEG of this moment.", "Width", None,
     "A screenshot", IMAGES, "304 400 404 409 422"),
    ("get", S + "/screenshots/{name}", "getRecordedScreenshot", "Desktop", "A recorded screenshot", "Never changes.",
     "", None, "A screenshot", IMAGES, "404"),
    ("put", S + "/images", "putImage", "Desktop", "Upload an image for a message",
     "PNG, JPEG, WebP or GIF of at most 20 MiB and 50 million pixels; made as large as the model sees.", "",
     ("application/octet-stream", True), "It is stored", answers.UploadedImage, "404 409 413 422"),
    ("post", S + "/exec", "runProgram", "Desktop", "Run a program on the desktop",
     "As the desktop's user, apart from the agent's shell. What it does is not part of the recorded run.", "",
     (requests.Program, True), "What it left", answers.Ran, f"{BODY} 404 409"),
    ("get", S + "/clipboard", "getClipboard", "Desktop", "Read the desktop's clipboard", "", "", None,
     "Its text", requests.Clipboard, "404 409"),
    ("put", S + "/clipboard", "setClipboard", "Desktop", "Set the desktop's clipboard", "", "",
     (requests.Clipboard, True), "Its text now", requests.Clipboard, f"{BODY} 404 409"),
    ("get", S + "/files/{path}", "getFile", "Desktop", "Read a file or list a folder", "", "", None,
     "The file's content, or a folder's listing as JSON", {"*/*": {}}, "400 404 409 422"),
    ("put", S + "/files/{path}", "putFile", "Desktop", "Write a file",
     "Streamed, all or nothing; folders on the way are created. A path that ends in a slash is refused with 422.", "",
     ("application/octet-stream", False), "It is written", answers.Written, "400 404 409 413 422"),
    ("get", "/cambio/models", "listModels", "System", "Models, platforms and prices", "", "", None,
     "The table", answers.Models, ""),
    ("get", "/cambio/defaults", "getDefaults", "System", "Defaults of a new session", "", "", None,
     "Name: value", {"application/json": {"schema": {"type": "object"}}}, ""),
]  # fmt: skip


def ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def plain(schema: Any) -> Any:
    """Drop pydantic's titles and defaults of null, and write ``string or null`` as JSON Schema's own list of types."""
    if isinstance(schema, list):
        return [plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    names = schema.get("properties")
    found = {key: plain(value) for key, value in schema.items() if key != "title" or not isinstance(value, str)}
    if isinstance(names, dict):
        found["properties"] = {name: plain(value) for name, value in names.items()}
    if found.get("default", "") is None:
        del found["default"]
    options = found.get("anyOf", [])
    if {"type": "null"} in options and len(options) == 2:
        (other,) = [option for option in options if option != {"type": "null"}]
        if "enum" in found:
            del found["anyOf"]
        elif isinstance(other.get("type"), str) and "enum" not in other:
            del found["anyOf"]
            found = {**other, "type": [other["type"], "null"], **found}
        elif "enum" in other:
            del found["anyOf"]
            found = {**found, "enum": [*other["enum"], None]}
    if "const" in found:
        found.pop("type", None)
    return found


def schemas(*models: type[BaseModel]) -> Json:
    """The models' schemas by name; ``State`` and ``SessionStatus`` are written once."""
    _, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    found: Json = shared(plain(definitions["$defs"]))
    enums = {"SessionStatus": answers.Status, "State": answers.State}
    return {name: {"type": "string", "enum": list(kind.__args__)} for name, kind in enums.items()} | dict(
        sorted(found.items())
    )


def shared(schema: Any) -> Any:
    if isinstance(schema, list):
        return [shared(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    for name, kind in (("State", answers.State), ("SessionStatus", answers.Status)):
        if schema.get("enum") == list(kind.__args__):
            return ref("schemas", name)
    return {key: shared(value) for key, value in schema.items()}


def headers(*more: str, limits: bool = True) -> Json:
    short = {"X-Request-ID": "RequestId", "Retry-After": "RetryAfter"}
    names = ("X-Request-ID", *(LIMITS if limits else ()), *more)
    return {name: ref("headers", short.get(name, name.removeprefix("X-RateLimit-"))) for name in names}


def content(of: type[BaseModel] | Json) -> Json:
    return of if isinstance(of, dict) else {"application/json": {"schema": ref("schemas", of.__name__)}}


def operation(row: tuple[Any, ...]) -> Json:
    _, _, name, tag, summary, description, parameters, body, says, answer, failures = row
    found: Json = {"operationId": name, "tags": [tag], "summary": summary}
    if description:
        found["description"] = description
    if parameters:
        found["parameters"] = [ref("parameters", one) for one in parameters.split()]
    if body is not None:
        model, required = body
        sent = {model: {}} if isinstance(model, str) else content(model)
        if model is requests.NewSession:
            sent["application/json"]["example"] = EXAMPLE
        found["requestBody"] = {"required": required, "content": sent}
    responses: Json = {"200": {"description": says, "headers": headers(), "content": content(answer)}}
    for code in sorted({*failures.split(), "401", "403", "429", "503"}):
        if code == "304":
            responses[code] = {"description": "Unchanged since the ETag in If-None-Match"}
        else:
            responses[code] = ref("responses", FAILURES[code][0])
    return {**found, "responses": responses}


def paths() -> Json:
    found: dict[str, Json] = {}
    for row in OPERATIONS:
        method, path = row[:2]
        if path not in found:
            found[path] = {}
            if "{session_id}" in path:
                found[path]["parameters"] = [ref("parameters", "SessionId")]
            for name, (schema, words) in NAMED.items():
                if f"{{{name}}}" in path:
                    found[path].setdefault("parameters", []).append(
                        {"name": name, "in": "path", "required": True, "schema": schema, "description": words}
                    )
        found[path][method] = operation(row)
    health = {"headers": headers(limits=False), "content": content(answers.Health)}
    found["/health"] = {
        "get": {
            "operationId": "health",
            "tags": ["System"],
            "summary": "Health check",
            "description": "Open to all callers, never rate limited.",
            "security": [],
            "responses": {
                "200": {"description": "Healthy, or degraded (Redis is down)", **health},
                "503": {"description": "The database or the desktops are down", **health},
            },
        }
    }
    found["/metrics"] = {
        "get": {
            "operationId": "metrics",
            "tags": ["System"],
            "summary": "System metrics",
            "description": "Jupyter Server's own endpoint. Prometheus text format.",
            "responses": {
                "200": {
                    "description": "Prometheus metrics",
                    "content": {"text/plain": {"schema": {"type": "string"}}},
                },
                "403": {"description": "Not logged in (`ServerApp.authenticate_prometheus`)"},
            },
        }
    }
    return found


def responses() -> Json:
    found = {}
    for code, (name, description) in FAILURES.items():
        more = headers(*(("Retry-After",) if code in ("429", "503") else ()))
        if code == "401":
            more["WWW-Authenticate"] = {"schema": {"type": "string"}}
        found[name] = {"description": description, "headers": more, "content": content(answers.Error)}
    return found


SECURITY: Json = {
    "token": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "`token TOKEN`",
    },
    "bearer": {"type": "http", "scheme": "bearer"},
    "query": {"type": "apiKey", "in": "query", "name": "token"},
    "cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": "username-localhost-8000",
        "description": "Jupyter's login cookie; changes need the header X-XSRFToken too.",
    },
}
HEADERS: Json = {
    "RequestId": {"description": "Names this request in the server's log.", "schema": {"type": "string"}},
    "Limit": {
        "description": "Requests in the tightest window; absent where no limit is set, and for the product's own page.",
        "schema": {"type": "integer"},
    },
    "Remaining": {"description": "What is left of it.", "schema": {"type": "integer"}},
    "Reset": {"description": "When it ends, in seconds since the epoch.", "schema": {"type": "integer"}},
    "RetryAfter": {"description": "Seconds.", "schema": {"type": "integer"}},
}


def openapi() -> Json:
    models = {row[9] for row in OPERATIONS if not isinstance(row[9], dict)}
    models |= {row[7][0] for row in OPERATIONS if row[7] is not None and not isinstance(row[7][0], str)}
    models |= {answers.Health, answers.Error}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cambio_lab",
            "version": "1.0.0",
            "license": {"name": "BSD-3-Clause", "identifier": "BSD-3-Clause"},
            "description": "Claude computer-use agents with desktops of their own. The WebSockets are described in "
            "asyncapi.yaml.\n\nEvery answer carries `X-Request-ID` and, where limits are set, the rate-limit headers. "
            "A trailing slash works too.",
        },
        "servers": [{"url": "/"}],
        "security": [{name: []} for name in ("token", "bearer", "query", "cookie")],
        "tags": [
            {"name": "Sessions", "description": "A session is one desktop and one conversation."},
            *({"name": name} for name in ("History", "Desktop", "Experiments", "System")),
        ],
        "paths": paths(),
        "components": {
            "securitySchemes": SECURITY,
            "headers": HEADERS,
            "parameters": PARAMETERS,
            "responses": responses(),
            "schemas": schemas(*sorted(models, key=lambda model: model.__name__)),
        },
    }


HEARD = {
    "status": messages.StatusMessage,
    "tool_execution": messages.ToolExecution,
    "agent_response": messages.AgentResponse,
    "error": messages.ErrorMessage,
    "heartbeat": messages.Heartbeat,
    "agent_delta": messages.AgentDelta,
    "thumbnail": messages.Thumbnail,
    "unfollowed": messages.Unfollowed,
    "tools_offered": messages.ToolsOffered,
    "tool_call": messages.ToolCall,
}
SAID = {
    "message": requests.UserMessage,
    "command": requests.Command,
    "offer_tools": requests.OfferTools,
    "tool_result": requests.ToolResult,
    "watch": requests.Watch,
    "follow": requests.Follow,
}
FROM_CREATION = {"session_id": {"description": "From POST /sessions."}}
# name: (address, description, what the server sends, what clients send)
CHANNELS = {
    "session": (
        "/ws/{session_id}",
        "One session. `?stream=true` adds `agent_delta`; `?after=N` continues after event N, each once and in order. "
        "Without `after` nothing old is repeated. A slow reader loses nothing and costs nothing: what it has not taken "
        "is read from the store when it reads on.",
        [name for name in HEARD if name not in ("thumbnail", "unfollowed")],
        [name for name in SAID if name not in ("watch", "follow")],
    ),
    "sessions": (
        "/ws",
        "The newest state of every session: first all that are active, then whichever changes. A slow reader misses "
        "states in between. These messages carry `session_id` and no `sequence`. After `follow`, the events of "
        "`/ws/{session_id}?stream=true` come too, with `session_id` and `sequence`: a page needs one connection for "
        "all sessions that it shows.",
        ["status", "tool_execution", "agent_response", "agent_delta", "thumbnail", "unfollowed", "heartbeat", "error"],
        ["watch", "follow", "message", "command"],
    ),
}
DESKTOP = (
    "RFB 3.8 (RFC 6143) in binary frames; security type None, because the server answers the desktop's password. "
    "Mouse, keyboard and clipboard pass while the viewer named in `?viewer=NAME` holds control "
    '(`{"type": "take_control", "viewer": NAME}` on /ws); all others look on. A plain GET is a page with noVNC.'
)
REFUSALS = (
    "Refusals come before the upgrade, as HTTP answers with the same envelope as REST: 400 (bad query, no WebSocket "
    "handshake), 401, 403, 404, 409 (the session is over), 429 (5 connections to /ws per minute), 502 (the desktop's "
    "VNC server does not answer).\n\nClose codes: 1000 the session is over; 1001 the server goes down; 1002 not RFB; "
    "1009 a frame of more than `max_body` bytes; 1011 something went wrong inside, connect again with `?after=`. A "
    "peer that does not answer pings is dropped."
)


def asyncapi() -> Json:
    components = schemas(*HEARD.values(), *SAID.values())
    described = {}
    for name, model in (HEARD | SAID).items():
        payload = components.pop(model.__name__)
        summary, _, rest = str(payload.pop("description")).partition("\n\n")
        if name in HEARD:  # the type first, as people read it
            payload["properties"] = {"type": payload["properties"]["type"], **payload["properties"]}
        described[name] = {
            "summary": summary.rstrip("."),
            **({"description": rest} if rest else {}),
            "payload": payload,
        }
    channels: Json = {}
    operations: Json = {}
    for name, (address, description, sent, received) in CHANNELS.items():
        listed = {one: ref("messages", one) for one in (*sent, *received)}
        parameters = {"parameters": FROM_CREATION} if "{" in address else {}
        channels[name] = {"address": address, "description": description, **parameters, "messages": listed}
        for verb, action, names in (("hear", "send", sent), ("say", "receive", received)):
            operations[f"{verb}_{name}"] = {
                "action": action,
                "channel": {"$ref": f"#/channels/{name}"},
                "messages": [{"$ref": f"#/channels/{name}/messages/{one}"} for one in names],
            }
    rfb = {"rfb": {"payload": {"type": "string", "format": "binary"}}}
    channels["desktop"] = {
        "address": "/vnc/{session_id}",
        "description": DESKTOP,
        "parameters": FROM_CREATION,
        "messages": rfb,
    }
    operations["show_desktop"] = {
        "action": "send",
        "channel": {"$ref": "#/channels/desktop"},
        "messages": [{"$ref": "#/channels/desktop/messages/rfb"}],
    }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "cambio_lab", "version": "1.0.0", "description": REFUSALS},
        "defaultContentType": "application/json",
        "servers": {"here": {"host": "localhost:8000", "protocol": "ws"}},
        "channels": channels,
        "operations": operations,
        "components": {"schemas": components, "messages": described},
    }


# The front end's types

TYPES = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


def typescript() -> str:
    """The messages of the sockets, and sessions and experiments of REST, as TypeScript interfaces."""
    found = schemas(*HEARD.values(), *SAID.values(), answers.Session, answers.WholeWall)
    lines = [
        "// Written by scripts/describe_api.py: change its models, then run it.",
        "",
        "export type Json = Record<string, unknown>;",
    ]
    for name, schema in found.items():
        lines.append("")
        if "properties" not in schema:
            lines.append(f"export type {name} = {type_of(schema)};")
            continue
        lines += [*comment(schema, ""), f"export interface {name} {{"]
        for key, value in schema["properties"].items():
            optional = "" if key in schema.get("required", ()) else "?"
            lines += [*comment(value, "  "), f"  {key}{optional}: {type_of(value)};"]
        lines.append("}")
    return "\n".join(lines) + "\n"


def comment(schema: Json, indent: str) -> list[str]:
    words = str(schema.get("description", "")).partition("\n\n")[0].replace("\n", " ")
    return [f"{indent}/** {words} */"] if words else []


def type_of(schema: Json) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema or "enum" in schema:
        values = schema.get("enum") or [schema["const"]]
        return " | ".join("null" if value is None else f"'{value}'" for value in values)
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(map(type_of, schema["anyOf"])))
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(type_of({**schema, "type": one}) for one in kind)
    if kind == "array":
        item = type_of(schema.get("items", {}))
        return f"({item})[]" if "|" in item else f"{item}[]"
    return "Json" if kind == "object" else TYPES.get(str(kind), "unknown")


# The rendered page

_SHOWN = ("type", "enum", "format", "minimum", "maximum", "pattern")


def page(rest: Json, sockets: Json) -> str:
    """Both descriptions as one page without scripts or outside resources."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    environment.filters |= {"markdown": markdown, "short": short, "pretty": pretty}
    methods = ("get", "post", "put", "patch", "delete")
    template = environment.get_template("docs.html.j2")
    return template.render(rest=rest, sockets=sockets, methods=methods, resolve=resolve) + "\n"


def markdown(text: str) -> Markup:
    # The descriptions are ours, and still HTML in them stays text.
    return Markup(MarkdownIt("commonmark", {"html": False}).render(text or ""))


def resolve(document: Json, value: Json) -> Json:
    if "$ref" not in value:
        return value
    found: Any = document
    for part in value["$ref"].removeprefix("#/").split("/"):
        found = found[part.replace("~1", "/")]
    return resolve(document, found)


def short(schema: Json | None) -> str:
    kept = {key: value for key, value in (schema or {}).items() if key in _SHOWN}
    return str((schema or {}).get("$ref", "")).rpartition("/")[2] or json.dumps(kept, ensure_ascii=False)


def pretty(schema: Json) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False)


class Plain(yaml.SafeDumper):
    """YAML without anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def written(document: Json) -> str:
    header = "# Written by scripts/describe_api.py: change its models, then run it.\n"
    return header + yaml.dump(document, Dumper=Plain, sort_keys=False, width=120, allow_unicode=True)


def main() -> int:
    rest, sockets, differing = written(openapi()), written(asyncapi()), 0
    made = {
        API / "openapi.yaml": rest,
        API / "asyncapi.yaml": sockets,
        API / "docs.html": page(yaml.safe_load(rest), yaml.safe_load(sockets)),
        ROOT / "labextension" / "shared" / "schema.ts": typescript(),
    }
    for path, text in made.items():
        if "--check" not in sys.argv:
            path.write_text(text)
        elif path.read_text() != text:
            print(f"{path.name} differs: run scripts/describe_api.py", file=sys.stderr)
            differing = 1
    return differing


if __name__ == "__main__":
    raise SystemExit(main())
