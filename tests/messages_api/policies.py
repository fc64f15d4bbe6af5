"""The models behind the stand-in: each looks at what it was sent and decides.

A policy is a function from :class:`View` to :class:`~tests.messages_api.replies.Reply`. The ones here keep no state:
they read it off the conversation, so one server can serve many sessions and repeated requests.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image, ImageColor

from . import images
from .models import LEGACY_HEADERS
from .replies import Block, Reply, click, legacy, member, reply, screenshot, think, tool


@dataclass(frozen=True)
class View:
    """A request as a policy sees it: the messages after server-side editing."""

    body: dict[str, Any]
    messages: list[dict[str, Any]]

    @cached_property
    def prompt(self) -> str:
        """The text of the last user message that is not only results: what the person asked."""
        for message in reversed(self.messages):
            words = [block["text"] for block in message["content"] if block["type"] == "text"]
            if message["role"] == "user" and words:
                return "\n".join(words)
        return self._summary[1]

    @property
    def _summary(self) -> tuple[int, str]:
        """What a compaction block of this server's keeps: calls made before it, and the prompt."""
        block = self.messages[0]["content"][0]
        found = re.match(r"\[(\d+) calls made\] (.*)", block.get("content") or "", re.S)
        return (int(found[1]), found[2]) if block["type"] == "compaction" and found else (0, "")

    def summarise(self) -> str:
        """Content of a compaction block that ends this view."""
        return f"[{self.done} calls made] {self.prompt}"

    @property
    def done(self) -> int:
        """Tool calls since the prompt, those before a compaction included."""
        return self._summary[0] + len(self.calls)

    @cached_property
    def turn(self) -> list[dict[str, Any]]:
        """The messages since that prompt, the prompt's own message first."""
        for i in range(len(self.messages) - 1, -1, -1):
            message = self.messages[i]
            if message["role"] == "user" and any(block["type"] == "text" for block in message["content"]):
                return self.messages[i:]
        return self.messages

    @property
    def replies(self) -> int:
        """Assistant messages since the prompt."""
        return sum(message["role"] == "assistant" for message in self.turn)

    @property
    def calls(self) -> list[Block]:
        """Tool calls since the prompt."""
        return [block for message in self.turn for block in message["content"] if block["type"] == "tool_use"]

    @property
    def results(self) -> list[Block]:
        """Tool results of the last message."""
        return [block for block in self.messages[-1]["content"] if block["type"] == "tool_result"]

    @property
    def toolset(self) -> bool:
        return not any(item.get("type") in LEGACY_HEADERS for item in self.body.get("tools") or ())

    def result_text(self) -> str:
        """All text of the last message's results."""
        parts = []
        for result in self.results:
            content = result.get("content") or ""
            parts += [content] if isinstance(content, str) else [part.get("text", "") for part in content]
        return "\n".join(part for part in parts if part)

    def last_screenshot(self) -> np.ndarray[Any, Any] | None:
        """The newest screenshot of the conversation, ``(height, width, 3)`` bytes RGB, or ``None``."""
        found = list(images.walk(self.messages))
        if not found:
            return None
        raw = base64.b64decode(found[-1][1]["source"]["data"])
        with Image.open(io.BytesIO(raw)) as image:
            return np.asarray(image.convert("RGB"))

    def looks(self) -> bool:
        """Whether the last message brought a screenshot."""
        return bool(list(images.walk(self.messages[-1:])))


Policy = Callable[[View], Reply]


def find_color(image: np.ndarray[Any, Any], color: str, tolerance: int = 12, least: int = 60) -> tuple[int, int] | None:
    """Centre ``(x, y)`` of the pixels of ``color`` (of their box: letters on it do not matter), or ``None``."""
    wanted = np.array(ImageColor.getrgb(color)[:3], dtype=np.int16)
    near = (np.abs(image.astype(np.int16) - wanted) <= tolerance).all(axis=2)
    rows, columns = near.nonzero()
    if len(rows) < least:
        return None
    return (int(columns.min()) + int(columns.max())) // 2, (int(rows.min()) + int(rows.max())) // 2


@dataclass(frozen=True)
class Echo:
    """Says back what the person said."""

    prefix: str = "You said: "

    def __call__(self, view: View) -> Reply:
        return reply(self.prefix + view.prompt)


