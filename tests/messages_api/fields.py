"""The outside of a request: its fields, tools, thinking, tool choice and cache markers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from anthropic.types.beta.beta_browser_member_name import BetaBrowserMemberName

from . import structured
from .models import BROWSER_TOOLSET, EFFORTS, LEGACY_HEADERS, MODELS, TOOLSET, Model
from .refusal import Refused

_POINTER = "left_click right_click middle_click double_click triple_click left_click_drag mouse_move left_mouse_down"
MEMBERS = frozenset({*_POINTER.split(), "left_mouse_up", "scroll", "type", "key", "hold_key", "wait"}) | frozenset(
    {"screenshot", "zoom", "cursor_position"}
)
BROWSER_MEMBERS = frozenset(get_args(BetaBrowserMemberName))
NAMES = {"bash_20250124": "bash", "text_editor_20250728": "str_replace_based_edit_tool"}
CONTEXT_BETA = "context-management-2025-06-27"
EDIT_BETAS = {"clear_tool_uses_20250919": CONTEXT_BETA, "compact_20260112": "compact-2026-01-12"}
_GA_WORDS = "model max_tokens messages system tools tool_choice thinking output_config stream stop_sequences metadata"
_BETA_WORDS = "context_management compaction mcp_servers fallbacks fallback_credit_token thread speed diagnostics"
_GA_FIELDS = frozenset({*_GA_WORDS.split(), "cache_control", "service_tier", "inference_geo", "container"})
_BETA_FIELDS = _GA_FIELDS | {*_BETA_WORDS.split(), "billing_policy", "prefill"}
_EDIT_FIELDS = {
    "clear_tool_uses_20250919": {
        *("type", "trigger", "keep", "clear_at_least", "exclude_tools", "clear_tool_inputs"),
    },
    "compact_20260112": {"type", "trigger", "pause_after_compaction", "instructions"},
}


def check(body: dict[str, Any], betas: set[str]) -> Model:
    """Refuse a request for anything but its messages; the model's rules."""
    allowed = _BETA_FIELDS if betas else _GA_FIELDS
    for name in body:
        if name not in allowed:
            raise Refused(f"{name}: Extra inputs are not permitted")
    for name in ("model", "max_tokens", "messages"):
        if name not in body:
            raise Refused(f"{name}: Field required")
    if body["model"] not in MODELS:
        raise Refused(f"model: {body['model']}", "not_found_error")
    model = MODELS[body["model"]]
    if "fine-grained-tool-streaming-2025-05-14" in betas:
        raise Refused("The beta fine-grained-tool-streaming-2025-05-14 is not supported with this request.")
    limit = body["max_tokens"]
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise Refused("max_tokens: Input should be greater than or equal to 1")
    if limit > model.max_tokens:
        raise Refused(f"max_tokens: {limit} > {model.max_tokens}, which is the maximum allowed for {model.id}")
    _check_system(body.get("system"))
    tools = body.get("tools") or []
    _check_tools(tools, model, betas)
    _check_choice(body.get("tool_choice"), tools, model)
    _check_thinking(body, model, betas)
    structured.check(body, model, betas)
    _check_context(body, betas)
    _check_markers(body)
    return model


def _check_system(system: object) -> None:
    if system is None or isinstance(system, str):
        return
    if not isinstance(system, list):
        raise Refused("system: Input should be a valid string or list")
    for i, block in enumerate(system):
        if not isinstance(block, dict) or block.get("type") != "text":
            raise Refused(f"system.{i}.type: Input should be 'text'")
        if not block.get("text"):
            raise Refused(f"system.{i}: text content blocks must be non-empty")


