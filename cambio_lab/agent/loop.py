"""The agent: from a message to actions, in four verbs.

``run`` takes a person's message to its end, ``_step`` is one request and what follows from it, :mod:`.ask` gets one
whole reply, and :mod:`.batch` carries its calls out. Everything that happens is an event; whoever consumes them stores
each before asking for the next, so nothing runs that is not on disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any

from ..desktop.base import Desktop
from ..errors import CambioError, DesktopError, DesktopLost, ModelRefused, ModelRejected, ModelUnavailable, TurnRunning
from ..events import Event, HistoryAppended, HistoryDropped, StatusChanged, Usage
from . import models
from .ask import NOTHING, Ask
from .batch import Batch
from .client import ModelClient, Reply
from .gate import Gate, LimitReached, Stopped
from .limits import Limits
from .options import AgentOptions, TurnOptions
from .prompt import system_prompt
from .repair import is_about_content, repair
from .room import fold, make_room
from .tools.call import Tool
from .tools.extra import ExtraTool, ExtraTools
from .tools.kit import make_tools
from .transcript import Transcript, close_open_batch, user_text
from .turn import Turn

log = logging.getLogger(__name__)
NUDGE = "Please go on, or say what you did and found."
CUT_REPLY = "Your reply was cut off at its token limit. Go on from there, in smaller steps."
MOST_NUDGES = 1
MOST_CUT_REPLIES = 3
MOST_TOKENS = 64_000


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
        self.options = options
        self.gate = gate
        self.extra_tools = extra_tools
        info = models.resolve(options.model, options.platform)
        self.desktop = desktop
        self._client = client or ModelClient(options.platform, options.base_url, options.model_stall)
        self._owns_client = client is None
        self._transcript = Transcript(close_open_batch(history), info, pictures_side=max(desktop.size))
        self._ask = Ask(self._client, gate, self._transcript)
        self._tools: list[Tool] | None = None
        self._spent = spent
        self._steps = steps
        self._turn: Turn | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        """The conversation as Messages API messages, as it would be sent next; made anew at each call."""
        return self._transcript.messages

    @property
    def desktop(self) -> Desktop:
        """The desktop; it can be replaced by the same one, had back after a restart."""
        return self._desktop

    @desktop.setter
    def desktop(self, desktop: Desktop) -> None:
        self._desktop = desktop
        images = models.resolve(self.options.model, self.options.platform).images
        # Images of up to many_edge pixels a side may be sent in any number; coordinates are those of the screenshots.
        desktop.limit_screenshots(min(images.edge, images.many_edge), images.tokens, self.options.image_format)

    @property
    def usage(self) -> Usage:
        """Tokens and money of the whole session, the running turn included."""
        return self._turn.limits.total if self._turn else self._spent

    @property
    def steps(self) -> int:
        """Tool calls of the whole session."""
        return self._turn.step if self._turn else self._steps

    def clear(self) -> None:
        """Forget the conversation; what was spent stays counted."""
        if self._turn is not None:
            raise TurnRunning("The agent is at work on an earlier message.")
        self._transcript.clear()

    async def aclose(self) -> None:
        """Stop whatever runs and close the connections to the model."""
        await self.gate.aclose()
        if self._owns_client:
            await self._client.aclose()

    async def run(self, content: str, *, options: TurnOptions | None = None) -> AsyncGenerator[Event, None]:
        """One turn. Yields its events; the last is the one ``TurnFinished`` or ``TurnFailed``."""
        if self._turn is not None:
            raise TurnRunning("The agent is at work on an earlier message.")
        turn = self._turn = self._new_turn(self.options)
        self.gate.begin()
        lost = asyncio.create_task(self._watch_desktop())
        try:
            await self._prepare(turn, options)
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
            await self._close(turn, lost)

    # A turn's beginning and end
    def _new_turn(self, options: AgentOptions) -> Turn:
        return Turn(
            options=options,
            info=models.resolve(options.model, options.platform),
            limits=Limits(options, self._spent),
            system=system_prompt(self.desktop.size, self.options.system),
            first_step=self._steps,
            first_message=len(self._transcript),
            max_tokens=options.max_tokens,
        )

    async def _prepare(self, turn: Turn, asked: TurnOptions | None) -> None:
        """The turn's settings and tools; loads the SDK the first time."""
        options = turn.options = turn.limits.options = self.options.with_turn(asked)
        turn.info = models.resolve(options.model, options.platform)
        turn.max_tokens = options.max_tokens
        turn.limits.arm(self.gate)
        if problem := turn.info.images.problem(*self.desktop.size):
            raise ModelRejected(
                f"Pictures of this {self.desktop.size} screen are too large for {options.model}: {problem}.",
                hint="Give the session a smaller display, such as 1280x800.",
            )
        await self.gate.race(self._client.open(options.model))
        if self._tools is None:
            parts = await self.gate.race(self._client.parts())
            self._tools = make_tools(turn.info, options, lambda: self.desktop, self.gate, parts)
        extra = (asked.extra_tools if asked else None) or self.extra_tools
        turn.tools = [*self._tools, *([ExtraTool(extra, limit=options.shell_output)] if extra else [])]
        turn.definitions = [entry for tool in turn.tools for entry in tool.definitions()]
        self._transcript.info = turn.info

    async def _close(self, turn: Turn, lost: asyncio.Task[None]) -> None:
        turn.limits.disarm()
        lost.cancel()
        await asyncio.wait({lost})
        self.gate.end()
        self._spent, self._steps, self._turn = turn.limits.total, turn.step, None
        self._transcript.close_open_batch()  # the consumer may have left in the middle of one
        if turn.calls:
            await self._release()

    # One step
    async def _converse(self, turn: Turn, content: str) -> AsyncGenerator[Event, None]:
        yield self._append(user_text(content))
        while not turn.done:
            async with aclosing(self._step(turn)) as events:
                async for event in events:
                    yield event

    async def _step(self, turn: Turn) -> AsyncGenerator[Event, None]:
        """One request, and what its reply asks for."""
        turn.limits.before_request()
        if self.gate.paused:
            yield StatusChanged("paused", "Paused before the next request.")
        await self.gate.passage()
        self._transcript.prune()
        if self._transcript.crowded:
            async with aclosing(make_room(self._ask, turn)) as events:
                async for event in events:
                    yield event
        yield StatusChanged("thinking", "The model is thinking.")
        try:
            async with aclosing(self._ask.reply(turn)) as answers:
                async for answer in answers:
                    if not isinstance(answer, Reply):
                        yield answer
                        continue
                    async with aclosing(self._follow(turn, answer)) as events:
                        async for event in events:
                            yield event
        except ModelRejected as error:
            if not is_about_content(error):
                raise
            for event in repair(self._transcript, turn, error):
                yield event

    async def _follow(self, turn: Turn, reply: Reply) -> AsyncGenerator[Event, None]:
        """What a reply's stop reason means; see the table in docs/agent.md."""
        turn.stop_reason = reply.stop_reason
        if reply.stop_reason == "refusal":
            count = len(self._transcript) - turn.first_message
            self._transcript.drop(count)
            yield HistoryDropped(count)
            category = reply.stop_details.get("category")
            raise ModelRefused(
                f"The model refused to go on{f' (category: {category})' if category else ''}.",
                hint="The refused turn was taken out of the conversation; put the request differently.",
                details=reply.stop_details,
            )
        if not reply.says_anything:
            for event in self._after_empty(turn, reply):
                yield event
            return
        if reply.compacted:
            yield HistoryDropped(self._transcript.adopt_compaction(reply.message))
            turn.first_message = 0
            yield HistoryAppended(reply.message)
        else:
            yield self._append(reply.message)
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
        if reply.stop_reason == "tool_use":
            turn.folds = 0
        batch = Batch(turn, self.gate, lambda: self.desktop, reply)
        halted: Exception | None = None
        try:
            async with aclosing(batch.run()) as events:
                async for event in events:
                    yield event
        except Exception as error:
            halted = error
        if len(batch.results) == len(reply.calls):
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
            return fold(self._transcript, turn)
        turn.done = not (reason in ("pause_turn", "compaction") or (reason == "tool_use" and reply.calls))
        return []

    def _after_empty(self, turn: Turn, reply: Reply) -> list[Event]:
        """A reply without text or calls is not kept: the service would refuse to have it back."""
        if reply.stop_reason == "max_tokens":  # it thought until its limit
            self._raise_max_tokens(turn)
            return []
        if reply.stop_reason == "model_context_window_exceeded":
            return fold(self._transcript, turn)
        turn.nudges += 1
        turn.done = turn.nudges > MOST_NUDGES
        return [] if turn.done else [self._append(user_text(NUDGE))]

    def _raise_max_tokens(self, turn: Turn) -> None:
        turn.cut_replies += 1
        if turn.cut_replies > MOST_CUT_REPLIES:
            raise ModelUnavailable(
                f"The model's replies were cut off {turn.cut_replies} times, last at {turn.max_tokens} tokens.",
                hint="Raise max_tokens or ask for less at once.",
            )
        most = min(MOST_TOKENS, turn.info.most_output)
        turn.max_tokens = max(turn.max_tokens, min(turn.max_tokens * 2, most))

    # The conversation
    def _append(self, message: dict[str, Any]) -> HistoryAppended:
        self._transcript.append(message)
        return HistoryAppended(message)

    # The desktop
    async def _watch_desktop(self) -> None:
        reason = await self.desktop.lost()
        self.gate.halt(DesktopLost(reason, hint="Start a new session."))

    async def _release(self) -> None:
        """Let go of every key and button; on a dead desktop there is nothing to let go of."""
        with suppress(DesktopError, TimeoutError):
            async with asyncio.timeout(2):
                await self.desktop.release_all()
