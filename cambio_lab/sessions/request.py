"""One message to the agent, checked: its text, its metadata, and what it changes for its own turn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from cambio_lab.agent.options import TurnOptions
from cambio_lab.errors import InvalidRequest
from cambio_lab.recording.masking import Mask

LONGEST = 200_000
METADATA_BYTES = 64_000
LARGEST = 1_000_000_000
"""Of a number among the options; more tokens, seconds or dollars mean nothing."""
NOTHING_SECRET = Mask()
OPTIONS = {item.name: str(item.type) for item in fields(TurnOptions) if item.name != "extra_tools"}
"""Keys of ``metadata.options`` and the types they take, from the agent's own table."""


def check_content(content: object) -> str:
    """The text; :class:`InvalidRequest` when it is none, empty or too long."""
    if not isinstance(content, str):
        raise InvalidRequest("content must be text.", details={"content": "must be text"})
    if not content.strip():
        raise InvalidRequest("content is empty.", details={"content": "must not be empty"})
    if len(content) > LONGEST:
        raise InvalidRequest("content is too long.", details={"content": f"at most {LONGEST} characters"})
    if any(0xD800 <= ord(character) <= 0xDFFF for character in content):
        raise InvalidRequest("content is not valid Unicode.", details={"content": "has a lone surrogate"})
    return content


def check_metadata(metadata: object, mask: Mask = NOTHING_SECRET) -> dict[str, Any]:
    """The metadata as it is stored, without values of secrets; ``None`` is none."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping) or not all(isinstance(key, str) for key in metadata):
        raise InvalidRequest("metadata must be an object.", details={"metadata": "must be an object"})
    try:
        size = len(json.dumps(dict(metadata), allow_nan=False).encode())
        masked: dict[str, Any] = mask.json(dict(metadata))
    except (TypeError, ValueError, RecursionError):
        raise InvalidRequest("metadata is not JSON.", details={"metadata": "must be JSON"}) from None
    if size > METADATA_BYTES:
        raise InvalidRequest("metadata is too long.", details={"metadata": f"at most {METADATA_BYTES} bytes"})
    return masked


def turn_options(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """``metadata.options``: model, effort, thinking and limits for this turn alone."""
    options = metadata.get("options")
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise InvalidRequest("metadata.options must be an object.", details={"metadata.options": "must be an object"})
    wrong: dict[str, object] = {}
    for key, value in options.items():
        if key not in OPTIONS:
            wrong[f"metadata.options.{key}"] = "unknown"
        elif not _fits(OPTIONS[key], value):
            wrong[f"metadata.options.{key}"] = f"must be {OPTIONS[key]}, numbers from 0 to {LARGEST}"
    if wrong:
        raise InvalidRequest(
            f"metadata.options is not valid: {', '.join(sorted(wrong))}.",
            hint=f"Known keys: {', '.join(OPTIONS)}.",
            details=wrong,
        )
    return dict(options)


def _fits(kind: str, value: object) -> bool:
    if value is None:
        return True
    if isinstance(value, bool):
        return False
    if kind.startswith("str"):
        return isinstance(value, str)
    return isinstance(value, int if kind.startswith("int") else (int, float)) and 0 <= value <= LARGEST
