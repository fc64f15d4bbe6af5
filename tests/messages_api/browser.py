"""The rules of the browser toolset's results. Each quotes the SDK's docstring that it comes from."""

from __future__ import annotations

from typing import Any

from .refusal import Refused

_TAB_MEMBERS = frozenset({"new_tab", "list_tabs", "switch_tab", "close_tab"})
_CHANGES = {
    "tab_opened": {"tab_id"},
    "download_started": {"download_id", "url"},
    "download_completed": {"download_id", "url"},
    "download_failed": {"download_id", "url"},
}
_OPTIONAL = {"download_completed": {"path", "size_bytes"}, "download_failed": {"error"}}


def check_state(call: dict[str, Any], result: dict[str, Any], path: str) -> None:
    """Refuse a ``browser_state`` block that is where it must not be, missing or malformed."""
    content = result.get("content")
    blocks = content if isinstance(content, list) else []
    states = [block for block in blocks if isinstance(block, dict) and block.get("type") == "browser_state"]
    if call.get("toolset_name") != "browser" or result.get("is_error"):
        # "only on a non-error result answering a browser toolset member `tool_use`" (BetaBrowserStateBlockParam)
        if states:
            raise Refused(f"{path}: `browser_state` belongs on a non-error result of a browser toolset member")
        return
    # "At most one per `tool_result`" (BetaBrowserStateBlockParam)
    if len(states) > 1:
        raise Refused(f"{path}: at most one `browser_state` block per `tool_result`")
    # "their non-error result is exactly one `browser_state` block" (STATE_ONLY_MEMBERS of the SDK)
    if call["name"] in _TAB_MEMBERS and [block.get("type") for block in blocks] != ["browser_state"]:
        raise Refused(f"{path}: the result of {call['name']} must be exactly one `browser_state` block")
    for state in states:
        _check(state, path)


def _check(state: dict[str, Any], path: str) -> None:
    if extra := set(state) - {"type", "tabs", "state_changes", "cache_control"}:
        raise Refused(f"{path}.browser_state.{min(extra)}: Extra inputs are not permitted")
    tabs = state.get("tabs")
    if not isinstance(tabs, list):
        raise Refused(f"{path}.browser_state.tabs: Field required")
    for tab in tabs:
        if extra := set(tab) - {"tab_id", "title", "url", "active"}:
            raise Refused(f"{path}.browser_state.tabs.{min(extra)}: Extra inputs are not permitted")
        if not all(isinstance(tab.get(name), str) for name in ("tab_id", "title", "url")):
            raise Refused(f"{path}.browser_state.tabs: tab_id, title and url are required")
    ids = [tab["tab_id"] for tab in tabs]
    # "`tab_id` values are unique"; "at most 100 tabs" (BetaBrowserState)
    if len(ids) != len(set(ids)) or len(ids) > 100:
        raise Refused(f"{path}.browser_state.tabs: tab_id must be unique, at most 100 tabs")
    # "Whenever `tabs` is non-empty, exactly one entry is marked `active: true`" (BetaBrowserStateTabEntryParam)
    if tabs and sum(tab.get("active") is True for tab in tabs) != 1:
        raise Refused(f"{path}.browser_state.tabs: exactly one tab must be active")
    if "state_changes" in state:
        _check_changes(state["state_changes"], set(ids), path)


def _check_changes(changes: object, ids: set[str], path: str) -> None:
    # "\"Nothing to report\" is expressed by omitting the field, never by an empty list" (BetaBrowserStateBlockParam)
    if not isinstance(changes, list) or not changes:
        raise Refused(f"{path}.browser_state.state_changes: omit it instead of an empty list")
    downloads = []
    for change in changes:
        kind = change.get("type")
        wanted = _CHANGES.get(kind)
        if wanted is None or not wanted <= set(change) <= wanted | {"type"} | _OPTIONAL.get(kind, set()):
            raise Refused(f"{path}.browser_state.state_changes: {kind!r} is malformed")
        # "The `tab_id` of the opened tab, present in `tabs`" (BetaBrowserStateChangeTabOpenedParam)
        if kind == "tab_opened" and change["tab_id"] not in ids:
            raise Refused(f"{path}.browser_state.state_changes: an opened tab must be in tabs")
        downloads += [change["download_id"]] if "download_id" in change else []
    # "at most one state change per `download_id` per result" (BetaBrowserStateChangeDownloadCompletedParam)
    if len(downloads) != len(set(downloads)):
        raise Refused(f"{path}.browser_state.state_changes: at most one change per download")