def _check_tools(tools: list[dict[str, Any]], model: Model, betas: set[str]) -> None:
    names: set[str] = set()
    unsupported = [
        kind
        for tool in tools
        if (kind := str(tool.get("type", "custom"))).startswith("computer_") and kind not in model.tools
    ]
    if unsupported:
        raise Refused(f"'{model.id}' does not support tool types: {', '.join(unsupported)}.")
    for i, tool in enumerate(tools):
        kind = tool.get("type", "custom")
        if kind == TOOLSET:
            _check_toolset(tool, f"tools.{i}.{TOOLSET}", MEMBERS)
            name = "computer"
        elif kind == BROWSER_TOOLSET:
            if not model.browses:
                raise Refused(f"'{model.id}' does not support tool types: {kind}.")
            _check_toolset(tool, f"tools.{i}.{BROWSER_TOOLSET}", BROWSER_MEMBERS)
            name = "browser"
        elif kind in LEGACY_HEADERS:
            name = _check_legacy(tool, f"tools.{i}.{kind}", betas)
        elif kind in NAMES:
            name = tool.get("name", "")
            if name != NAMES[kind]:
                raise Refused(f"tools.{i}.{kind}.name: Input should be '{NAMES[kind]}'")
        elif kind == "custom":
            name = tool.get("name", "")
            if not name or "input_schema" not in tool:
                raise Refused(f"tools.{i}.custom: name and input_schema are required")
            if not isinstance(tool["input_schema"], dict) or tool["input_schema"].get("type") != "object":
                raise Refused(f"tools.{i}.custom.input_schema.type: Input should be 'object'")
        else:
            raise Refused(f"tools.{i}: Input tag '{kind}' found using 'type' does not match any of the expected tags")
        if name in names:
            raise Refused("tools: Tool names must be unique.", details={"error_code": "tool_name_conflict"})
        names.add(name)


def _check_toolset(tool: dict[str, Any], path: str, members: frozenset[str]) -> None:
    for name in tool:
        if name not in {"type", "configs", "cache_control", "allowed_callers"}:
            raise Refused(f"{path}.{name}: Extra inputs are not permitted")
    if tool.get("allowed_callers", ["direct"]) != ["direct"]:
        raise Refused(f"{path}.allowed_callers: Input should be ['direct']")
    configs = tool.get("configs") or {}
    enabled, deferred = set(members), set()
    for member, config in configs.items():
        if member not in members:
            raise Refused(f"{path}.configs.{member}: Extra inputs are not permitted")
        for name, value in (config or {}).items():
            if name not in {"enabled", "defer_loading"}:
                raise Refused(f"{path}.configs.{member}.{name}: Extra inputs are not permitted")
            if not isinstance(value, bool | None):
                raise Refused(f"{path}.configs.{member}.{name}: Input should be a valid boolean")
        if (config or {}).get("enabled") is False:
            enabled.discard(member)
    if not enabled:
        raise Refused(f"{path}.configs: at least one member must be enabled")
    deferred = {bool((configs.get(member) or {}).get("defer_loading")) for member in enabled}
    if len(deferred) > 1:
        raise Refused(f"{path}.configs: defer_loading must be equal on every enabled member")


def _check_legacy(tool: dict[str, Any], path: str, betas: set[str]) -> str:
    if LEGACY_HEADERS[tool["type"]] not in betas:
        raise Refused(f"{path}: requires the anthropic-beta header {LEGACY_HEADERS[tool['type']]}")
    if tool.get("name") != "computer":
        raise Refused(f"{path}.name: Input should be 'computer'")
    for name in ("display_width_px", "display_height_px"):
        if not isinstance(tool.get(name), int):
            raise Refused(f"{path}.{name}: Field required")
    return "computer"


def _check_choice(choice: dict[str, Any] | None, tools: list[dict[str, Any]], model: Model) -> None:
    if choice is None:
        return
    kind = choice.get("type")
    if kind not in {"auto", "any", "tool", "none"}:
        raise Refused("tool_choice.type: Input should be auto, any, tool or none")
    if not tools:
        raise Refused("tool_choice: may only be specified while providing tools")
    if kind in {"any", "tool"} and not model.forced_choice:
        raise Refused(f"tool_choice: '{model.id}' does not support forced tool use")
    if kind == "tool":
        named = {tool.get("name") for tool in tools if tool.get("type") != TOOLSET}
        if choice.get("name") not in named:
            raise Refused(f"tool_choice.tool.name: Tool '{choice.get('name')}' not found in provided tools")


