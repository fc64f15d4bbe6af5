"""Structured outputs: which formats a request may ask for, and that a finished answer keeps to them."""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator

from .models import Model
from .refusal import Refused

_KNOWN = {"type", "properties", "required", "additionalProperties", "items", "minItems", "enum", "const", "anyOf"}
_KNOWN |= {"allOf", "$ref", "$defs", "definitions", "description", "title", "default", "format"}
_BUDGETED = ["fable-5-1", "mythos-5-1", "fable-5", "mythos-5", "opus-5-5", "opus-5", "opus-4-8", "opus-4-7"]
BUDGETED = {f"claude-{name}" for name in [*_BUDGETED, "sonnet-5-5", "haiku-5-5"]}
_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}


def check(body: dict[str, Any], model: Model, betas: set[str]) -> None:
    """Refuse an ``output_config.format`` that the service refuses."""
    config = body.get("output_config") or {}
    for name in config:
        if name not in {"effort", "format", "task_budget"}:
            raise Refused(f"output_config.{name}: Extra inputs are not permitted")
    _check_budget(config.get("task_budget"), model, betas)
    wanted = config.get("format")
    if wanted is None:
        return
    if not model.structured:
        raise Refused(f"output_config.format: '{model.id}' does not support structured outputs")
    if wanted.get("type") != "json_schema":
        raise Refused("output_config.format.type: Input should be 'json_schema'")
    if not isinstance(wanted.get("schema"), dict):
        raise Refused("output_config.format.schema: Field required")
    for name in wanted:
        if name not in {"type", "schema"}:
            raise Refused(f"output_config.format.{name}: Extra inputs are not permitted")
    if body["messages"] and body["messages"][-1].get("role") == "assistant":
        raise Refused("output_config.format: incompatible with message prefilling")
    _check_schema(wanted["schema"], "output_config.format.schema")
    _check_cycles(wanted["schema"])


def _check_budget(budget: dict[str, Any] | None, model: Model, betas: set[str]) -> None:
    if budget is None:
        return
    if "task-budgets-2026-03-13" not in betas:
        raise Refused("output_config.task_budget: Extra inputs are not permitted")
    if model.id not in BUDGETED:
        raise Refused(f"output_config.task_budget: '{model.id}' does not support task budgets")
    if budget.get("type") != "tokens":
        raise Refused("output_config.task_budget.type: Input should be 'tokens'")
    if not isinstance(budget.get("total"), int) or budget["total"] < 20_000:
        raise Refused("output_config.task_budget.total: Input should be greater than or equal to 20000")


def _check_schema(schema: dict[str, Any], path: str) -> None:
    for name in schema:
        if name not in _KNOWN:
            raise Refused(f"{path}: For '{schema.get('type')}' type, property '{name}' is not supported")
    if schema.get("minItems", 0) not in {0, 1}:
        raise Refused(f"{path}.minItems: values other than 0 or 1 are not supported")
    if schema.get("format", "date") not in _FORMATS:
        raise Refused(f"{path}.format: '{schema['format']}' is not supported")
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        raise Refused(f"{path}: For 'object' type, 'additionalProperties' must be explicitly set to false")
    for where in ("properties", "$defs", "definitions"):
        for name, inner in (schema.get(where) or {}).items():
            _check_schema(inner, f"{path}.{where}.{name}")
    for where in ("anyOf", "allOf"):
        for number, inner in enumerate(schema.get(where) or ()):
            _check_schema(inner, f"{path}.{where}.{number}")
    if isinstance(schema.get("items"), dict):
        _check_schema(schema["items"], f"{path}.items")


def _check_cycles(schema: dict[str, Any]) -> None:
    named = {f"#/$defs/{name}": inner for name, inner in (schema.get("$defs") or {}).items()}

    def visit(value: Any, above: tuple[str, ...]) -> None:
        if isinstance(value, dict):
            reference = value.get("$ref")
            if reference in above:
                raise Refused("output_config.format.schema: Circular reference detected; recursion is not supported")
            if isinstance(reference, str):
                visit(named.get(reference), (*above, reference))
            for name, inner in value.items():
                if name != "$defs":
                    visit(inner, above)
        elif isinstance(value, list):
            for inner in value:
                visit(inner, above)

    visit(schema, ())


def keeps_to(body: dict[str, Any], blocks: list[dict[str, Any]], stop_reason: str) -> None:
    """Refuse to send a finished answer that the format of its request forbids: a policy's mistake, not a reply."""
    wanted = (body.get("output_config") or {}).get("format")
    if wanted is None or stop_reason != "end_turn":  # a refusal or a cut reply need not fit
        return
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    wrong = [error.message for error in Draft202012Validator(wanted["schema"]).iter_errors(json.loads(text))]
    if wrong:
        raise ValueError(f"the policy's answer does not fit output_config.format: {wrong}")
