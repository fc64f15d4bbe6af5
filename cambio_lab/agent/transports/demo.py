"""``model="demo"``: a scripted stand-in for the model, as an HTTP transport under the real SDK. No key, no network.

It shows the real desktop: it takes a screenshot, opens a terminal, types what the user wrote into it (as a shell
comment, so nothing of it can run), takes another screenshot and reports. Every reply says that it is the demo model.
What comes next follows from the request alone, so it can be sent again, stopped, and continued after a restart.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

from .exchanges import Chunks

Block = dict[str, Any]
Message = dict[str, Any]
IMAGE_TOKENS = 1334  # a 1280x800 screenshot
DELTA = 16  # characters of one text delta
MAX_LINES = 20
MAX_CHARACTERS = 1500
OWN_TOOLS = frozenset({"computer", "bash", "str_replace_based_edit_tool"})
LOOKS_FOR_TERMINAL = 4
STARTED_BY_SHELL = "(x-terminal-emulator || xterm || xfce4-terminal || konsole) >/dev/null 2>&1 &"
SAYS = "I am the demo model, a fixed script and not Claude. "
HELP = (
    "To work with Claude, set ANTHROPIC_API_KEY in the server's environment and create a session with a Claude model."
)


class DemoTransport(httpx2.AsyncBaseTransport):
    """``pace`` is the pause in seconds between two pieces of text, so that streaming can be seen."""

    def __init__(self, pace: float = 0.004) -> None:
        self._pace = pace

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        if request.method != "POST" or not request.url.path.endswith("/messages"):
            return error_response(request, 404, "not_found_error", "The demo model answers /v1/messages only.")
        try:
            message, reply = await asyncio.to_thread(_answer, body)
        except (ValueError, KeyError, TypeError, AttributeError):
            return error_response(request, 400, "invalid_request_error", "The demo model cannot read this request.")
        headers = {"content-type": "text/event-stream; charset=utf-8", "request-id": f"req_{message['id'][4:]}"}
        return httpx2.Response(200, headers=headers, stream=Chunks(self._stream(message, reply)), request=request)

    async def _stream(self, message: dict[str, Any], reply: Reply) -> AsyncIterator[bytes]:
        for chunk in message_events(message, reply.blocks, reply.stop_reason):
            yield chunk
            if b"text_delta" in chunk:
                await asyncio.sleep(self._pace)


def _answer(body: bytes) -> tuple[dict[str, Any], Reply]:
    """The next reply and the message's frame. Ids follow from the request: the same question has the same answer."""
    request = json.loads(body)
    digest = hashlib.sha256(body).hexdigest()
    reply = next_reply(request["messages"], frozenset(_tools(request)))
    calls = 0
    for block in reply.blocks:
        if block["type"] == "tool_use":
            block["id"] = f"toolu_demo_{digest[:16]}{calls:02d}"
            calls += 1
    message = {
        "id": f"msg_demo_{digest[:20]}",
        "type": "message",
        "role": "assistant",
        "model": request.get("model", "demo"),
        "usage": {"input_tokens": _count(request), "output_tokens": len(json.dumps(reply.blocks)) // 4},
    }
    return message, reply


def _tools(request: dict[str, Any]) -> list[str]:
    """``computer`` for the toolset, else the names of the tools offered."""
    found = []
    for entry in request.get("tools") or ():
        toolset = str(entry.get("type", "")).startswith("computer_toolset_")
        found.append("computer" if toolset else str(entry.get("name", "")))
    return found


def _count(value: Any) -> int:
    """Input tokens, roughly: four characters each, and an image as the model would count it."""
    if isinstance(value, dict):
        if value.get("type") == "image":
            return IMAGE_TOKENS
        return sum(_count(inner) for inner in value.values())
    if isinstance(value, list):
        return sum(_count(inner) for inner in value)
    return len(value) // 4 if isinstance(value, str) else 1


@dataclass(frozen=True)
class Reply:
    """Content blocks without ids."""

    blocks: list[Block]

    @property
    def stop_reason(self) -> str:
        return "tool_use" if any(block["type"] == "tool_use" for block in self.blocks) else "end_turn"


def next_reply(messages: Sequence[Message], tools: frozenset[str]) -> Reply:
    """The next step of the tour. ``tools`` has ``computer`` when the computer toolset is offered."""
    turn = _turn(messages)
    words = _user_words(turn[0])
    if "computer" not in tools:
        return _say(f"{SAYS}You wrote: {words!r}. I was given no desktop, so there is nothing to show. {HELP}")
    calls = list(_calls(turn))
    failed = _failure(turn)
    if failed is not None:
        return _say(f"{SAYS}The desktop did not carry out my last step ({failed}), so my tour ends here. {HELP}")
    names = [call["name"] for call in calls]
    if not calls:
        return _say(f"{SAYS}First I look at the desktop.", _member("screenshot"))
    if (wanted := _function(words, tools)) is not None and wanted["name"] not in names:
        return _say(f"{SAYS}Your message names the function {wanted['name']}, so I call it.", wanted)
    if "type" in names:
        return _say(_report(words, opened="key" in names))
    if _terminal_is_open(messages, turn):
        return _type("\n".join([words, *_answers(turn, calls, tools)]))
    return _open_terminal(names, "bash" in tools)


def _function(words: str, tools: frozenset[str]) -> Block | None:
    """A call of the first offered function that ``words`` name, with the JSON object written after its name."""
    for name in sorted(tools - OWN_TOOLS):
        found = re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", words)
        if found is None:
            continue
        arguments: Any = {}
        rest = words[found.end() :].lstrip(" (`")
        if rest.startswith("{"):
            try:
                arguments, _ = json.JSONDecoder().raw_decode(rest)
            except ValueError:
                arguments = {}
        return {"type": "tool_use", "name": name, "input": arguments}
    return None


def _answers(turn: Sequence[Message], calls: Sequence[Block], tools: frozenset[str]) -> Iterator[str]:
    """What the offered functions said, a line each."""
    called = {call["id"]: call["name"] for call in calls if call["name"] in tools - OWN_TOOLS}
    for message in turn:
        for block in _blocks(message):
            if block["type"] == "tool_result" and block["tool_use_id"] in called:
                content = block.get("content") or ""
                said = content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)
                yield f"{called[block['tool_use_id']]}: {said}"


