"""What the demo model does next: a function of the conversation and nothing else."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Block = dict[str, Any]
Message = dict[str, Any]
MOST_LINES = 20
MOST_CHARACTERS = 1500
OWN_TOOLS = frozenset({"computer", "bash", "str_replace_based_edit_tool"})
LOOKS_FOR_TERMINAL = 4
CHANGED = 0.02  # share of the screen that a new terminal changes at least
STARTED_BY_SHELL = "(x-terminal-emulator || xterm || xfce4-terminal || konsole) >/dev/null 2>&1 &"
SAYS = "I am the demo model, a fixed script and not Claude. "
HELP = (
    "To work with Claude, set ANTHROPIC_API_KEY in the server's environment and create a session with a Claude model."
)


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
    pictures = list(_pictures(turn))
    if _terminal_is_open(messages, turn, pictures):
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
    cut = words if len(words) <= MOST_CHARACTERS else words[:MOST_CHARACTERS] + " …"
    lines = [_plain(line) for line in cut.splitlines()] or [""]
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], "…"]
    return "".join(f"# {line}\n" for line in lines)


def _plain(line: str) -> str:
    return "".join(character if character.isprintable() else " " for character in line).rstrip()


def _report(words: str, *, opened: bool) -> str:
    lines = max(1, len(words.splitlines()))
    shortened = " (shortened)" if len(words) > MOST_CHARACTERS or lines > MOST_LINES else ""
    where = "opened a terminal" if opened else "found the terminal still open"
    counted = "one line" if lines == 1 else f"{lines} lines"
    return (
        f"{SAYS}I looked at the desktop, {where} and typed your message into it as a comment: "
        f"{counted}, {len(words)} characters{shortened}. The last screenshot shows it. {HELP}"
    )


# Reading the conversation


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


def _pictures(messages: Sequence[Message]) -> Iterator[str]:
    """Base64 of every picture in order."""
    for message in messages:
        for block in _blocks(message):
            inner = block.get("content")
            for part in [block, *(inner if isinstance(inner, list) else ())]:
                if part.get("type") == "image" and part.get("source", {}).get("type") == "base64":
                    yield part["source"]["data"]


def _terminal_is_open(messages: Sequence[Message], turn: Sequence[Message], pictures: list[str]) -> bool:
    """A window came up since the tour's first look; or the desktop still looks as an earlier tour left it."""
    if len(pictures) >= 2:
        return _difference(pictures[0], pictures[-1]) >= CHANGED
    earlier = messages[: len(messages) - len(turn)]
    if not pictures or not any(call["name"] == "type" for call in _calls(earlier)):
        return False
    left = list(_pictures(earlier))
    return bool(left) and _difference(left[-1], pictures[-1]) < CHANGED / 10


def _difference(before: str, after: str) -> float:
    """Share of pixels that differ, 0 to 1."""
    if before == after:
        return 0.0
    import numpy as np
    from PIL import Image

    def pixels(data: str) -> Any:
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            return np.asarray(image.convert("RGB"))

    first, second = pixels(before), pixels(after)
    if first.shape != second.shape:
        return 1.0
    return float((first != second).any(axis=2).mean())


# Writing the reply


def _say(words: str, *calls: Block) -> Reply:
    return Reply([{"type": "text", "text": words}, *calls])


def _member(name: str, **arguments: Any) -> Block:
    return {"type": "tool_use", "name": name, "input": arguments, "toolset_name": "computer"}
