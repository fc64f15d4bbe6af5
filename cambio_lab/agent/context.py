"""Keep the conversation sendable: short enough, without what the service refused, ending in a way it accepts.

A conversation that outgrows a limit is summarised by the service, else here: what the user asked in full, what the
agent said and did in short, and the latest screenshot.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ..errors import AnswerDoesNotFit, ModelRefused, ModelRejected, ModelUnavailable
from ..events import StatusChanged
from .options import AGAIN, MAX_TRIES, AnswerSchema
from .reply import Reply
from .transcript import Message, blocks, inner_blocks, latest_image, user_text, without_images, without_thinking
from .turn import TurnState

log = logging.getLogger(__name__)
NUDGE = "Please go on, or say what you did and found."
CUT_REPLY = "Your reply was cut off at its token limit. Go on from there, in smaller steps."
MAX_NUDGES = 1
MAX_CUT_REPLIES = 3
MAX_TOKENS = 64_000
MAX_SUMMARIES = 2
MAX_REQUEST = 8_000  # characters of one user message
MAX_NOTE = 600  # of one thing the agent said
MAX_LINE = 200  # of one call and its result
MAX_LINES = 120
MAX_TOTAL = 40_000
OPENING = (
    "This conversation continues an earlier one that grew too long. Below is what was asked and done so far, in order. "
    "Go on from there; look at the screen before you act."
)
MAX_SINGLE_REPAIRS = 2
NAMED = re.compile(r"\bmessages\.(\d+)\b")  # the service says where the fault is
REPLACED = "The result could not be sent to the model: the service refused it"
CONTENT_TYPES = ("invalid_request_error", "request_too_large")
HINT = "This turn was taken out of the conversation, so the next message is not affected; put the request differently."


async def take_answer(turn: TurnState, schema: AnswerSchema, reply: Reply) -> None:
    """Read the turn's value from its last reply; ask once more, with what is wrong, when it does not fit."""
    try:
        turn.answer = await asyncio.to_thread(schema.read, reply.text)
    except AnswerDoesNotFit as error:
        if schema.tries >= MAX_TRIES:
            raise AnswerDoesNotFit(
                f"The answer does not fit the schema: {error}.", hint="Its text is in the history; ask again."
            ) from None
        turn.done = False
        turn.act()
        particulars = {"event": "answer_refused", "problem": error.message}
        await turn.emit(StatusChanged("thinking", "The answer does not fit its schema; asking again.", particulars))
        await turn.append(user_text(AGAIN.format(problem=error.message)))


def raise_max_tokens(turn: TurnState) -> None:
    """Give the next reply twice the tokens; :class:`ModelUnavailable` when that did not help before."""
    turn.cut_replies += 1
    if turn.cut_replies > MAX_CUT_REPLIES:
        raise ModelUnavailable(
            f"The model's replies were cut off {turn.cut_replies} times, last at {turn.max_tokens} tokens.",
            hint="Raise max_tokens or ask for less at once.",
        )
    most = min(MAX_TOKENS, turn.info.most_output)
    turn.max_tokens = max(turn.max_tokens, min(turn.max_tokens * 2, most))


async def take_back(turn: TurnState, reply: Reply) -> None:
    """Remove the turn that the model refused from the conversation, and raise :class:`ModelRefused`."""
    await turn.take_back()
    category = reply.stop_details.get("category")
    raise ModelRefused(
        f"The model refused to go on{f' (category: {category})' if category else ''}.",
        hint="The refused turn was taken out of the conversation; put the request differently.",
        details=reply.stop_details,
    )


# A conversation that is too long
async def make_room(turn: TurnState, query: Callable[[], Awaitable[Reply]] | None) -> None:
    """Replace the conversation by the service's summary of it (``query``), else by one made here."""
    transcript = turn.transcript
    summary: Reply | None = None
    if transcript.compactable and query is not None:
        await turn.emit(StatusChanged("thinking", "The conversation is being summarised: it has grown long."))
        try:
            summary = await query()
        except ModelRejected as error:  # a gateway without compaction, or a mistake of ours: either costs money
            log.error("compaction refused; summarising locally: model=%s error=%s", turn.options.model, error)
            transcript.compactable = False
            words = "summarise the conversation", "It is shortened here instead, which loses detail and can cost more."
            await turn.emit(_refused(*words, error))
    if summary is None or not summary.compacted:
        await summarise(turn)
    else:
        await turn.replace_all(summary.message, transcript.onward())


async def drop_clearing(turn: TurnState, error: ModelRejected) -> None:
    """Send everything from now on, where the service refused to clear old results."""
    log.error("context management refused; sending without it: model=%s error=%s", turn.options.model, error)
    turn.transcript.clearable = turn.transcript.compactable = False
    words = "clear old results", "The whole conversation is sent from now on, which costs more."
    await turn.emit(_refused(*words, error))


