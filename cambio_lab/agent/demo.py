"""The demo model (``model="demo"``): a fixed script as an HTTP transport under the real SDK, without key and network.

It signs the guest book where it is asked to, else it shows the user's words in a terminal. What comes next follows from
the request alone, so it can be sent again, stopped, and continued after a restart.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2

from .http import error_response, message_response
from .tools import NOTE

IMAGE_TOKENS = 1334  # a 1280x800 screenshot
Block = dict[str, Any]
Message = dict[str, Any]
MAX_LINES = 20
MAX_CHARACTERS = 1500
OWN_TOOLS = frozenset({"computer", "bash", "str_replace_based_edit_tool"})
LOOKS_FOR_TERMINAL = 4
SHORTCUT = "ctrl+alt+t"
STARTED_BY_SHELL = "(x-terminal-emulator || xterm || xfce4-terminal || konsole) >/dev/null 2>&1 &"
PROGRAM = Path(__file__).with_name("guest_book.py")
STAR = ((0.5, 0.1), (0.75, 0.9), (0.1, 0.4), (0.9, 0.4), (0.25, 0.9), (0.5, 0.1))
"""Corners of the drawing, as fractions of the canvas."""
NAME = "The demo model"
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
            asked, blocks = await asyncio.to_thread(_answer, body)
        except (ValueError, KeyError, TypeError, AttributeError):
            return error_response(request, 400, "invalid_request_error", "The demo model cannot read this request.")
        # Ids follow from the request: the same question has the same answer.
        name = f"demo_{hashlib.sha256(body).hexdigest()[:20]}"
        usage = {"input_tokens": _count(asked), "output_tokens": len(json.dumps(blocks)) // 4}
        return message_response(request, name, blocks, model=asked.get("model", "demo"), usage=usage, pace=self._pace)


def _answer(body: bytes) -> tuple[dict[str, Any], list[Block]]:
    """Return the request and the blocks of the reply."""
    request = json.loads(body)
    tools = frozenset(
        "computer" if str(entry.get("type", "")).startswith("computer_toolset_") else str(entry.get("name", ""))
        for entry in request.get("tools") or ()
    )
    return request, next_reply(request["messages"], tools)


def _count(value: Any) -> int:
    """Input tokens, roughly: four characters each, and an image as the model would count it."""
    if isinstance(value, dict):
        if value.get("type") == "image":
            return IMAGE_TOKENS
        return sum(_count(inner) for inner in value.values())
    if isinstance(value, list):
        return sum(_count(inner) for inner in value)
    return len(value) // 4 if isinstance(value, str) else 1


def next_reply(messages: Sequence[Message], tools: frozenset[str]) -> list[Block]:
    """Return the blocks of the next step, without ids. ``computer`` among ``tools`` stands for the computer toolset."""
    turn = current_turn(messages)
    return _sign(turn, tools) or _show_in_terminal(messages, turn, tools)


def _show_in_terminal(messages: Sequence[Message], turn: Sequence[Message], tools: frozenset[str]) -> list[Block]:
    words = user_words(turn[0])
    if "computer" not in tools:
        return say(f"{SAYS}You wrote: {words!r}. I was given no desktop, so there is nothing to show. {HELP}")
    calls = list(calls_of(turn))
    failed = failure(turn)
    if failed is not None:
        return say(f"{SAYS}The desktop did not carry out my last step ({failed}), so my tour ends here. {HELP}")
    names = [call["name"] for call in calls]
    if not calls:
        return say("First I look at the desktop.", member("screenshot"))
    if (wanted := _function(words, tools)) is not None and wanted["name"] not in names:
        return say(f"Your message names the function {wanted['name']}, so I call it.", wanted)
    if "type" in names:
        return say(_report(words, opened="key" in names))
    if _terminal_is_open(messages, turn):
        answers = (f"{name}: {said}" for name in sorted(tools - OWN_TOOLS) for said in results(turn, name))
        typed = as_comment("\n".join([words, *answers]))
        return say("I type your message into the terminal.", member("type", text=typed), member("screenshot"))
    return _open_terminal(names, "bash" in tools)


def _sign(turn: Sequence[Message], tools: frozenset[str]) -> list[Block] | None:
    """Return the next step; ``None`` unless the message asks for it, tools and browser are there and all went well."""
    if "guest book" not in user_words(turn[0]).lower() or not tools >= OWN_TOOLS or failure(turn) is not None:
        return None
    done = [block["name"] for block in calls_of(turn)]
    look = member("screenshot")
    if not done:
        return say("First I look at the desktop.", look)
    if "bash" not in done:
        program = PROGRAM.read_text(encoding="utf-8")
        create = _call("str_replace_based_edit_tool", command="create", path="~/guest_book.py", file_text=program)
        start = _call("bash", command="python3 ~/guest_book.py")
        return say(
            "I open the guest book, a small web page that comes with cambio_lab, in the browser.", create, start, look
        )
    places = _places(next(results(turn, "bash"), ""))
    if places is None:
        return None
    if "type" not in done:
        return say(
            "It has a form: a name, a greeting, and a field to draw in. I fill it in.", *_fill(places, turn), look
        )
    if "left_click_drag" not in done:
        return say("Now I draw a star, stroke by stroke.", *_draw(places["drawing"]), look)
    if done.count("bash") == 1:
        read = _call("bash", command="cat ~/guest-book.txt")
        return say("I sign, and read what the book says now.", _click(places["sign"]), look, read)
    *_, entry = results(turn, "bash")
    return say(
        f"{SAYS}I opened the guest book in the browser, read it, filled in the form, drew a star and signed. "
        f"The book has the entry: {' '.join(entry.split())}\n\n{HELP}"
    )


def _call(name: str, **arguments: Any) -> Block:
    return {"type": "tool_use", "name": name, "input": arguments}


def _places(output: str) -> Mapping[str, Any] | None:
    """Return where the page's fields are on the screen, as the program printed it."""
    for line in output.splitlines():
        if line.startswith("{"):
            return dict(json.loads(line))
    return None


