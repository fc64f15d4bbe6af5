"""A request refused for its content: what the service refused must not come back with each later message."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from ..errors import ModelRejected
from ..events import Event, HistoryAppended, HistoryDropped
from .ask import refused
from .transcript import Transcript, last_results
from .turn import Turn

log = logging.getLogger(__name__)
REPLACED = "The result could not be sent to the model: the service refused it"
CONTENT_TYPES = ("invalid_request_error", "request_too_large")
HINT = "This turn was taken out of the conversation, so the next message is not affected; put the request differently."


def is_about_content(error: ModelRejected) -> bool:
    """Return whether the service refused what the request holds, not who sent it or where it went."""
    return error.details.get("status") in (400, 413) and error.details.get("type") in CONTENT_TYPES


def repair(transcript: Transcript, turn: Turn, error: ModelRejected) -> Iterator[Event]:
    """Replace the newest results by text, once; else take the turn out and raise :class:`ModelRejected`."""
    log.error("request refused for its content: model=%s error=%s", turn.options.model, error)
    results = last_results(transcript)
    if results and not all(_is_replaced(block) for block in results):
        message = {"role": "user", "content": [_replaced(block, error) for block in results]}
        yield refused(f"The service refused the newest results ({error.message}). They are left out.", error)
        transcript.drop(1)
        transcript.append(message)
        yield HistoryDropped(1)
        yield HistoryAppended(message)
        return
    count = len(transcript) - turn.first_message
    transcript.drop(count)
    yield HistoryDropped(count)
    raise ModelRejected(error.message, hint=f"{error.hint} {HINT}".strip(), details=error.details) from error


def _replaced(block: dict[str, Any], error: ModelRejected) -> dict[str, Any]:
    content = [{"type": "text", "text": f"{REPLACED} ({error.message})."}]
    return {**block, "content": content, "is_error": True}


def _is_replaced(block: dict[str, Any]) -> bool:
    return any(part.get("text", "").startswith(REPLACED) for part in block["content"])
