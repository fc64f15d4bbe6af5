"""The parts of the reference that are generated: REST, WebSocket, command line and errors, as Markdown."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cambio_lab import cli, errors

API = Path(cli.__file__).parent / "api"
METHODS = ("get", "post", "put", "patch", "delete")


def rest() -> str:
    """Return a section for each operation of ``openapi.yaml``, and a table for each schema."""
    document = yaml.safe_load((API / "openapi.yaml").read_text(encoding="utf-8"))
    lines: list[str] = []
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                lines += _operation(document, method, path, item[method], item.get("parameters", []))
    return "\n".join([*lines, "## Schemas", "", *_schemas(document)])


def websocket() -> str:
    """Return a section for each channel of ``asyncapi.yaml``, and a table for each schema."""
    document = yaml.safe_load((API / "asyncapi.yaml").read_text(encoding="utf-8"))
    lines: list[str] = []
    for channel in document["channels"].values():
        lines += [f"## `{channel['address']}`", "", _text(channel.get("description") or channel.get("summary")), ""]
        lines += ["| Message | Meaning |", "|---|---|"]
        for name, message in channel.get("messages", {}).items():
            found = _resolve(document, message)
            lines.append(f"| `{name}` | {_cell(found.get('summary') or found.get('description'))} |")
        lines.append("")
    return "\n".join([*lines, "## Schemas", "", *_schemas(document)])


def command_line() -> str:
    """Return a section with the help of each command."""
    lines: list[str] = []
    for name, parser in _commands("cambio-lab", cli._parser()):
        lines += [f"## `{name}`", "", "```text", parser.format_help().rstrip(), "```", ""]
    return "\n".join(lines)


def error_tree() -> str:
    """Return the tree of errors and a table of each error's meaning."""
    doc = inspect.getdoc(errors) or ""
    tree = inspect.cleandoc(doc.split("::", 1)[1])
    lines = ["```text", tree, "```", "", "| Error | Meaning |", "|---|---|"]
    for name, kind in vars(errors).items():
        if inspect.isclass(kind) and issubclass(kind, errors.CambioError):
            lines.append(f"| `{name}` | {_cell(inspect.getdoc(kind))} |")
    return "\n".join(lines)


PARTS = (rest, websocket, command_line, error_tree)


def _operation(document: Any, method: str, path: str, operation: Any, shared: list[Any]) -> list[str]:
    lines = [f"## `{method.upper()} {path}`", "", _text(operation.get("summary")), ""]
    if operation.get("description"):
        lines += [_text(operation["description"]), ""]
    parameters = [_resolve(document, one) for one in [*shared, *operation.get("parameters", [])]]
    if parameters:
        lines += ["| Parameter | In | Type | Meaning |", "|---|---|---|---|"]
        for one in parameters:
            kind = _type(one.get("schema", {}))
            lines.append(f"| `{one['name']}` | {one['in']} | {kind} | {_cell(one.get('description'))} |")
        lines.append("")
    body = _resolve(document, operation.get("requestBody", {})).get("content", {})
    for media, content in body.items():
        lines += [f"Body, `{media}`: {_type(content.get('schema', {}))}.", ""]
    lines += ["| Status | Answer |", "|---|---|"]
    for status, answer in operation["responses"].items():
        found = _resolve(document, answer)
        kinds = [_type(content.get("schema", {})) for content in found.get("content", {}).values()]
        lines.append(f"| {status} | {_cell(found.get('description'))} {', '.join(sorted(set(kinds)))} |")
    return [*lines, ""]


def _schemas(document: Any) -> Iterator[str]:
    for name, schema in sorted(document["components"].get("schemas", {}).items()):
        yield from (f"### {name}", "", _text(schema.get("description")), "")
        properties = schema.get("properties", {})
        if not properties:
            yield from (_type(schema), "")
            continue
        yield from ("| Field | Type | Meaning |", "|---|---|---|")
        required = set(schema.get("required", []))
        for field, value in properties.items():
            kind = _type(value) + (", required" if field in required else "")
            yield f"| `{field}` | {kind} | {_cell(value.get('description'))} |"
        yield ""


def _type(schema: Any) -> str:
    if not isinstance(schema, dict) or not schema:
        return "any"
    if "$ref" in schema:
        return f"`{schema['$ref'].rsplit('/', 1)[1]}`"
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema and "type" not in schema:
            return " or ".join(dict.fromkeys(_type(one) for one in schema[several]))
    kind = schema.get("type", "any")
    if kind == "array":
        return f"array of {_type(schema.get('items', {}))}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _resolve(document: Any, value: Any) -> Any:
    while "$ref" in value:
        found = document
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        value = found
    return value


def _text(value: str | None) -> str:
    return (value or "").strip().replace("``", "`")


def _cell(value: str | None) -> str:
    return " ".join(_text(value).split()).replace("|", "\\|")


def _commands(name: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                yield from _commands(f"{name} {word}", below)
