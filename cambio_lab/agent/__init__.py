"""The agent: from a user's message to actions, in four verbs.

``run`` carries a message to the turn's end, ``_step`` is one request and what follows from it, ``_query`` gets one
whole reply, ``_execute`` carries out its calls. Everything that happens is an event, given to a sink that is awaited:
a session stores each before the loop goes on, so nothing runs that is not on disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress

from .. import events
from ..desktop.base import Desktop
from ..errors import CambioError, DesktopError, DesktopLost, ModelRejected, TurnRunning
from ..events import StatusChanged, TextDelta, ThinkingDelta, ToolAnnounced, TurnFailed, TurnFinished, Usage
from . import context, models
from .calls import Calls, browses, make_tools
from .client import ModelClient, Speaker, load_sdk
from .extras import ExtraTool, ExtraTools
from .gate import Gate, LimitReached, QueuedMessage, Stopped
from .options import AgentOptions, AnswerSchema, TurnOptions, system_prompt
from .reply import Reply, Sent, Started, complete_usage, price
from .service_errors import Retries, Transient
from .tools import Tool
from .transcript import Message, Transcript, close_open_batch, user_text
from .turn import Emit, Limits, Requests, SinkFailed, TurnState

__all__ = ["Agent", "AgentOptions", "ExtraTools", "Gate", "LimitReached", "Stopped", "TurnOptions"]
log = logging.getLogger(__name__)


class Agent:
    """One session's conversation with a model about one desktop. Runs one turn at a time."""

    def __init__(
        self,
        *,
        desktop: Desktop,
        options: AgentOptions,
        gate: Gate,
        client: ModelClient | None = None,
        history: Sequence[Message] = (),
        spent: Usage = Usage(),  # noqa: B008 - frozen
        steps: int = 0,
        extra_tools: ExtraTools | None = None,
    ) -> None:
        info = models.resolve(options.model, options.platform)
        self.options = options
        self.gate = gate
        self.extra_tools = extra_tools
        self.desktop = desktop
        desktop.limit_screenshots(info.images.largest_edge, info.images.tokens, options.image_format)
        self._client = client or ModelClient(options.platform, options.base_url, options.model_stall)
        self._speaker = Speaker(self._client)
        self._browses = browses(info, options, desktop)
        self._transcript = Transcript(close_open_batch(history), info, image_side=max(desktop.size))
        self._requests = Requests()
        self._tools: list[Tool] | None = None
        self._spent = spent
        self._steps = steps
        self._turn: TurnState | None = None
        self.next_message: Callable[..., QueuedMessage | None] = gate.next_message
        """Gives the messages that came during the turn; a replay gives them where they were delivered."""

    @property
    def history(self) -> list[Message]:
        """The conversation as Messages API messages, as it would be sent next; a copy."""
        return self._transcript.messages

    @property
    def usage(self) -> Usage:
        """Tokens and money of the whole session, the running turn included."""
        return self._turn.limits.total if self._turn else self._spent

    @property
    def steps(self) -> int:
        """Tool calls of the whole session."""
        return self._turn.step if self._turn else self._steps

    def count_step(self) -> int:
        """Count a step that a person made on the desktop; return its number."""
        if self._turn is None:
            self._steps += 1
        else:
            self._turn.first_step += 1
        return self.steps

    def clear(self) -> None:
        """Forget the conversation; what was spent stays counted."""
        if self._turn is not None:
            raise TurnRunning("The agent is at work on an earlier message.")
        self._transcript.clear()

    async def aclose(self) -> None:
        """Stop whatever runs and close the client, which opens again when it is asked again."""
        await self.gate.aclose()
        await self._speaker.aclose()

    async def run(self, content: str, emit: Emit, *, options: TurnOptions | None = None) -> None:
        """Carry one turn to its end. The last event is the one ``TurnFinished`` or ``TurnFailed``."""
        if self._turn is not None:
            raise TurnRunning("The agent is at work on an earlier message.")
        turn = self._turn = TurnState(
            sink=emit,
            transcript=self._transcript,
            options=self.options,
            info=self._transcript.info,
            limits=Limits(self.options, self._spent),
            system=system_prompt(self.desktop.size, self.options.system, browser=self._browses),
            first_step=self._steps,
            first_message=len(self._transcript),
        )
        self.gate.begin()
        lost = asyncio.create_task(self._watch_desktop())
        try:
            await turn.emit(await self._converse(turn, content, options))
        except SinkFailed as failure:
            raise failure.error from None
        finally:
            await self._close(turn, lost)

    async def _converse(self, turn: TurnState, content: str, asked: TurnOptions | None) -> TurnFinished | TurnFailed:
        try:
            await self._prepare(turn, asked)
            if turn.schema is not None and turn.output_format is None:
                content = f"{content}\n\n{turn.schema.instruction}"
            await turn.append(user_text(content, asked.images if asked else ()))
            while not turn.done:
                await self._step(turn)
            return turn.finished()
        except Stopped:
            await turn.emit(StatusChanged("stopped", "Stopped by the user."))
            return turn.finished(stopped=True)
        except LimitReached as limit:
            await turn.emit(StatusChanged("stopped", limit.words, {"event": "limit", "limit": limit.name}))
            return turn.finished(limit=limit.name)
        except DesktopLost as error:
            return turn.failed("The desktop is gone.", error.describe(), fatal=True, kind="DesktopLost")
        except CambioError as error:
            return turn.failed(error.message, error.describe(), kind=type(error).__name__)
        except Exception as error:
            log.exception("turn failed")
            return turn.failed("The agent failed.", f"An internal error ended the turn ({type(error).__name__}).")

    async def _step(self, turn: TurnState) -> None:
        """Make a request, and do what follows from its reply."""
        turn.limits.before_request()
        if self.gate.paused:
            await turn.emit(StatusChanged("paused", "Paused before the next request."))
        await self.gate.passage()
        await self._deliver(turn)
        self._transcript.prune()
        if self._transcript.crowded:
            await context.make_room(turn, None if self._speaker.by_client else lambda: self._query(turn, compact=True))
        await turn.emit(StatusChanged("thinking", "The model is thinking."))
        try:
            reply = await self._query(turn)
        except ModelRejected as error:
            if not context.is_about_content(error):
                raise
            await context.repair(turn, error)
            return
        turn.stop_reason = reply.stop_reason
        if reply.stop_reason == "refusal":
            await context.take_back(turn, reply)
        if reply.compacted:
            await turn.replace_all(reply.message)
        elif reply.says_anything:  # the service refuses to have thinking alone back
            await turn.append(reply.message)
        if reply.calls:
            await self._execute(turn, reply)
        await self._follow(turn, reply)
        if turn.done:
            await self._deliver(turn)
        if turn.done and turn.schema is not None:
            await context.take_answer(turn, turn.schema, reply)

    async def _deliver(self, turn: TurnState) -> None:
        """Add the messages that came during the turn to the conversation."""
        while (message := self.next_message(notes=not turn.done)) is not None:
            await turn.deliver(message)

    async def _query(self, turn: TurnState, *, compact: bool = False) -> Reply:
        """Return a whole reply; nothing of a broken one is kept, so another request is always safe."""
        retries = Retries(turn.options.model_retries)
        while True:
            turn.partial.clear()
            try:
                return await self._request(turn, compact)
            except ModelRejected as error:
                if not self._requests.may_drop_clearing(turn, error, elsewhere=bool(self._client.base_url)):
                    raise
                await context.drop_clearing(turn, error)
                continue
            except Transient as problem:
                delay = retries.next_delay(problem, answered=self._requests.answered)
                again, dropped = time.time() + delay, sum(map(len, turn.partial))
                await turn.emit(events.Retrying(retries.count, delay, again, problem.reason, dropped))
            turn.partial.clear()
            await self.gate.race(asyncio.sleep(delay))
            turn.limits.before_request()

    async def _request(self, turn: TurnState, compact: bool) -> Reply:
        """Send one request; pass on what arrives of its reply, and count what it costs even if it breaks off."""
        began, sent, started, reply = time.perf_counter(), Sent("", 0, 0), None, None
        try:
            stream = self._speaker.client.stream(*self._requests.build(turn, compact=compact))
            async with aclosing(self.gate.stream(stream)) as pieces:
                async for piece in pieces:
                    match piece:
                        case Sent():
                            sent, model = piece, turn.options.model
                            self._requests.count += 1
                            about = (self._requests.count, model, sent.sha256, sent.size, sent.images)
                            await turn.emit(events.RequestSent(*about))
                        case Started():
                            started, self._requests.answered = piece, True
                        case TextDelta() | ThinkingDelta() | ToolAnnounced():
                            turn.partial += [piece.text] if isinstance(piece, TextDelta) else []
                            await turn.emit(piece)
                        case Reply():
                            reply = piece
                            usage, took = self._requests.received(turn, reply, sent), time.perf_counter() - began
                            index, reason = self._requests.count, reply.stop_reason
                            await turn.emit(events.ModelReplied(index, reason, usage, took * 1000, reply.text))
        finally:
            if started and not reply:  # the service counted the input, though the reply was dropped
                turn.limits.used += price(turn.options.model, complete_usage(started.usage, sent))
        assert reply is not None, "a stream ends with its reply or an exception"
        return reply

    async def _execute(self, turn: TurnState, reply: Reply) -> None:
        """Carry the calls out and append their results, also when something halts them half-way."""
        turn.act()
        await turn.emit(StatusChanged("acting", "Acting on the desktop."))
        calls = Calls(turn, self.gate, self.desktop, reply)
        halted = await calls.run()
        await turn.append({"role": "user", "content": calls.results})
        if halted is not None:
            raise halted
        if calls.failed:
            await self._release()

    async def _follow(self, turn: TurnState, reply: Reply) -> None:
        """Decide by the stop reason whether the turn goes on; may append a message. See the table in docs/agent.md."""
        reason = reply.stop_reason
        if reason == "model_context_window_exceeded":
            await context.summarise(turn)
        elif reason == "max_tokens":  # also of a reply that only thought
            context.raise_max_tokens(turn)
            if reply.says_anything and not reply.calls:
                await turn.append(user_text(context.CUT_REPLY))
        elif not reply.says_anything:
            turn.nudges += 1
            turn.done = turn.nudges > context.MAX_NUDGES
            if not turn.done:
                await turn.append(user_text(context.NUDGE))
        else:
            turn.done = not (reason in ("pause_turn", "compaction") or (reason == "tool_use" and reply.calls))

    async def _prepare(self, turn: TurnState, asked: TurnOptions | None) -> None:
        """Apply the message's own options and make the tools; loads the SDK the first time."""
        options = self.options.with_turn(asked)
        turn.apply(options)
        turn.limits.arm(self.gate)
        models.check_screen(turn.info, self.desktop.size)
        self._speaker.choose(asked, turn.info)
        await self.gate.race(self._speaker.client.open(options.model))
        if asked and asked.answer_schema is not None:
            turn.schema = await asyncio.to_thread(AnswerSchema, asked.answer_schema)
            turn.output_format = self._client.output_format(asked.answer_schema) if turn.info.structured else None
        if self._tools is None:
            parts = await self.gate.race(load_sdk())
            self._tools = make_tools(turn.info, options, self.desktop, self.gate, parts)
        extra = (asked.extra_tools if asked else None) or self.extra_tools
        turn.tools = [*self._tools, *([ExtraTool(extra, limit=options.shell_output)] if extra else [])]
        turn.definitions = [entry for tool in turn.tools for entry in tool.definitions]

    async def _close(self, turn: TurnState, lost: asyncio.Task[None]) -> None:
        turn.limits.disarm()
        lost.cancel()
        await asyncio.wait({lost})
        self.gate.end()
        self._spent, self._steps, self._turn = turn.limits.total, turn.step, None
        self._transcript.close_open_batch()  # the turn may have been cancelled in the middle of one
        if turn.calls:
            await self._release()

    async def _watch_desktop(self) -> None:
        self.gate.halt(DesktopLost(await self.desktop.lost(), hint="Start a new session."))

    async def _release(self) -> None:
        """Release every key and button; on a dead desktop none is held."""
        with suppress(DesktopError, TimeoutError):
            async with asyncio.timeout(2):
                await self.desktop.release_all()
