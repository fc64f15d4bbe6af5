"""One whole reply from the model, however often that has to be tried, and what it costs."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ModelRejected, ModelUnavailable
from ..events import (
    Event,
    ModelReplied,
    RequestSent,
    Retrying,
    StatusChanged,
    TextDelta,
    ThinkingDelta,
    ToolAnnounced,
    Usage,
)
from . import models
from .client import Announced, ModelClient, ModelRequest, Reply, Sent, Started, Text, Thought, Transient, wire_model
from .gate import Gate
from .options import thinking_parameters
from .transcript import Transcript
from .turn import Turn

log = logging.getLogger(__name__)
MOST_BROKEN = 3
MOST_UNREACHABLE = 3  # tries to connect to an address that has never answered
TOKENS_PER_IMAGE = 4784
BINDING_BETA = "thinking-binding-controls-2026-08-01"
CLEARING_BETA = "context-management-2025-06-27"
COMPACTION_BETA = "compact-2026-09-04"
INPUT_COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
NOTHING = Usage()


@dataclass
class Ask:
    """Asks the model of one session. Nothing of a broken reply is kept, so asking again is always safe."""

    client: ModelClient
    gate: Gate
    transcript: Transcript
    requests: int = 0
    _cleared: bool = False  # the service has answered a request that asks it to clear
    _identity: tuple[str, list[dict[str, Any]]] | None = None
    _drop_thinking: bool = False
    _answered: bool = False

    async def reply(self, turn: Turn, *, compact: bool = False) -> AsyncGenerator[Event | Reply, None]:
        """Events, and last one whole :class:`Reply`; with ``compact`` it is a summary of the conversation."""
        attempt = broken = unreachable = 0
        while True:
            turn.partial.clear()
            try:
                async with aclosing(self._once(turn, compact)) as answers:
                    async for answer in answers:
                        yield answer
                return
            except ModelRejected as error:
                if self._cleared or not self._may_not_clear(turn, error):
                    raise
                log.error("context management refused; sending without it from now on: error=%s", error)
                self.transcript.clearable = self.transcript.compactable = False
                yield StatusChanged(
                    "thinking",
                    f"The model service refused to clear old results ({error.message}). The whole conversation is sent"
                    " from now on, which costs more.",
                )
                continue
            except Transient as problem:
                attempt += 1
                broken += problem.broken
                unreachable += problem.unreachable and not self._answered
                if attempt > turn.options.model_retries or broken > MOST_BROKEN or unreachable >= MOST_UNREACHABLE:
                    raise ModelUnavailable(
                        f"The model could not answer: {problem.reason}.",
                        hint=f"It was asked {attempt} times; check the network, or send the message again later.",
                    ) from problem
                delay = backoff(attempt, problem.retry_after)
                dropped = sum(map(len, turn.partial))
                yield Retrying(attempt, delay, time.time() + delay, problem.reason, dropped)
            turn.partial.clear()
            await self.gate.race(asyncio.sleep(delay))
            turn.limits.before_request()

    async def _once(self, turn: Turn, compact: bool) -> AsyncGenerator[Event | Reply, None]:
        request = self._request(turn, compact)
        started_at = time.perf_counter()
        begun: dict[str, Any] | None = None
        size = images = 0
        try:
            async with aclosing(self.gate.stream(self.client.stream(request))) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Sent):
                        self.requests += 1
                        size, images = piece.size, piece.images
                        yield RequestSent(self.requests, turn.options.model, piece.sha256, piece.size, piece.images)
                    elif isinstance(piece, Started):
                        begun, self._answered = complete_usage(piece.usage, size, images, 0), True
                    elif isinstance(piece, Reply):
                        begun = None
                        piece = replace(piece, usage=complete_usage(piece.usage, size, images, _said(piece)))
                        yield self._replied(turn, piece, (time.perf_counter() - started_at) * 1000)
                        yield piece
                    elif (event := _delta(turn, piece)) is not None:
                        yield event
        finally:
            if begun:  # the service counted the input, though the reply was dropped
                turn.limits.used += models.price(turn.options.model, begun)

    def _replied(self, turn: Turn, reply: Reply, took: float) -> ModelReplied:
        self._cleared = self._cleared or self.transcript.context_management() is not None
        usage = models.price(turn.options.model, reply.usage)
        turn.limits.used += usage
        if not reply.compacted:
            self.transcript.input_tokens = _context(reply.usage)
        turn.partial.clear()
        turn.said.append(reply.text)
        return ModelReplied(self.requests, reply.stop_reason, usage, took, reply.text)

    def _may_not_clear(self, turn: Turn, error: ModelRejected) -> bool:
        """Whether a gateway or platform that no page describes may only have refused to clear old results."""
        elsewhere = turn.options.platform != "anthropic" or bool(self.client.base_url)
        return elsewhere and error.details.get("status") == 400 and self.transcript.context_management() is not None

    def _request(self, turn: Turn, compact: bool) -> ModelRequest:
        """The SDK's keyword arguments; nothing in them changes within a session but what the model forces."""
        parameters: dict[str, Any] = {
            "model": wire_model(turn.options.model, turn.options.platform),
            "max_tokens": turn.max_tokens,
            "system": [{"type": "text", "text": turn.system, "cache_control": {"type": "ephemeral"}}],
            "tools": turn.definitions,
            **thinking_parameters(turn.info, turn.options),
        }
        betas = list(turn.info.betas)
        if compact:  # the SDK on `compaction`: "Cannot be combined with `context_management`."
            parameters["compaction"] = {"type": "summarize"}
            betas.append(COMPACTION_BETA)
        elif (management := self.transcript.context_management()) is not None:
            parameters["context_management"] = management
            betas.append(CLEARING_BETA)
        if self._thinking_is_stale(turn) and parameters.get("thinking", {}).get("type") == "adaptive":
            parameters["thinking"]["block_binding"] = {"prefix_mismatch_behavior": "drop_block"}
            betas.append(BINDING_BETA)
        if betas:
            parameters["betas"] = betas
        return ModelRequest(parameters, self.transcript.body())

    def _thinking_is_stale(self, turn: Turn) -> bool:
        """Whether the tools or the prompt changed under earlier thinking of a model that is bound to them."""
        identity = (turn.system, turn.definitions)
        if self._identity and identity != self._identity and turn.info.bound:
            self._drop_thinking = True
        self._identity = identity
        return self._drop_thinking


