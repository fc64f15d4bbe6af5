"""What one turn knows while it runs: its options, its events, its requests, what it has said, done and used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ModelRejected
from ..events import (
    Event,
    HistoryAppended,
    HistoryDropped,
    MessageDelivered,
    TurnFailed,
    TurnFinished,
    Usage,
)
from . import models
from .gate import Gate, LimitReached, QueuedMessage
from .options import AgentOptions, AnswerSchema, thinking_parameters
from .reply import INPUT_COUNTS, Reply, Sent, complete_usage, price
from .tools import Call, Tool
from .transcript import Body, Message, Transcript, user_text

BUDGET_BETA = "task-budgets-2026-03-13"
BINDING_BETA = "thinking-binding-controls-2026-08-01"
CLEARING_BETA = "context-management-2025-06-27"
COMPACTION_BETA = "compact-2026-09-04"
Emit = Callable[[Event], Awaitable[None]]
"""Where a turn's events go. It is awaited before the loop goes on; an exception of it ends the turn and is raised."""


@dataclass(eq=False)
class SinkFailed(BaseException):
    """The sink of the events failed with ``error``. Not an ``Exception``: no handler of the loop may take it."""

    error: Exception


@dataclass
class Limits:
    """What one turn may use and has used; reaching a limit is a clean end. ``spent`` is the session's use before."""

    options: AgentOptions
    spent: Usage
    used: Usage = Usage()
    steps: int = 0
    started: float = field(default_factory=time.monotonic)
    _alarm: asyncio.TimerHandle | None = None

    def arm(self, gate: Gate) -> None:
        """Halt the turn when its wall time is over."""
        seconds = self.options.max_turn_seconds
        if seconds:
            reason = LimitReached("max_seconds", f"The turn's time limit of {seconds:g} seconds was reached.")
            self._alarm = asyncio.get_running_loop().call_later(seconds, gate.halt, reason)

    def disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    @property
    def elapsed(self) -> float:
        """Seconds since the turn began."""
        return time.monotonic() - self.started

    @property
    def total(self) -> Usage:
        """The whole session's usage, this turn included."""
        return self.spent + self.used

    def before_request(self) -> None:
        """Raise :class:`LimitReached` when another request would exceed tokens or money."""
        money, tokens, used = self.options.max_cost_usd, self.options.max_turn_tokens, self.used
        if money and self.total.cost_usd >= money:
            raise LimitReached(
                "max_cost_usd", f"The session has spent ${self.total.cost_usd:.2f} of the ${money:.2f} it may spend."
            )
        cached = used.cache_creation_input_tokens + used.cache_read_input_tokens
        if tokens and (count := used.input_tokens + used.output_tokens + cached) >= tokens:
            raise LimitReached("max_tokens", f"The turn has used {count} of the {tokens} tokens it may use.")
        self.before_step()

    def before_step(self) -> None:
        """Raise :class:`LimitReached` when the turn has made all the tool calls it may make."""
        steps = self.options.max_steps
        if steps and self.steps >= steps:
            raise LimitReached("max_steps", f"The turn has made the {steps} tool calls it may make.")


