"""The demo model: a tour that can be read, decided from the request alone, that never runs what it types."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import httpx2
import pytest
from PIL import Image

from cambio_lab.agent.demo import DemoTransport, as_comment, next_reply

TOOLSET = {"type": "computer_toolset_20260801"}
BASH = {"type": "bash_20250124", "name": "bash"}


def image(color: str) -> dict[str, Any]:
    out = io.BytesIO()
    Image.new("RGB", (64, 40), color).save(out, "PNG")
    data = base64.b64encode(out.getvalue()).decode()
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


class Conversation:
    """Plays the desktop's side of a tour: ``screens`` are the colours that screenshots show, the last one for ever."""

    def __init__(self, *screens: str, tools: frozenset[str] = frozenset({"computer", "bash"})) -> None:
        self.screens = list(screens)
        self.tools = tools
        self.messages: list[dict[str, Any]] = []
        self.calls: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.printed: list[str] = []
        """What the shell prints, command by command."""

    def ask(self, words: str, *, fail: str | None = None) -> str:
        """One whole turn; the last words. ``fail`` names a member that the desktop refuses."""
        self.messages.append({"role": "user", "content": [{"type": "text", "text": words}]})
        for _ in range(20):
            reply = next_reply(self.messages, self.tools)
            blocks = [{**block, "id": f"t{len(self.calls)}{i}"} for i, block in enumerate(reply)]
            self.said.append(blocks[0]["text"])
            self.messages.append({"role": "assistant", "content": blocks})
            if not any(block["type"] == "tool_use" for block in reply):
                return self.said[-1]
            self.messages.append({"role": "user", "content": [self._result(block, fail) for block in blocks[1:]]})
        raise AssertionError("the tour does not end")

    def _result(self, block: dict[str, Any], fail: str | None) -> dict[str, Any]:
        self.calls.append(block)
        result = {"type": "tool_result", "tool_use_id": block["id"]}
        if block["name"] == fail:
            return {**result, "is_error": True, "content": [{"type": "text", "text": "The user said no."}]}
        if block["name"] == "bash":
            return {**result, "content": [{"type": "text", "text": self.printed.pop(0) if self.printed else "OK"}]}
        if block["name"] != "screenshot":
            return {**result, "content": [{"type": "text", "text": "OK"}]}
        color = self.screens.pop(0) if len(self.screens) > 1 else self.screens[0]
        return {**result, "content": [image(color)]}

    @property
    def names(self) -> list[str]:
        return [call["name"] for call in self.calls]


def test_the_tour() -> None:
    tour = Conversation("blue", "black")
    answer = tour.ask("Hello world")
    assert tour.names == ["screenshot", "key", "screenshot", "type", "screenshot"]
    assert tour.calls[3]["input"] == {"text": "# Hello world\n"}
    assert "one line, 11 characters" in answer
    assert ["demo model" in words for words in tour.said] == [False, False, False, True]


def test_it_waits_for_a_slow_terminal() -> None:
    tour = Conversation("blue", "blue", "blue", "black")
    tour.ask("hi")
    assert tour.names.count("wait") == 2 and "bash" not in tour.names and tour.names[-2] == "type"


def test_it_starts_a_terminal_from_the_shell_where_no_shortcut_is_bound() -> None:
    tour = Conversation(*["blue"] * 5, "black")
    tour.ask("hi")
    assert tour.names.count("bash") == 1 and tour.names[-2] == "type"


def test_it_types_nothing_without_a_terminal() -> None:
    for tools in (frozenset({"computer", "bash"}), frozenset({"computer"})):
        tour = Conversation("blue", tools=tools)
        answer = tour.ask("hi")
        assert "could not open a terminal" in answer and "type" not in tour.names


def test_it_says_what_was_refused() -> None:
    tour = Conversation("blue", "black")
    assert "The user said no." in tour.ask("hi", fail="type")


def test_a_second_message_uses_the_open_terminal() -> None:
    tour = Conversation("blue", "black")
    tour.ask("one")
    before = len(tour.calls)
    answer = tour.ask("two")
    assert tour.names[before:] == ["screenshot", "type", "screenshot"] and "still open" in answer


PLACES = json.dumps({"name": [100, 50, 40, 20], "drawing": [100, 100, 200, 100], "sign": [10, 300, 80, 20]})
EVERYTHING = frozenset({"computer", "bash", "str_replace_based_edit_tool"})


def test_it_signs_the_guest_book_and_says_once_that_it_is_scripted() -> None:
    demo = Conversation("blue", tools=EVERYTHING)
    demo.printed = [PLACES, "The demo model: Hello!"]
    answer = demo.ask("Open the guest book\nand sign it")
    assert [name for name in demo.names if name not in ("screenshot", "left_click_drag")] == [
        *("str_replace_based_edit_tool", "bash", "left_click", "type", "key", "type", "left_click", "bash")
    ]
    assert demo.names.count("left_click_drag") == 5
    clicks = [call["input"]["coordinate"] for call in demo.calls if call["name"] == "left_click"]
    assert clicks == [[120, 60], [50, 310]]
    typed = [call["input"]["text"] for call in demo.calls if call["name"] == "type"]
    assert typed == ["The demo model", "Hello! I was asked: Open the guest book and sign it"]
    assert "The book has the entry: The demo model: Hello!" in answer
    assert ["demo model, a fixed script" in words for words in demo.said] == [False] * 5 + [True]


def test_without_a_browser_it_makes_its_tour_of_the_terminal() -> None:
    demo = Conversation("blue", "blue", "black", tools=EVERYTHING)
    demo.printed = ["This desktop has no browser."]
    assert "opened a terminal" in demo.ask("Sign the guest book") and "left_click_drag" not in demo.names


def test_it_works_without_a_desktop() -> None:
    assert "no desktop" in Conversation("blue", tools=frozenset()).ask("hi")


@pytest.mark.parametrize(
    "hostile",
    [
        "$(touch /tmp/x) `id` !ls !! ^a^b",
        "one\ntwo\r\nrm -rf /\x0bthree\u2028four\x85five",
        "tab\there\x1b[A\x03\x04\x15",
        "'\"; touch x; #\\",
        "\\\nrm x",
    ],
)
def test_nothing_that_is_typed_can_run(hostile: str) -> None:
    text = as_comment(hostile)
    lines = text.split("\n")
    assert lines.pop() == ""
    assert all(line.startswith("# ") for line in lines)
    assert all(character.isprintable() for line in lines for character in line)


def test_long_messages_are_shortened() -> None:
    assert len(as_comment("x" * 100_000)) < 1600 and as_comment("x\n" * 100).count("\n") == 21


async def test_it_streams_like_the_service() -> None:
    body = {"model": "demo", "messages": [{"role": "user", "content": "hi"}], "tools": [TOOLSET, BASH], "stream": True}
    async with httpx2.AsyncClient(transport=DemoTransport(), base_url="http://demo") as client:
        answers = [await client.post("/v1/messages", json=body) for _ in range(2)]
        assert (await client.post("/v1/messages", content=b"{")).status_code == 400
        assert (await client.get("/v1/models/demo")).status_code == 404
    assert answers[0].content == answers[1].content  # the same question has the same answer
    events = [json.loads(line[6:]) for line in answers[0].text.splitlines() if line.startswith("data: ")]
    assert [event["type"] for event in events[:2]] == ["message_start", "content_block_start"]
    assert events[-1]["type"] == "message_stop" and events[-2]["delta"]["stop_reason"] == "tool_use"
    assert "".join(e["delta"].get("text", "") for e in events if e["type"] == "content_block_delta").startswith(
        "First I look"
    )
