"""The agent: from a message to actions, in four verbs.

``run`` takes a person's message to its end, ``_step`` is one request and what follows from it, ``_ask`` gets one whole
reply however often that has to be tried, and :mod:`.batch` carries its calls out. Everything that happens is an event;
whoever consumes them stores each before asking for the next, so nothing runs that is not on disk.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any

from ..desktop.base import Desktop
from ..errors import CambioError, DesktopError, DesktopLost, ModelRefused, ModelRejected, ModelUnavailable, TurnRunning
from ..events import (
    Event,
    HistoryAppended,
    HistoryDropped,
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
from .batch import Batch
from .client import Announced, ModelClient, ModelRequest, Reply, Sent, Started, Text, Thought, Transient, wire_model
from .gate import Gate, LimitReached, Stopped
from .limits import Limits
from .options import AgentOptions, TurnOptions, thinking_parameters
from .prompt import system_prompt
from .tools.bash import BashTool
from .tools.call import Tool
from .tools.editor import EditorTool
from .tools.extra import ExtraTool, ExtraTools
from .transcript import COMPACT_BETA, Transcript, close_open_batch, user_text
from .turn import Turn

log = logging.getLogger(__name__)
NUDGE = "Please go on, or say what you did and found."
CUT_REPLY = "Your reply was cut off at its token limit. Go on from there, in smaller steps."
MOST_NUDGES = 1
MOST_CUT_REPLIES = 3
MOST_FOLDS = 2
MOST_BROKEN = 3
MOST_TOKENS = 64_000
NOTHING = Usage()
BINDING_BETA = "thinking-binding-controls-2026-08-01"
CONTEXT_BETA = "context-management-2025-06-27"


class Agent:
    """One session's conversation with a model about one desktop. Runs one turn at a time."""

    def __init__(
        self,
        *,
        desktop: Desktop,
        options: AgentOptions,
        gate: Gate,
        client: ModelClient | None = None,
        history: Sequence[dict[str, Any]] = (),
        spent: Usage = NOTHING,
        steps: int = 0,
        extra_tools: ExtraTools | None = None,
    ) -> None:
        self.desktop = desktop
        self.options = options
        self.gate = gate
        self.usage = spent
        self.steps = steps
        self.extra_tools = extra_tools
        self._client = client or ModelClient(options.platform, options.base_url, options.model_stall)
        self._owns_client = client is None
        self._transcript = Transcript(
            close_open_batch(history),
            models.resolve(options.model, options.platform),
            pictures_side=max(desktop.size),
        )
        self._tools: list[Tool] | None = None
        self._requests = 0
        self._identity = ""
        self._drop_thinking = False
        self._running = False

    @property
    def history(self) -> list[dict[str, Any]]:
        """The conversation as Messages API messages, as it would be sent next."""
        return self._transcript.messages

    def clear(self) -> None:
        """Forget the conversation; what was spent stays counted."""
        if self._running:
            raise TurnRunning("The agent is at work on an earlier message.")
        self._transcript.clear()

    async def aclose(self) -> None:
        """Stop whatever runs and close the connections to the model."""
        await self.gate.aclose()
        if self._owns_client:
            await self._client.aclose()

    async def run(self, content: str, *, options: TurnOptions | None = None) -> AsyncGenerator[Event, None]:
        """One turn. Yields its events; the last is the one ``TurnFinished`` or ``TurnFailed``."""
        if self._running:
            raise TurnRunning("The agent is at work on an earlier message.")
        self._running = True
        turn = self._empty_turn(self.options)
        self.gate.begin()
        lost = asyncio.create_task(self._watch_desktop())
        try:
            turn = await self._prepare(options)
            turn.limits.arm(self.gate)
            async with aclosing(self._converse(turn, content)) as events:
                async for event in events:
                    yield event
            yield turn.finished()
        except Stopped:
            yield StatusChanged("stopped", "Stopped by the user.")
            yield turn.finished(stopped=True)
        except LimitReached as limit:
            yield StatusChanged("stopped", limit.words, {"event": "limit", "limit": limit.name})
            yield turn.finished(limit=limit.name)
        except DesktopLost as error:
            yield turn.failed("The desktop is gone.", error.describe(), fatal=True, kind="DesktopLost")
        except CambioError as error:
            yield turn.failed(error.message, error.describe(), kind=type(error).__name__)
        except Exception as error:
            log.exception("a turn failed")
            yield turn.failed("The agent failed.", f"An internal error ended the turn ({type(error).__name__}).")
        finally:
            turn.limits.disarm()
            await self._close(turn, lost)

    # One turn
    def _empty_turn(self, options: AgentOptions) -> Turn:
        info = models.resolve(options.model, options.platform)
        return Turn(
            options=options,
            info=info,
            limits=Limits(options, self.usage),
            tools=(),
            system=system_prompt(self.desktop.size, options.system),
            definitions=[],
            first_step=self.steps,
            first_message=len(self._transcript),
            max_tokens=options.max_tokens,
        )

    async def _prepare(self, options: TurnOptions | None) -> Turn:
        """The turn's settings and tools; loads the SDK the first time."""
        merged = self.options.with_turn(options)
        turn = self._empty_turn(merged)
        if problem := turn.info.images.problem(*self.desktop.size):
            raise ModelRejected(
                f"Pictures of this {self.desktop.size} screen are too large for {merged.model}: {problem}.",
                hint="Give the session a smaller display, such as 1280x800.",
            )
        await self.gate.race(self._client.open(merged.model))
        if self._tools is None:
            self._tools = await self._make_tools(turn)
        extra = (options.extra_tools if options else None) or self.extra_tools
        turn.tools = [*self._tools, *([ExtraTool(extra, limit=merged.shell_output)] if extra else [])]
        turn.definitions = [entry for tool in turn.tools for entry in tool.definitions()]
        self._transcript.info = turn.info
        return turn

    async def _make_tools(self, turn: Turn) -> list[Tool]:
        computer: Tool
        if turn.info.tool == models.TOOLSET:
            parts = await self.gate.race(self._client.parts())
            from .tools.computer import ComputerTool

            computer = ComputerTool(lambda: self.desktop, self.gate.admitted, parts)
        else:
            from .tools.legacy_computer import LegacyComputerTool

            computer = LegacyComputerTool(lambda: self.desktop, self.gate.admitted, turn.info.tool)
        options = turn.options
        bash = BashTool(lambda: self.desktop, timeout=options.shell_timeout, limit=options.shell_output)
        return [computer, bash, EditorTool(lambda: self.desktop, limit=options.shell_output)]

    async def _converse(self, turn: Turn, content: str) -> AsyncGenerator[Event, None]:
        yield self._append(user_text(content))
        done = False
        while not done:
            async with aclosing(self._step(turn)) as events:
                async for event in events:
                    done = event is DONE
                    if not done:
                        yield event

    async def _step(self, turn: Turn) -> AsyncGenerator[Event, None]:
        """One request, and what its reply asks for. Yields :data:`DONE` when the turn is over."""
        turn.limits.before_request()
        if self.gate.paused:
            yield StatusChanged("paused", "Paused before the next request.")
        await self.gate.passage()
        for event in self._make_room():
            yield event
        yield StatusChanged("thinking", "The model is thinking.")
        reply: Reply | None = None
        async with aclosing(self._ask(turn)) as answers:
            async for answer in answers:
                if isinstance(answer, Reply):
                    reply = answer
                else:
                    yield answer
        assert reply is not None, "_ask ends with a reply or raises"
        async with aclosing(self._follow(turn, reply)) as events:
            async for event in events:
                yield event

    async def _follow(self, turn: Turn, reply: Reply) -> AsyncGenerator[Event, None]:
        """What a stop reason means; see the table in docs/agent.md."""
        turn.stop_reason = reply.stop_reason
        if reply.stop_reason == "refusal":
            for event in self._forget_turn(turn):
                yield event
            category = reply.stop_details.get("category")
            raise ModelRefused(
                f"The model refused to go on{f' (category: {category})' if category else ''}.",
                hint="The refused turn was taken out of the conversation; put the request differently.",
                details=reply.stop_details,
            )
        if not _says_anything(reply):
            for event in self._after_empty(turn, reply):
                yield event
            return
        if reply.compacted:
            yield HistoryDropped(self._transcript.adopt_compaction(_assistant(reply)))
            turn.first_message = 0
            yield HistoryAppended(_assistant(reply))
        else:
            yield self._append(_assistant(reply))
        if reply.calls:
            async with aclosing(self._act(turn, reply)) as events:
                async for event in events:
                    yield event
        for event in self._after_reply(turn, reply):
            yield event

    async def _act(self, turn: Turn, reply: Reply) -> AsyncGenerator[Event, None]:
        """Carry the calls out and append their results, also when something halts them half-way."""
        turn.act()
        yield StatusChanged("acting", "Acting on the desktop.")
        batch = Batch(turn, self.gate, lambda: self.desktop, reply)
        halted: Exception | None = None
        try:
            async with aclosing(batch.run()) as events:
                async for event in events:
                    self.steps = turn.step
                    yield event
        except Exception as error:
            halted = error
        self.steps = turn.step
        if halted is None or len(batch.results) == len(reply.calls):
            yield self._append({"role": "user", "content": batch.results})
        if halted is not None:
            raise halted
        if batch.failed:
            await self._release()

    def _after_reply(self, turn: Turn, reply: Reply) -> list[Event]:
        """Whether to go on, by stop reason; may append a word to the model."""
        reason = reply.stop_reason
        if reason == "max_tokens":
            self._raise_max_tokens(turn)
            return [] if reply.calls else [self._append(user_text(CUT_REPLY))]
        if reason == "model_context_window_exceeded":
            return self._fold(turn)
        if reason in ("pause_turn", "compaction") or (reason == "tool_use" and reply.calls):
            return []
        return [DONE]

    def _after_empty(self, turn: Turn, reply: Reply) -> list[Event]:
        """A reply without text or calls is not kept: the service would refuse to have it back."""
        if reply.stop_reason == "max_tokens":  # it thought until its limit
            self._raise_max_tokens(turn)
            return []
        if reply.stop_reason == "model_context_window_exceeded":
            return self._fold(turn)
        if turn.nudges < MOST_NUDGES:
            turn.nudges += 1
            return [self._append(user_text(NUDGE))]
        return [DONE]

    def _raise_max_tokens(self, turn: Turn) -> None:
        turn.cut_replies += 1
        if turn.cut_replies > MOST_CUT_REPLIES:
            raise ModelUnavailable(
                f"The model's replies were cut off {turn.cut_replies} times at {turn.max_tokens} tokens.",
                hint="Raise max_tokens or ask for less at once.",
            )
        turn.max_tokens = max(turn.max_tokens, min(turn.max_tokens * 2, MOST_TOKENS))

    # The conversation
    def _append(self, message: dict[str, Any]) -> HistoryAppended:
        self._transcript.append(message)
        return HistoryAppended(message)

    def _forget_turn(self, turn: Turn) -> list[Event]:
        count = len(self._transcript) - turn.first_message
        self._transcript.drop(count)
        return [HistoryDropped(count)] if count else []

    def _make_room(self) -> list[Event]:
        folded = self._transcript.make_room()
        return [HistoryDropped(folded[0]), HistoryAppended(folded[1])] if folded else []

    def _fold(self, turn: Turn) -> list[Event]:
        turn.folds += 1
        if turn.folds > MOST_FOLDS:
            raise ModelRejected(
                "The conversation does not fit into the model's context, even summarised.",
                hint="Clear the history or start a new session.",
            )
        turn.first_message = 0
        count, message = self._transcript.fold()
        return [HistoryDropped(count), HistoryAppended(message)]

    # The model
    async def _ask(self, turn: Turn) -> AsyncGenerator[Any, None]:
        """Events, and last one whole :class:`Reply`. Nothing of a broken reply is kept, so asking again is safe."""
        attempt = broken = 0
        while True:
            turn.partial.clear()
            try:
                async with aclosing(self._ask_once(turn)) as answers:
                    async for answer in answers:
                        yield answer
                return
            except Transient as problem:
                attempt += 1
                broken += problem.broken
                if attempt > turn.options.model_retries or broken > MOST_BROKEN:
                    raise ModelUnavailable(
                        f"The model could not answer: {problem.reason}.",
                        hint=f"It was asked {attempt} times; send the message again later.",
                    ) from problem
                delay = _delay(attempt, problem.retry_after)
                dropped = sum(map(len, turn.partial))
                yield Retrying(attempt, delay, time.time() + delay, problem.reason, dropped)
            turn.partial.clear()
            await self.gate.race(asyncio.sleep(delay))
            turn.limits.before_request()

    async def _ask_once(self, turn: Turn) -> AsyncGenerator[Any, None]:
        request = self._request(turn)
        started_at = time.perf_counter()
        begun: dict[str, Any] = {}
        size = 0
        try:
            async with aclosing(self.gate.stream(self._client.stream(request))) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Sent):
                        size = piece.size
                        self._requests += 1
                        yield RequestSent(self._requests, turn.options.model, piece.sha256, piece.size, piece.images)
                    elif isinstance(piece, Started):
                        begun = piece.usage
                    elif isinstance(piece, Reply):
                        begun = {}
                        yield self._replied(turn, piece, size, (time.perf_counter() - started_at) * 1000)
                        yield piece
                    elif (event := _delta(turn, piece)) is not None:
                        yield event
        finally:
            if begun:  # the service counted the input, though the reply was dropped
                self._spend(turn, models.price(turn.options.model, begun))

    def _replied(self, turn: Turn, reply: Reply, size: int, took: float) -> ModelReplied:
        usage = models.price(turn.options.model, reply.usage)
        self._spend(turn, usage)
        self._transcript.measure(_context(reply.usage), size)
        turn.partial.clear()
        turn.said.append(reply.text)
        return ModelReplied(self._requests, reply.stop_reason, usage, took, reply.text)

    def _spend(self, turn: Turn, usage: Usage) -> None:
        turn.limits.used += usage
        self.usage = turn.limits.total

    def _request(self, turn: Turn) -> ModelRequest:
        """The SDK's keyword arguments; nothing in them changes within a session but what the model forces."""
        parameters: dict[str, Any] = {
            "model": wire_model(turn.options.model, turn.options.platform),
            "max_tokens": turn.max_tokens,
            "system": [{"type": "text", "text": turn.system, "cache_control": {"type": "ephemeral"}}],
            "tools": turn.definitions,
            **thinking_parameters(turn.info, turn.options),
        }
        betas = list(turn.info.betas)
        if (management := self._transcript.context_management()) is not None:
            parameters["context_management"] = management
            betas.append(COMPACT_BETA)
        if self._thinking_is_stale(turn) and parameters.get("thinking", {}).get("type") == "adaptive":
            parameters["thinking"]["block_binding"] = {"prefix_mismatch_behavior": "drop_block"}
            betas.append(BINDING_BETA)
        if betas:
            parameters["betas"] = betas
        return ModelRequest(parameters, self._transcript.body())

    def _thinking_is_stale(self, turn: Turn) -> bool:
        """Whether the tools or the prompt changed under earlier thinking of a model that is bound to them."""
        identity = json.dumps([turn.system, turn.definitions], sort_keys=True)
        if self._identity and identity != self._identity and turn.info.bound:
            self._drop_thinking = True
        self._identity = identity
        return self._drop_thinking

    # The desktop
    async def _watch_desktop(self) -> None:
        reason = await self.desktop.lost()
        self.gate.halt(DesktopLost(reason, hint="Start a new session."))

    async def _release(self) -> None:
        """Let go of every key and button; on a dead desktop there is nothing to let go of."""
        with suppress(DesktopError, TimeoutError):
            async with asyncio.timeout(2):
                await self.desktop.release_all()

    async def _close(self, turn: Turn, lost: asyncio.Task[None]) -> None:
        lost.cancel()
        await asyncio.wait({lost})
        self.gate.end()
        self._running = False
        self.steps = turn.step
        closed = close_open_batch(self._transcript.messages)
        for message in closed[len(self._transcript) :]:  # the consumer left in the middle of a batch
            self._transcript.append(message)
        if turn.calls:
            await self._release()


class _Done(Event):
    """The turn is over."""


DONE = _Done()


def _delta(turn: Turn, piece: Any) -> Event | None:
    if isinstance(piece, Text):
        turn.partial.append(piece.text)
        return TextDelta(piece.text)
    if isinstance(piece, Thought):
        return ThinkingDelta(piece.text)
    if isinstance(piece, Announced):
        return ToolAnnounced(piece.id, piece.name, piece.toolset)
    return None


def _assistant(reply: Reply) -> dict[str, Any]:
    return {"role": "assistant", "content": reply.content}


def _says_anything(reply: Reply) -> bool:
    return any(block.get("type") not in ("thinking", "redacted_thinking") for block in reply.content)


def _context(usage: dict[str, Any]) -> int:
    keys = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return sum(usage.get(key) or 0 for key in keys)


def _delay(attempt: int, retry_after: float | None) -> float:
    """Seconds to wait: what the service asks for and a little more, else doubling from half a second to 30."""
    if retry_after is not None:
        return retry_after + random.uniform(0, min(1.0, 0.1 * retry_after + 0.1))
    return min(0.5 * 2.0 ** (attempt - 1), 30.0) * random.uniform(0.5, 1.0)