def _check_thinking(body: dict[str, Any], model: Model, betas: set[str]) -> None:
    effort = (body.get("output_config") or {}).get("effort")
    if effort is not None and effort not in EFFORTS:
        raise Refused(f"output_config.effort: Input should be one of {', '.join(EFFORTS)}")
    thinking = body.get("thinking")
    if thinking is None:
        return
    kind = thinking.get("type")
    if kind not in model.thinking:
        raise Refused(f"thinking.type: '{kind}' is not supported by {model.id}")
    fields = {
        "adaptive": {"type", "display", "block_binding"},
        "enabled": {"type", "budget_tokens", "display", "block_binding"},
    }.get(kind, {"type"})
    for name in thinking:
        if name not in fields:
            raise Refused(f"thinking.{kind}.{name}: Extra inputs are not permitted")
    if kind in {"disabled", "between_tools"} and EFFORTS.index(effort or "medium") > EFFORTS.index(
        model.off_max_effort
    ):
        raise Refused(f"thinking.type: '{kind}' requires effort {model.off_max_effort} or lower on {model.id}")
    if thinking.get("display") not in {None, "summarized", "omitted", "updates"}:
        raise Refused("thinking.display: Input should be summarized, omitted or updates")
    if thinking.get("display") == "updates" and "thinking-display-updates-2026-08-18" not in betas:
        raise Refused("thinking.display: 'updates' requires the beta thinking-display-updates-2026-08-18")
    if thinking.get("block_binding") and "thinking-binding-controls-2026-08-01" not in betas:
        raise Refused("thinking.block_binding: Extra inputs are not permitted")
    if kind == "enabled" and not 1024 <= thinking.get("budget_tokens", 0) < body["max_tokens"]:
        raise Refused("thinking.enabled.budget_tokens: must be at least 1024 and less than max_tokens")


def _check_context(body: dict[str, Any], betas: set[str]) -> None:
    management = body.get("context_management")
    if body.get("compaction") is not None:
        if "compact-2026-09-04" not in betas:
            raise Refused("compaction: Extra inputs are not permitted")
        # MessageCreateParamsBase.compaction: "Cannot be combined with `context_management`."
        if management is not None:
            raise Refused("compaction: cannot be combined with context_management")
    if management is None:
        return
    for i, edit in enumerate(management.get("edits", ())):
        kind = edit.get("type")
        if kind not in EDIT_BETAS:
            raise Refused(f"context_management.edits.{i}: Input tag '{kind}' does not match any of the expected tags")
        if EDIT_BETAS[kind] not in betas:
            raise Refused("context_management: Extra inputs are not permitted")
        for name in edit:
            if name not in _EDIT_FIELDS[kind]:
                raise Refused(f"context_management.edits.{i}.{kind}.{name}: Extra inputs are not permitted")
        trigger = edit.get("trigger") or {}
        if kind == "compact_20260112" and trigger.get("value", 150_000) < 50_000:
            raise Refused(f"context_management.edits.{i}.trigger.value: Input should be at least 50000")


def _markers(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "cache_control":
                if inner is not None:
                    yield str(inner.get("ttl", "5m")) if inner.get("type") == "ephemeral" else "?"
            elif name not in {"source", "input", "input_schema"}:
                yield from _markers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _markers(inner)


def _check_markers(body: dict[str, Any]) -> None:
    order = [body.get("tools"), body.get("system"), body["messages"]]
    found = [marker for part in order for marker in _markers(part)]
    if body.get("cache_control"):
        found.append(body["cache_control"].get("ttl", "5m"))
    if any(marker not in {"5m", "1h"} for marker in found):
        raise Refused("cache_control: Input should be {'type': 'ephemeral', 'ttl': '5m' or '1h'}")
    if len(found) > 4:
        raise Refused(f"A maximum of 4 blocks with cache_control may be provided. Found {len(found)}.")
    if "1h" in found and "5m" in found and found.index("5m") < len(found) - 1 - found[::-1].index("1h"):
        raise Refused("a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block")