def _fill(places: Mapping[str, Any], turn: Sequence[Message]) -> list[Block]:
    asked = " ".join(user_words(turn[0]).split())
    greeting = f"Hello! I was asked: {asked if len(asked) <= 120 else asked[:119] + '…'}"
    return [
        _click(places["name"]),
        member("type", text=NAME),
        member("key", text="Tab"),
        member("type", text=greeting),
    ]


def _draw(canvas: Sequence[float]) -> list[Block]:
    left, top, width, height = canvas
    corners = [[round(left + x * width), round(top + y * height)] for x, y in STAR]
    return [member("left_click_drag", start_coordinate=start, coordinate=end) for start, end in pairwise(corners)]


def _click(box: Sequence[float]) -> Block:
    left, top, width, height = box
    return member("left_click", coordinate=[round(left + width / 2), round(top + height / 2)])


def _function(words: str, tools: frozenset[str]) -> Block | None:
    """Return a call of the first offered function that ``words`` name, with the JSON object written after its name."""
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
        return {"type": "tool_use", "name": name, "input": arguments}  # which may have a key of any name
    return None


def _open_terminal(names: list[str], shell: bool) -> list[Block]:
    """The desktop's shortcut first; a look or two until the window is there; the shell where no shortcut is bound."""
    look = member("screenshot")
    if "key" not in names:
        return say("Now I open a terminal with Ctrl+Alt+T.", member("key", text=SHORTCUT), look)
    since = names[::-1].index("bash") if "bash" in names else names[::-1].index("key")
    looks = names[len(names) - since :].count("screenshot")
    if looks < LOOKS_FOR_TERMINAL:
        return say("I wait for the terminal.", member("wait", duration=1), look)
    if shell and "bash" not in names:
        start = _call("bash", command=STARTED_BY_SHELL)
        return say("The shortcut opened nothing, so I start a terminal from the shell.", start, look)
    return say(f"{SAYS}I could not open a terminal on this desktop, so I typed nothing. {HELP}")