@dataclass(frozen=True)
class ColorTarget:
    """Looks, finds the target by its colour in the screenshot it was sent, clicks its centre, looks again.

    Done when the target's colour is gone; gives up after ``tries`` clicks or when it cannot be seen.
    """

    color: str = "#00c853"
    tolerance: int = 12
    tries: int = 3
    thoughts: bool = False

    def __call__(self, view: View) -> Reply:
        look, press = self._hands(view)
        clicks = [call for call in view.calls if "coordinate" in call["input"]]
        notes: list[Block] = [think(f"step {view.replies}")] if self.thoughts else []
        if not view.looks():
            return reply(*notes, "I look at the screen.", look())
        seen = view.last_screenshot()
        assert seen is not None
        place = find_color(seen, self.color, self.tolerance)
        if place is None and clicks:
            return reply(*notes, f"Clicked the target at {clicks[-1]['input']['coordinate']}.")
        if place is None or len(clicks) >= self.tries:
            return reply(*notes, "I cannot find the target." if place is None else "The target does not react.")
        return reply(*notes, "I see the target and click it.", press(*place), look())

    @staticmethod
    def _hands(view: View) -> tuple[Callable[[], Block], Callable[[int, int], Block]]:
        if view.toolset:
            return screenshot, click
        return lambda: legacy("screenshot"), lambda x, y: legacy("left_click", coordinate=[x, y])


@dataclass(frozen=True)
class Script:
    """Plays ``replies`` one after the other for each prompt; afterwards it says ``end``."""

    replies: Sequence[Reply | Callable[[View], Reply]]
    end: str = "Done."

    def __call__(self, view: View) -> Reply:
        if view.replies >= len(self.replies):
            return reply(self.end)
        chosen = self.replies[view.replies]
        return chosen(view) if callable(chosen) else Reply([dict(block) for block in chosen.blocks], *_rest(chosen))


def _rest(chosen: Reply) -> tuple[Any, ...]:
    return chosen.stop_reason, chosen.stop_details, chosen.output_tokens


@dataclass(frozen=True)
class Steps:
    """Makes ``count`` tool calls, ``batch`` to a reply, every batch ending in a screenshot; then reports."""

    count: int = 50
    batch: int = 2
    thoughts: bool = False
    size: tuple[int, int] = (1280, 800)

    def __call__(self, view: View) -> Reply:
        done = view.done
        if done >= self.count:
            return reply(f"Made {done} steps.")
        wanted = min(self.batch, self.count - done)
        blocks: list[Block] = [think(f"The next {wanted} of {self.count}.")] if self.thoughts else []
        for i in range(done, done + wanted - 1):
            x, y = 40 + (i * 97) % (self.size[0] - 80), 40 + (i * 61) % (self.size[1] - 80)
            blocks.append(member("mouse_move", coordinate=[x, y]))
        return reply(*blocks, f"Step {done + 1}.", screenshot())


@dataclass(frozen=True)
class Form:
    """Fills a form whose fields are told apart by colour, presses its button and reads the result back.

    ``fields`` maps a field's colour to what belongs into it; ``submit`` is the button's colour; ``read_back`` is a
    shell command that prints what the form received. The answer quotes it.
    """

    fields: Mapping[str, str]
    submit: str
    read_back: str

    def __call__(self, view: View) -> Reply:
        if not view.calls:
            return reply("I look at the form.", screenshot())
        if view.calls[-1]["name"] == "bash":
            return reply(f"The form received: {view.result_text()}")
        seen = view.last_screenshot()
        assert seen is not None
        filled = sum(call["name"] == "type" for call in view.calls)
        colors = [*self.fields, self.submit]
        if filled == len(self.fields) and any(call["name"] == "left_click" for call in view.calls[-2:-1]):
            return reply("I read back what arrived.", tool("bash", command=self.read_back))
        place = find_color(seen, colors[filled])
        if place is None:
            return reply(f"I cannot find the field of colour {colors[filled]}.")
        if filled == len(self.fields):
            return reply("I press the button.", click(*place), screenshot())
        words = self.fields[colors[filled]]
        return reply(f"I fill in field {filled + 1}.", click(*place), member("type", text=words), screenshot())


NAMED: dict[str, Callable[[], Policy]] = {"click": ColorTarget, "echo": Echo, "steps": Steps}