def _open_terminal(names: list[str], shell: bool) -> Reply:
    """The desktop's shortcut first; a look or two until the window is there; the shell where no shortcut is bound."""
    look = _member("screenshot")
    if "key" not in names:
        return _say(f"{SAYS}Now I open a terminal with Ctrl+Alt+T.", _member("key", text="ctrl+alt+t"), look)
    since = names[::-1].index("bash") if "bash" in names else names[::-1].index("key")
    looks = names[len(names) - since :].count("screenshot")
    if looks < LOOKS_FOR_TERMINAL:
        return _say(f"{SAYS}I wait for the terminal.", _member("wait", duration=1), look)
    if shell and "bash" not in names:
        start = {"type": "tool_use", "name": "bash", "input": {"command": STARTED_BY_SHELL}}
        return _say(f"{SAYS}The shortcut opened nothing, so I start a terminal from the shell.", start, look)
    return _say(f"{SAYS}I could not open a terminal on this desktop, so I typed nothing. {HELP}")


def _type(words: str) -> Reply:
    text = as_comment(words)
    return _say(f"{SAYS}I type your message into the terminal.", _member("type", text=text), _member("screenshot"))


def as_comment(words: str) -> str:
    """``words`` as shell comments, a line each: readable, and nothing in them can run.

    Tabs would complete names and control characters would move the cursor, so they become spaces; a ``#`` at the
    line's start also keeps ``!`` from being expanded.
    """
    cut = words if len(words) <= MAX_CHARACTERS else words[:MAX_CHARACTERS] + " …"
    lines = [_plain(line) for line in cut.splitlines()] or [""]
    if len(lines) > MAX_LINES:
        lines = [*lines[:MAX_LINES], "…"]
    return "".join(f"# {line}\n" for line in lines)