@dataclass
class TurnState:
    """From a user's message to the one event that ends it."""

    sink: Emit
    transcript: Transcript
    options: AgentOptions
    info: models.ModelInfo
    limits: Limits
    system: str
    first_step: int
    """How many calls the session had made before this turn."""
    first_message: int
    """Where this turn's own messages begin in the history; a refusal removes them."""
    max_tokens: int = 0
    tools: Sequence[Tool] = ()
    definitions: list[dict[str, Any]] = field(default_factory=list)
    schema: AnswerSchema | None = None
    """What the final text must fit."""
    output_format: dict[str, Any] | None = None
    """The same as the service's structured outputs want it; ``None`` where the model has none."""
    answer: Any = None
    done: bool = False
    calls: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """What the agent has said since its last call."""
    partial: list[str] = field(default_factory=list)
    """What has arrived of the reply that is being written."""
    said_before: str = ""
    nudges: int = 0
    cut_replies: int = 0
    summaries: int = 0
    repairs: int = 0
    stop_reason: str = "end_turn"

    def apply(self, options: AgentOptions) -> None:
        """Use the message's own options from here on."""
        self.options = self.limits.options = options
        self.info = self.transcript.info = models.resolve(options.model, options.platform)
        self.max_tokens = options.max_tokens

    # Events
    async def emit(self, event: Event) -> None:
        try:
            await self.sink(event)
        except Exception as error:
            raise SinkFailed(error) from error

    async def append(self, message: Message) -> None:
        """Add a message to the conversation."""
        self.transcript.append(message)
        await self.emit(HistoryAppended(message))

    async def deliver(self, message: QueuedMessage) -> None:
        """Add a message that came during the turn; what was said before it is no longer the final text."""
        self.act()
        self.done = False
        await self.emit(MessageDelivered(message.message_id, message.content, message.note))
        await self.append(user_text(message.content))

    async def replace(self, count: int, *messages: Message) -> None:
        """Replace the last ``count`` messages of the conversation."""
        self.transcript.drop(count)
        await self.emit(HistoryDropped(count))
        for message in messages:
            await self.append(message)

    async def replace_all(self, *messages: Message) -> None:
        """Replace the whole conversation: a refusal later in this turn can only remove what follows."""
        self.first_message = self.transcript.input_tokens = 0
        await self.replace(len(self.transcript), *messages)

    async def take_back(self) -> None:
        """Remove this turn's messages from the conversation."""
        await self.replace(len(self.transcript) - self.first_message)

    # Calls
    @property
    def step(self) -> int:
        """The number of the latest call, counted over the whole session."""
        return self.first_step + self.limits.steps

    def tool_for(self, call: Call) -> Tool | None:
        return next((tool for tool in self.tools if tool.serves(call)), None)

    def count(self, member: str) -> int:
        """Count a call, whether or not it will run; return its step number."""
        self.calls.append(member)
        self.limits.steps += 1
        return self.step

    def act(self) -> None:
        """Note that calls are about to run: what was said before them is no longer the final text."""
        self.said_before = self.text or self.said_before
        self.said.clear()

    # The end
    @property
    def text(self) -> str:
        """The final text: everything since the last call."""
        return "".join([*self.said, *self.partial])

    def finished(self, *, stopped: bool = False, limit: str | None = None) -> TurnFinished:
        text = self.text
        cut_short = stopped or limit is not None
        return TurnFinished(
            text=text if text or not cut_short else self.said_before,
            tool_calls=list(self.calls),
            processing_time=self.limits.elapsed,
            usage=self.limits.used,
            stopped=stopped,
            limit=limit,
            needs_input=not cut_short and text.rstrip("*_`\"') \n").endswith("?"),
            stop_reason="stopped" if stopped else self.stop_reason,
            answer=self.answer,
            unfinished="".join(self.partial),
        )

    def failed(self, error: str, details: str, *, fatal: bool = False, kind: str = "") -> TurnFailed:
        return TurnFailed(
            error=error,
            details=details,
            processing_time=self.limits.elapsed,
            usage=self.limits.used,
            tool_calls=list(self.calls),
            fatal=fatal,
            kind=kind,
        )


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

    def build(self, turn: TurnState, *, compact: bool) -> tuple[dict[str, Any], Body]:
        """Return the SDK's keyword arguments and the messages; within a session only what must changes."""
        parameters: dict[str, Any] = {
            "model": models.wire_model(turn.options.model, turn.options.platform),
            "max_tokens": turn.max_tokens,
            "system": [{"type": "text", "text": turn.system, "cache_control": {"type": "ephemeral"}}],
            "tools": turn.definitions,
            **thinking_parameters(turn.info, turn.options),
        }
        if turn.output_format is not None:
            parameters["output_config"] = {**parameters.get("output_config", {}), "format": turn.output_format}
        betas = list(turn.info.betas)
        if budget := turn.options.task_budget:
            task = {"type": "tokens", "total": budget}
            parameters["output_config"] = {**parameters.get("output_config", {}), "task_budget": task}
            betas.append(BUDGET_BETA)
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
        return parameters, turn.transcript.body()

    def received(self, turn: TurnState, reply: Reply, sent: Sent) -> Usage:
        """Note a whole reply; return what it cost."""
        self.cleared = self.cleared or turn.transcript.context_management() is not None
        counts = complete_usage(reply.usage, sent, reply)
        weight = sum(counts.get(key) or 0 for key in INPUT_COUNTS)
        if weight and not reply.compacted:  # a client in the model's place counts nothing
            turn.transcript.input_tokens = weight
        turn.partial.clear()
        turn.said.append(reply.text)
        usage = price(turn.options.model, counts)
        turn.limits.used += usage
        return usage

    def may_drop_clearing(self, turn: TurnState, error: ModelRejected, *, elsewhere: bool) -> bool:
        """Return whether a gateway (``elsewhere``) or platform may only have refused to clear old results."""
        undocumented = turn.options.platform != "anthropic" or elsewhere
        asked = turn.transcript.context_management() is not None
        return undocumented and error.details.get("status") == 400 and asked and not self.cleared

    def _thinking_is_stale(self, turn: TurnState) -> bool:
        """Return whether tools or prompt changed under earlier thinking of a model whose thinking is bound to them."""
        identity = (turn.system, turn.definitions)
        if self._identity and identity != self._identity and turn.info.bound:
            self._drop_thinking = True
        self._identity = identity
        return self._drop_thinking