async def summarise(turn: TurnState) -> None:
    """Replace the conversation by a summary made here. :class:`ModelRejected` when that did not help before."""
    turn.summaries += 1
    if turn.summaries > MAX_SUMMARIES:
        raise ModelRejected(
            "The conversation does not fit into the model's context, even summarised.",
            hint="Clear the history or start a new session.",
        )
    await turn.replace_all(summary_of(turn.transcript.messages))


def summary_of(messages: Sequence[Message]) -> Message:
    """Return one user message that stands for all of ``messages``."""
    requests, lines = [], []
    answers = _answers(messages)
    for role, block in ((message["role"], block) for message in messages for block in blocks(message)):
        kind = block.get("type")
        if kind == "text" and role == "user":
            requests.append(_short(block["text"], MAX_REQUEST))
            lines.append(f"USER: {_short(block['text'], MAX_LINE)}")
        elif kind == "text":
            lines.append(f"YOU: {_short(block['text'], MAX_NOTE)}")
        elif kind == "compaction" and block.get("content"):
            lines.append(f"SUMMARY: {_short(block['content'], MAX_REQUEST)}")
        elif kind == "tool_use":
            call = f"{block['name']} {json.dumps(block.get('input', {}), ensure_ascii=False)}"
            lines.append(f"- {_short(call, MAX_LINE)} -> {_short(answers.get(block['id'], ''), MAX_LINE)}")
    if len(lines) > MAX_LINES:
        lines = [f"[{len(lines) - MAX_LINES} earlier lines left out]", *lines[-MAX_LINES:]]
    text = "\n".join([OPENING, "", "What the user asked:", *requests, "", "What happened:", *lines])
    image = latest_image(messages)
    return {"role": "user", "content": [{"type": "text", "text": _short(text, MAX_TOTAL)}, *([image] if image else [])]}


def _answers(messages: Sequence[Message]) -> dict[str, str]:
    """Return what each call returned, in words."""
    found = {}
    for block in (block for message in messages for block in blocks(message)):
        if block.get("type") == "tool_result":
            words = " ".join(part.get("text", "") for part in inner_blocks(block))
            found[block["tool_use_id"]] = ("failed: " if block.get("is_error") else "") + words
    return found


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most * 2 // 3]} [...] {text[-most // 3 :]}"


# Content that the service refuses
def is_about_content(error: ModelRejected) -> bool:
    """Return whether the service refused what the request holds, not who sent it or where it went."""
    elsewhere = error.message.startswith("output_config")  # the schema of a typed answer
    return error.details.get("status") in (400, 413) and error.details.get("type") in CONTENT_TYPES and not elsewhere


async def repair(turn: TurnState, error: ModelRejected) -> None:
    """Replace by text what the service may have refused: the message that it names, else the newest; then all images.

    Raises :class:`ModelRejected`, with the turn taken out, when nothing is left to replace: a refused request must not
    come back with each later message.
    """
    log.error("request refused for its content: model=%s error=%s", turn.options.model, error)
    messages = turn.transcript.messages
    named = NAMED.search(error.message)
    suspect = int(named[1]) if named else len(messages) - 1
    turn.repairs += 1
    tries = [[_noted(message, error) if index == suspect else message for index, message in enumerate(messages)]]
    if named or "image" in error.message or error.details.get("status") == 413:
        tries.append([without_images(message) for message in messages])
    for repaired in tries if turn.repairs <= MAX_SINGLE_REPAIRS else tries[1:]:
        pairs = enumerate(zip(messages, repaired, strict=True))
        changed = next((index for index, (old, new) in pairs if old != new), None)
        if changed is not None:
            if turn.info.bound:  # later thinking is bound to what was there before
                repaired[changed:] = [without_thinking(message) for message in repaired[changed:]]
            await turn.emit(_refused("take a part of the conversation", "It is left out.", error))
            await turn.replace(len(messages) - changed, *repaired[changed:])
            return
    await turn.take_back()
    raise ModelRejected(error.message, hint=f"{error.hint} {HINT}".strip(), details=error.details) from error


def _noted(message: Message, error: ModelRejected) -> Message:
    """Return a message with a note in place of its results and images."""
    return {**message, "content": [_note(block, error) for block in blocks(message)]}


def _note(block: dict[str, Any], error: ModelRejected) -> dict[str, Any]:
    note = {"type": "text", "text": f"{REPLACED} ({error.message})."}
    if block.get("type") == "image":
        return note
    if block.get("type") != "tool_result" or any(REPLACED in part.get("text", "") for part in inner_blocks(block)):
        return block
    return {**block, "content": [note], "is_error": True}


def _refused(what: str, consequence: str, error: ModelRejected) -> StatusChanged:
    """Return the event that tells people about a refused request which the loop works around."""
    words = f"The service refused to {what} ({error.message}). {consequence}"
    return StatusChanged("thinking", words, {"event": "request_refused", "error": error.message, **error.details})
