"""Which calls a person must approve, and how a call is shown to that person."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from ..errors import InvalidRequest

ApprovalPolicy = Literal["never", "risky", "always"] | frozenset[str]
LOOKS = frozenset({"screenshot", "zoom", "cursor_position", "wait"})
CLICKS = frozenset({"left_click", "right_click", "middle_click", "double_click", "triple_click"})
POINTER = frozenset({"left_click_drag", "mouse_move", "left_mouse_down", "left_mouse_up", "scroll"})
KEYBOARD = frozenset({"type", "key", "hold_key"})
PASTES = frozenset({"middle_click"})
"""Clicks that insert text: a middle click pastes the selection, which a terminal executes at a line break."""
BROWSER_ACTS = frozenset({"form_input", "file_upload", "javascript_exec"})
BROWSER = BROWSER_ACTS | {
    *("navigate", "list_tabs", "new_tab", "switch_tab", "close_tab", "read_page", "get_page_text", "find", "scroll_to"),
    *("hover", "read_console", "read_network"),
}
MEMBERS = LOOKS | CLICKS | POINTER | KEYBOARD
"""Of the computer toolset."""
SHELL = "bash"
EDITOR = "str_replace_based_edit_tool"
EDITOR_READS = frozenset({"view"})
TOOL_NAMES = MEMBERS | BROWSER | {SHELL, EDITOR}


def parse_policy(value: Any) -> ApprovalPolicy:
    """Return a policy: ``never``, ``risky``, ``always`` or names of tools; else :class:`InvalidRequest`."""
    if value in ("never", "risky", "always"):
        return value  # type: ignore[no-any-return]
    if isinstance(value, frozenset | set | list | tuple) and all(isinstance(item, str) for item in value):
        names = frozenset(value)
        if unknown := names - TOOL_NAMES:
            raise InvalidRequest(
                f"approval names unknown members: {', '.join(sorted(unknown))}.",
                hint=f"Known are {', '.join(sorted(TOOL_NAMES))}.",
                details={"approval": f"unknown: {', '.join(sorted(unknown))}"},
            )
        return names
    raise InvalidRequest(
        "approval must be never, risky, always or a list of members.", details={"approval": "not a policy"}
    )


def needs_approval(policy: ApprovalPolicy, tool: str, arguments: Mapping[str, Any]) -> bool:
    """Return whether a person must agree before ``tool`` (a member's or tool's name) runs."""
    if policy == "never":
        return False
    if policy == "always":
        return True
    if policy == "risky":
        if tool == EDITOR:
            return arguments.get("command") not in EDITOR_READS
        return tool == SHELL or tool in KEYBOARD or tool in PASTES or tool in BROWSER_ACTS
    return tool in policy


def shown(tool: str, arguments: Mapping[str, Any]) -> str:
    """Return exactly what will run, as one line of ASCII: invisible and look-alike characters are escaped."""
    return f"{tool} {json.dumps(dict(arguments), ensure_ascii=True, default=str)}"