def as_comment(words: str) -> str:
    """``words`` as shell comments, a line each: readable, and nothing in them can run.

    Tabs would complete names and control characters would move the cursor, so they become spaces; a ``#`` at the
    line's start also keeps ``!`` from being expanded.
    """
    cut = words if len(words) <= MAX_CHARACTERS else words[:MAX_CHARACTERS] + " …"
    lines = ["".join(c if c.isprintable() else " " for c in line).rstrip() for line in cut.splitlines()] or [""]
    if len(lines) > MAX_LINES:
        lines = [*lines[:MAX_LINES], "…"]
    return "".join(f"# {line}\n" for line in lines)


def _report(words: str, *, opened: bool) -> str:
    lines = max(1, len(words.splitlines()))
    shortened = " (shortened)" if len(words) > MAX_CHARACTERS or lines > MAX_LINES else ""
    where = "opened a terminal" if opened else "found the terminal still open"
    counted = "one line" if lines == 1 else f"{lines} lines"
    return (
        f"{SAYS}I looked at the desktop, {where} and typed your message into it as a comment: "
        f"{counted}, {len(words)} characters{shortened}. The last screenshot shows it. {HELP}"
    )


def current_turn(messages: Sequence[Message]) -> Sequence[Message]:
    """Return the messages since the last one in which the user said something."""
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        said = message["role"] == "user" and not any(block["type"] == "tool_result" for block in _blocks(message))
        if said and not user_words(message).startswith(NOTE):
            return messages[index:]
    raise ValueError("no user message")


def _blocks(message: Message) -> list[Block]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def user_words(message: Message) -> str:
    return "\n".join(block["text"] for block in _blocks(message) if block["type"] == "text")


def calls_of(turn: Sequence[Message]) -> Iterator[Block]:
    for message in turn:
        yield from (block for block in _blocks(message) if block["type"] == "tool_use")


def results(turn: Sequence[Message], name: str) -> Iterator[str]:
    """Yield the text of each result of the tool ``name``."""
    called = {block["id"] for block in calls_of(turn) if block["name"] == name}
    for message in turn:
        for block in _blocks(message):
            if block["type"] == "tool_result" and block["tool_use_id"] in called:
                yield _text(block)


def _text(result: Block) -> str:
    content = result.get("content") or ""
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def failure(turn: Sequence[Message]) -> str | None:
    """Return why the last batch failed, or ``None``."""
    failed = [block for block in _blocks(turn[-1]) if block["type"] == "tool_result" and block.get("is_error")]
    return _text(failed[0]) if failed else None


def _screenshots(messages: Sequence[Message]) -> list[str]:
    """Return the base64 of every image in results, in order."""
    results = [block for message in messages for block in _blocks(message) if block["type"] == "tool_result"]
    parts = [part for block in results if isinstance(block.get("content"), list) for part in block["content"]]
    return [part["source"]["data"] for part in parts if part["type"] == "image"]


def _terminal_is_open(messages: Sequence[Message], turn: Sequence[Message]) -> bool:
    """Return whether an earlier turn left a terminal, or the screen has changed since this turn's first look."""
    earlier = messages[: len(messages) - len(turn)]
    shots = _screenshots(turn)
    return any(call["input"].get("text") == SHORTCUT for call in calls_of(earlier)) or shots[0] != shots[-1]


def say(words: str, *calls: Block) -> list[Block]:
    return [{"type": "text", "text": words}, *calls]


def member(name: str, **arguments: Any) -> Block:
    return {"type": "tool_use", "name": name, "input": arguments, "toolset_name": "computer"}