def _plain(line: str) -> str:
    return "".join(character if character.isprintable() else " " for character in line).rstrip()


def _report(words: str, *, opened: bool) -> str:
    lines = max(1, len(words.splitlines()))
    shortened = " (shortened)" if len(words) > MAX_CHARACTERS or lines > MAX_LINES else ""
    where = "opened a terminal" if opened else "found the terminal still open"
    counted = "one line" if lines == 1 else f"{lines} lines"
    return (
        f"{SAYS}I looked at the desktop, {where} and typed your message into it as a comment: "
        f"{counted}, {len(words)} characters{shortened}. The last screenshot shows it. {HELP}"
    )


def _turn(messages: Sequence[Message]) -> Sequence[Message]:
    """The messages since the last one in which the user said something."""
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if message["role"] == "user" and not any(block["type"] == "tool_result" for block in _blocks(message)):
            return messages[index:]
    raise ValueError("no user message")


def _blocks(message: Message) -> list[Block]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _user_words(message: Message) -> str:
    return "\n".join(block["text"] for block in _blocks(message) if block["type"] == "text")


def _calls(turn: Sequence[Message]) -> Iterator[Block]:
    for message in turn:
        yield from (block for block in _blocks(message) if block["type"] == "tool_use")


def _failure(turn: Sequence[Message]) -> str | None:
    """Why the last batch failed, or ``None``."""
    for block in _blocks(turn[-1]):
        if block["type"] == "tool_result" and block.get("is_error"):
            content = block.get("content") or ""
            return content if isinstance(content, str) else " ".join(inner.get("text", "") for inner in content)
    return None


def _screenshots(messages: Sequence[Message]) -> list[str]:
    """Return the base64 of every image in results, in order."""
    results = [block for message in messages for block in _blocks(message) if block["type"] == "tool_result"]
    parts = [part for block in results if isinstance(block.get("content"), list) for part in block["content"]]
    return [part["source"]["data"] for part in parts if part["type"] == "image"]


def _terminal_is_open(messages: Sequence[Message], turn: Sequence[Message]) -> bool:
    """Return whether an earlier turn left a terminal, or the screen has changed since this turn's first look."""
    earlier = messages[: len(messages) - len(turn)]
    shots = _screenshots(turn)
    return any(call["name"] == "type" for call in _calls(earlier)) or shots[0] != shots[-1]


def _say(words: str, *calls: Block) -> Reply:
    return Reply([{"type": "text", "text": words}, *calls])


def _member(name: str, **arguments: Any) -> Block:
    return {"type": "tool_use", "name": name, "input": arguments, "toolset_name": "computer"}


def message_events(
    message: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]], stop_reason: str
) -> Iterator[bytes]:
    """The events of a whole message. ``message`` has everything but ``content``; its usage is reported at both ends."""
    yield event("message_start", message={**message, "content": [], "stop_reason": None, "stop_sequence": None})
    for index, block in enumerate(blocks):
        yield from _block_events(index, block)
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    yield event("message_delta", delta=delta, usage=message["usage"])
    yield event("message_stop")


def _block_events(index: int, block: Mapping[str, Any]) -> Iterator[bytes]:
    if block["type"] == "text":
        yield event("content_block_start", index=index, content_block={"type": "text", "text": ""})
        for start in range(0, len(block["text"]), DELTA):
            delta = {"type": "text_delta", "text": block["text"][start : start + DELTA]}
            yield event("content_block_delta", index=index, delta=delta)
    else:
        yield event("content_block_start", index=index, content_block={**block, "input": {}})
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        yield event("content_block_delta", index=index, delta=delta)
    yield event("content_block_stop", index=index)


def event(name: str, **body: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **body}, ensure_ascii=False)}\n\n".encode()


def error_response(request: httpx2.Request, status: int, kind: str, message: str) -> httpx2.Response:
    """The service's error envelope; ``x-should-retry: false`` because a transport's answer does not change."""
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_local"}
    return httpx2.Response(status, json=body, headers={"x-should-retry": "false"}, request=request)
