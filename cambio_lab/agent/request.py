"""What is sent to the model, and what is done when it cannot answer."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from ..errors import ModelRejected, ModelUnavailable
from ..events import RequestSent, Usage
from . import models
from .client import ModelRequest, Transient, wire_model
from .options import thinking_parameters
from .reply import INPUT_COUNTS, Reply, Sent, complete_usage
from .turn import Turn

MAX_BROKEN = 3
MAX_UNREACHABLE = 3  # tries to connect to an address that has never answered
BINDING_BETA = "thinking-binding-controls-2026-08-01"
CLEARING_BETA = "context-management-2025-06-27"
COMPACTION_BETA = "compact-2026-09-04"


@dataclass
class Requests:
    """Builds the requests of one session."""

    count: int = 0
    answered: bool = False
    """The service has answered at least once."""
    cleared: bool = False
    """The service has answered a request that asks it to clear old results."""
    _identity: tuple[str, list[dict[str, Any]]] | None = None
    _drop_thinking: bool = False

    def build(self, turn: Turn, *, compact: bool) -> ModelRequest:
        """Return the SDK's keyword arguments and the messages; within a session only what must changes."""
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
        elif (management := turn.transcript.context_management()) is not None:
            parameters["context_management"] = management
            betas.append(CLEARING_BETA)
        if self._thinking_is_stale(turn) and parameters.get("thinking", {}).get("type") == "adaptive":
            parameters["thinking"]["block_binding"] = {"prefix_mismatch_behavior": "drop_block"}
            betas.append(BINDING_BETA)
        if betas:
            parameters["betas"] = betas
        return ModelRequest(parameters, turn.transcript.body())

    def sent(self, turn: Turn, sent: Sent) -> RequestSent:
        return RequestSent(self.count, turn.options.model, sent.sha256, sent.size, sent.images)

    def received(self, turn: Turn, reply: Reply, sent: Sent) -> Usage:
        """Note a whole reply; return what it cost."""
        self.cleared = self.cleared or turn.transcript.context_management() is not None
        counts = complete_usage(reply.usage, sent, reply)
        if not reply.compacted:
            turn.transcript.input_tokens = sum(counts.get(key) or 0 for key in INPUT_COUNTS)
        turn.partial.clear()
        turn.said.append(reply.text)
        usage = models.price(turn.options.model, counts)
        turn.limits.used += usage
        return usage

    def may_drop_clearing(self, turn: Turn, error: ModelRejected, *, elsewhere: bool) -> bool:
        """Return whether a gateway (``elsewhere``) or platform may only have refused to clear old results."""
        undocumented = turn.options.platform != "anthropic" or elsewhere
        asked = turn.transcript.context_management() is not None
        return undocumented and error.details.get("status") == 400 and asked and not self.cleared

    def _thinking_is_stale(self, turn: Turn) -> bool:
        """Return whether tools or prompt changed under earlier thinking of a model whose thinking is bound to them."""
        identity = (turn.system, turn.definitions)
        if self._identity and identity != self._identity and turn.info.bound:
            self._drop_thinking = True
        self._identity = identity
        return self._drop_thinking


@dataclass
class Retries:
    """The failed tries of one query."""

    limit: int
    count: int = 0
    broken: int = 0
    unreachable: int = 0

    def next_delay(self, problem: Transient, *, answered: bool) -> float:
        """Return seconds to wait before the next try; :class:`ModelUnavailable` when there were enough."""
        self.count += 1
        self.broken += problem.broken
        self.unreachable += problem.unreachable and not answered
        if self.count > self.limit or self.broken > MAX_BROKEN or self.unreachable >= MAX_UNREACHABLE:
            raise ModelUnavailable(
                f"The model could not answer: {problem.reason}.",
                hint=f"It was asked {self.count} times; check the network, or send the message again later.",
            ) from problem
        return backoff(self.count, problem.retry_after)


def backoff(attempt: int, retry_after: float | None) -> float:
    """Return seconds to wait: what the service asks for and a little more, else doubling from half a second to 30."""
    if retry_after is not None:
        return retry_after + random.uniform(0, min(1.0, 0.1 * retry_after + 0.1))
    return min(0.5 * 2.0 ** (attempt - 1), 30.0) * random.uniform(0.5, 1.0)
