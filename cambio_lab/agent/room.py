"""Room for the next request: a conversation that is about to outgrow a limit is replaced by a summary of itself."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from ..errors import ModelRejected
from ..events import Event, HistoryAppended, HistoryDropped, StatusChanged
from .ask import Ask, refused
from .client import Reply
from .transcript import Transcript
from .turn import Turn

log = logging.getLogger(__name__)
MOST_FOLDS = 2


async def make_room(ask: Ask, turn: Turn) -> AsyncGenerator[Event, None]:
    """Replace the conversation by the service's summary of it, else by one of ours."""
    transcript = ask.transcript
    summary: Reply | None = None
    if transcript.compactable:
        yield StatusChanged("thinking", "The conversation is being summarised: it has grown long.")
        try:
            async with aclosing(ask.reply(turn, compact=True)) as answers:
                async for answer in answers:
                    if isinstance(answer, Reply):
                        summary = answer
                    else:
                        yield answer
        except ModelRejected as error:  # a gateway without compaction, or a mistake of ours: either costs money
            log.error(
                "compaction refused; summarising locally from now on: model=%s error=%s", turn.options.model, error
            )
            transcript.compactable = False
            yield refused(
                f"The model service refused to summarise the conversation ({error.message}). It is shortened here"
                " instead, which loses detail and can cost more.",
                error,
            )
    if summary is None or not summary.compacted:
        for event in fold(transcript, turn):
            yield event
        return
    onward = transcript.onward()
    turn.first_message = 0
    yield HistoryDropped(transcript.adopt_compaction(summary.message))
    yield HistoryAppended(summary.message)
    transcript.append(onward)
    yield HistoryAppended(onward)


def fold(transcript: Transcript, turn: Turn) -> list[Event]:
    """Replace the conversation by a summary made here. :class:`ModelRejected` when that did not help before."""
    turn.folds += 1
    if turn.folds > MOST_FOLDS:
        raise ModelRejected(
            "The conversation does not fit into the model's context, even summarised.",
            hint="Clear the history or start a new session.",
        )
    turn.first_message = 0
    count, message = transcript.fold()
    return [HistoryDropped(count), HistoryAppended(message)]