def refused(words: str, error: ModelRejected) -> StatusChanged:
    """Return the event that tells people about a refused request which the loop works around."""
    return StatusChanged("thinking", words, {"event": "request_refused", "error": error.message, **error.details})


def complete_usage(usage: dict[str, Any], size: int, images: int, said: int) -> dict[str, Any]:
    """Return counts for pricing; what a gateway leaves out is estimated on the high side, so that limits hold.

    ``size`` is the request's bytes, ``said`` the characters of the reply.
    """
    complete = dict(usage)
    if not any(isinstance(usage.get(key), int) for key in INPUT_COUNTS):
        # Images are counted at their largest cost; their base64 is most of the body, so text is bounded by the rest.
        text = size if not images else min(size, 200_000)
        complete["input_tokens"] = text // 3 + images * TOKENS_PER_IMAGE
    if not isinstance(usage.get("output_tokens"), int):
        complete["output_tokens"] = said // 2 + 1
    return complete


def _said(reply: Reply) -> int:
    return len(json.dumps(reply.content, ensure_ascii=False))


def _delta(turn: Turn, piece: Any) -> Event | None:
    if isinstance(piece, Text):
        turn.partial.append(piece.text)
        return TextDelta(piece.text)
    if isinstance(piece, Thought):
        return ThinkingDelta(piece.text)
    if isinstance(piece, Announced):
        return ToolAnnounced(piece.id, piece.name, piece.toolset)
    return None


def _context(usage: dict[str, Any]) -> int:
    return sum(usage.get(key) or 0 for key in INPUT_COUNTS)


def backoff(attempt: int, retry_after: float | None) -> float:
    """Seconds to wait: what the service asks for and a little more, else doubling from half a second to 30."""
    if retry_after is not None:
        return retry_after + random.uniform(0, min(1.0, 0.1 * retry_after + 0.1))
    return min(0.5 * 2.0 ** (attempt - 1), 30.0) * random.uniform(0.5, 1.0)
