"""Every action, the shell, the editor, the older computer tool and functions from elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from cambio_lab.agent.computer import ACTIONS
from cambio_lab.agent.extras import ExtraResult
from cambio_lab.agent.shell import cut
from cambio_lab.desktop.base import Point, Region
from cambio_lab.desktop.machine import CommandResult
from cambio_lab.errors import DesktopLost, InvalidRequest
from cambio_lab.events import ToolFinished, TurnFailed, TurnFinished
from tests.messages_api import MessagesApi, Script, legacy, member, tool
from tests.messages_api import reply as answer

from .conftest import MakeAgent, of, play
from .fake_desktop import FakeDesktop

EDITOR = "str_replace_based_edit_tool"
GOOD: dict[str, list[tuple[dict[str, Any], tuple[Any, ...], str]]] = {
    "screenshot": [({}, ("screenshot",), "")],
    "zoom": [({"region": [0, 0, 1280, 800]}, ("zoom", Region(0, 0, 1280, 800)), "")],
    "cursor_position": [({}, ("cursor_position",), "X=0,Y=0")],
    "mouse_move": [({"coordinate": [5, 6]}, ("move", Point(5, 6)), "Moved the mouse.")],
    "left_click": [
        ({"coordinate": [0, 0]}, ("click", "left", Point(0, 0), 1, None), "Clicked."),
        ({"coordinate": [1279, 799]}, ("click", "left", Point(1279, 799), 1, None), "Clicked."),
        ({}, ("click", "left", None, 1, None), "Clicked."),
        ({"text": "ctrl+shift"}, ("click", "left", None, 1, "ctrl+shift"), "Clicked."),
    ],
    "right_click": [({}, ("click", "right", None, 1, None), "Right-clicked.")],
    "middle_click": [({}, ("click", "middle", None, 1, None), "Middle-clicked.")],
    "double_click": [({"coordinate": [3, 4]}, ("click", "left", Point(3, 4), 2, None), "Double-clicked.")],
    "triple_click": [({"coordinate": [3, 4]}, ("click", "left", Point(3, 4), 3, None), "Triple-clicked.")],
    "left_click_drag": [
        (
            {"start_coordinate": [1, 2], "coordinate": [3, 4], "text": "alt"},
            ("drag", Point(1, 2), Point(3, 4), "alt"),
            "Dragged.",
        )
    ],
    "left_mouse_down": [({}, ("button_down", "left"), "Left mouse button pressed.")],
    "left_mouse_up": [({}, ("button_up", "left"), "Left mouse button released.")],
    "scroll": [
        (
            {"scroll_direction": "down", "scroll_amount": 50, "coordinate": [9, 9]},
            ("scroll", "down", 50, Point(9, 9), None),
            "Scrolled down.",
        ),
        ({"scroll_direction": "left", "scroll_amount": 1}, ("scroll", "left", 1, None, None), "Scrolled left."),
    ],
    "type": [({"text": "Grüße\n\t漢字🙂"}, ("type_text", "Grüße\n\t漢字🙂"), "Typed.")],
    "key": [
        ({"text": "ctrl+s"}, ("key", "ctrl+s", 1), "Pressed ctrl+s."),
        ({"text": "Tab", "repeat": 100}, ("key", "Tab", 100), "Pressed Tab."),
    ],
    "hold_key": [({"text": "shift", "duration": 0}, ("hold_key", "shift", 0.0), "Held shift for 0s.")],
    "wait": [({"duration": 0}, (), "Waited 0s.")],
}
BAD: dict[str, list[dict[str, Any]]] = {
    "screenshot": [],
    "zoom": [
        {},
        {"region": [10, 10, 10, 20]},
        {"region": [20, 10, 10, 20]},
        {"region": [0, 0, 1281, 800]},
        {"region": [-1, 0, 10, 10]},
        {"region": [0, 0, 10]},
    ],
    "cursor_position": [],
    "mouse_move": [{}, {"coordinate": [1280, 0]}, {"coordinate": [0, 800]}, {"coordinate": [-1, 5]}],
    "left_click": [{"coordinate": [1280, 799]}, {"coordinate": [1, 2, 3]}, {"coordinate": "1,2"}, {"text": 7}],
    "right_click": [{"coordinate": [5000, 5]}],
    "middle_click": [{"coordinate": [5, -1]}],
    "double_click": [{"coordinate": []}],
    "triple_click": [{"coordinate": [None, 1]}],
    "left_click_drag": [
        {"coordinate": [1, 1]},
        {"start_coordinate": [1, 1]},
        {"start_coordinate": [9999, 1], "coordinate": [1, 1]},
        {"start_coordinate": [1, 1], "coordinate": [1, 9999]},
    ],
    "left_mouse_down": [],
    "left_mouse_up": [],
    "scroll": [
        {"scroll_direction": "down"},
        {"scroll_direction": "in", "scroll_amount": 1},
        {"scroll_direction": "up", "scroll_amount": 0},
        {"scroll_direction": "up", "scroll_amount": 51},
        {"scroll_direction": "up", "scroll_amount": -3},
        {"scroll_direction": "up", "scroll_amount": 1, "coordinate": [1280, 1]},
    ],
    "type": [{}, {"text": ""}, {"text": 5}, {"text": "x" * 100_001}],
    "key": [{}, {"text": ""}, {"text": "a", "repeat": 0}, {"text": "a", "repeat": 101}, {"text": "NoSuchKey"}],
    "hold_key": [
        {"text": "a"},
        {"duration": 1},
        {"text": "a", "duration": 301},
        {"text": "a", "duration": -1},
        {"text": "a", "duration": "long"},
    ],
    "wait": [{}, {"duration": 301}, {"duration": -0.5}, {"duration": 1e400}],
}


def test_every_action_is_in_both_tables() -> None:
    assert set(GOOD) == set(BAD) == set(ACTIONS)


@pytest.mark.parametrize("version", ["toolset", "computer_20251124", "computer_20250124"])
async def test_every_action_does_what_it_says(
    version: str, make: MakeAgent, api: MessagesApi, desktop: FakeDesktop
) -> None:
    calls = [
        (name, *row) for name, rows in GOOD.items() for row in rows if (name, version) != ("zoom", "computer_20250124")
    ]
    if version == "toolset":
        api.policy = Script([answer(*[member(name, **arguments) for name, arguments, _, _ in calls])], end="Done.")
    else:
        api.policy = Script([answer(*[legacy(name, **arguments) for name, arguments, _, _ in calls])], end="Done.")
    models = {"computer_20251124": "claude-sonnet-4-6", "computer_20250124": "claude-haiku-4-5"}
    found = await play(make(api, model=models.get(version, "claude-sonnet-5-5")))
    finished = of(found, ToolFinished)
    assert [event.is_error for event in finished] == [False] * len(calls), [event.text for event in finished]
    assert [event.tool for event in finished] == [name for name, *_ in calls]
    done = [entry for entry in desktop.done if entry != ("release_all",)]
    assert done[: len(done) - 1 if done[-1] == ("screenshot",) else None] == [entry for *_, entry, _ in calls if entry]
    if version == "toolset":
        assert [event.text for event in finished] == [words for *_, words in calls]


@pytest.mark.parametrize("version", ["toolset", "legacy"])
async def test_every_wrong_argument_is_refused_and_nothing_happens(
    version: str, make: MakeAgent, api: MessagesApi, desktop: FakeDesktop
) -> None:
    wrong = [(name, arguments) for name, rows in BAD.items() for arguments in rows if arguments != {"duration": 1e400}]
    make_call = member if version == "toolset" else legacy
    replies = [answer(make_call(name, **arguments)) for name, arguments in wrong]
    api.policy = Script(replies, end="Done.")
    model = "claude-sonnet-5-5" if version == "toolset" else "claude-sonnet-4-6"
    found = await play(make(api, model=model))
    finished = of(found, ToolFinished)
    for (name, arguments), event in zip(wrong, finished, strict=True):
        assert event.is_error and event.text, (name, arguments)
    assert {entry[0] for entry in desktop.done} == {"release_all"}


async def test_the_older_tool_refuses_what_its_version_lacks(make: MakeAgent, api: MessagesApi) -> None:
    api.policy = Script([answer(legacy("zoom", region=[0, 0, 9, 9])), answer(legacy("fly")), answer(tool("computer"))])
    found = await play(make(api, model="claude-haiku-4-5"))
    assert [event.is_error for event in of(found, ToolFinished)] == [True] * 3
    assert "action must be one of" in of(found, ToolFinished)[0].text


async def test_the_older_tool_declares_the_screen_and_its_beta(make: MakeAgent, api: MessagesApi) -> None:
    await play(make(api, model="claude-opus-4-6"))
    (computer,) = [entry for entry in api.bodies[0]["tools"] if entry["name"] == "computer"]
    assert computer == {
        "type": "computer_20251124",
        "name": "computer",
        "display_width_px": 1280,
        "display_height_px": 800,
        "enable_zoom": True,
    }
    assert "computer-use-2025-11-24" in api.requests[0].headers["anthropic-beta"]


# The shell
async def shell(make: MakeAgent, api: MessagesApi, /, **arguments: Any) -> ToolFinished:
    api.policy = Script([answer(tool("bash", **arguments))], end="Done.")
    found = await play(make(api, shell_timeout=5, shell_output=1000))
    return of(found, ToolFinished)[0]  # type: ignore[no-any-return]


async def test_the_shell_gives_output_errors_and_exit_code(
    make: MakeAgent, api: MessagesApi, desktop: FakeDesktop
) -> None:
    desktop.command = CommandResult("out\n", "bad\n", 3)
    result = await shell(make, api, command="ls")
    assert not result.is_error
    assert result.text == "out\n\nstderr:\nbad\n\n(exit code 3)"
    assert ("run_command", "ls", 5) in desktop.done


async def test_long_output_keeps_both_ends(make: MakeAgent, api: MessagesApi, desktop: FakeDesktop) -> None:
    desktop.command = CommandResult("a" * 2000 + "MIDDLE" + "z" * 2000, "", 0, truncated=True)
    text = (await shell(make, api, command="cat big")).text
    assert text.startswith("aaa") and "zzz" in text and "MIDDLE" not in text and "left out" in text
    assert len(text) < 1300


async def test_a_timed_out_command_is_an_error(make: MakeAgent, api: MessagesApi, desktop: FakeDesktop) -> None:
    desktop.command = CommandResult("half", "", None, timed_out=True)
    result = await shell(make, api, command="sleep 0")
    assert result.is_error and "longer than 5 seconds" in result.text and "half" in result.text


async def test_the_shell_restarts_and_refuses_nothing_at_all(
    make: MakeAgent, api: MessagesApi, desktop: FakeDesktop
) -> None:
    assert (await shell(make, api, restart=True)).text == "The shell was restarted."
    assert ("restart_shell",) in desktop.done
    assert (await shell(make, api)).is_error
    assert (await shell(make, api, command="  ")).is_error


def test_cut_says_how_much_is_missing() -> None:
    assert cut("short", 10) == "short"
    assert "[... 94 characters left out ...]" in cut("x" * 100, 10) or "left out" in cut("x" * 100, 10)
    assert len(cut("x" * 100_000, 3000)) < 3100


# The editor
async def edit(make: MakeAgent, api: MessagesApi, /, **arguments: Any) -> ToolFinished:
    api.policy = Script([answer(tool(EDITOR, **arguments))], end="Done.")
    return of(await play(make(api)), ToolFinished)[0]  # type: ignore[no-any-return]


async def test_the_editor_creates_views_replaces_and_inserts(
    make: MakeAgent, api: MessagesApi, desktop: FakeDesktop
) -> None:
    text = "one\ntwo\nthree\n"
    assert "14 bytes" in (await edit(make, api, command="create", path="a.txt", file_text=text)).text
    viewed = (await edit(make, api, command="view", path="a.txt")).text
    assert viewed.splitlines()[1] == "     2\ttwo"
    ranged = (await edit(make, api, command="view", path="a.txt", view_range=[2, -1])).text
    assert ranged.startswith("     2\ttwo")
    replaced = await edit(make, api, command="str_replace", path="a.txt", old_str="two", new_str="zwei")
    assert not replaced.is_error and "zwei" in replaced.text
    inserted = await edit(make, api, command="insert", path="a.txt", insert_line=0, insert_text="null\n")
    assert not inserted.is_error
    assert desktop.files["a.txt"] == b"null\none\nzwei\nthree\n"
    desktop.folders.add("docs")
    assert "a.txt" in (await edit(make, api, command="view", path="docs")).text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"command": "view", "path": "gone.txt"}, "does not exist"),
        ({"command": "view", "path": "a.txt", "view_range": [5, 9]}, "view_range"),
        ({"command": "view", "path": "a.txt", "view_range": "all"}, "view_range"),
        ({"command": "str_replace", "path": "a.txt", "old_str": "x", "new_str": "y"}, "occurs 2 times"),
        ({"command": "str_replace", "path": "a.txt", "old_str": "q", "new_str": "y"}, "does not occur"),
        ({"command": "str_replace", "path": "a.txt", "old_str": ""}, "old_str"),
        ({"command": "insert", "path": "a.txt", "insert_line": 9, "insert_text": "x"}, "insert_line"),
        ({"command": "insert", "path": "a.txt", "insert_line": 1}, "insert_text"),
        ({"command": "create", "path": "a.txt"}, "file_text"),
        ({"command": "undo_edit", "path": "a.txt"}, "command must be"),
        ({"command": "view"}, "Give a path"),
        ({"command": "view", "path": "binary"}, "not text in UTF-8"),
        ({"command": "view", "path": "huge"}, "larger than"),
    ],
)
async def test_what_the_editor_refuses(
    arguments: dict[str, Any], words: str, make: MakeAgent, api: MessagesApi, desktop: FakeDesktop
) -> None:
    desktop.files = {"a.txt": b"x\nx\n", "binary": b"\xff\xfe\x00", "huge": b"x" * 2_000_001}
    result = await edit(make, api, **arguments)
    assert result.is_error and words in result.text


# Functions from elsewhere
class Functions:
    """Two functions, as a notebook would offer them."""

    def __init__(self, *names: str, timeout: float = 5.0) -> None:
        self.timeout = timeout
        self.called: list[tuple[str, dict[str, Any], str]] = []
        self._names = names or ("look_up", "slow")

    def schemas(self) -> Sequence[dict[str, Any]]:
        return [{"name": name, "description": "A test.", "input_schema": {"type": "object"}} for name in self._names]

    async def call(self, name: str, arguments: dict[str, Any], *, tool_use_id: str) -> ExtraResult:
        self.called.append((name, arguments, tool_use_id))
        if name == "slow":
            await asyncio.sleep(30)
        if name == "broken":
            raise RuntimeError("the kernel said: token s3cret")
        return ExtraResult(f"{arguments['key']} = 42", is_error=arguments["key"] == "wrong")


async def test_a_function_is_not_called_without_what_it_requires(make: MakeAgent, api: MessagesApi) -> None:
    class Strict(Functions):
        def schemas(self) -> Sequence[dict[str, Any]]:
            return [{**entry, "input_schema": {"type": "object", "required": ["key"]}} for entry in super().schemas()]

    functions = Strict()
    api.policy = Script([answer(tool("look_up")), answer(tool("look_up", key="x"))], end="Done.")
    first, second = of(await play(make(api, extra_tools=functions)), ToolFinished)
    assert first.is_error and first.text == "Not executed: look_up needs key." and second.text == "x = 42"
    assert len(functions.called) == 1


async def test_functions_from_elsewhere_are_offered_and_called(make: MakeAgent, api: MessagesApi) -> None:
    functions = Functions("look_up", "left_click")  # a function may share a member's name
    script = [answer(tool("look_up", key="x"), tool("left_click", key="y")), answer(tool("look_up", key="wrong"))]
    api.policy = Script(script, end="Done.")
    found = await play(make(api, extra_tools=functions))
    assert [(event.text, event.is_error) for event in of(found, ToolFinished)] == [
        ("x = 42", False),
        ("y = 42", False),
        ("wrong = 42", True),
    ]
    assert functions.called[0][2] == of(found, ToolFinished)[0].tool_use_id
    assert {entry.get("name") for entry in api.bodies[0]["tools"]} >= {"look_up", "left_click"}


async def test_a_slow_or_broken_function_is_answered(make: MakeAgent, api: MessagesApi) -> None:
    api.policy = Script([answer(tool("slow")), answer(tool("broken"))], end="Done.")
    found = await play(make(api, extra_tools=Functions("slow", "broken", timeout=0.1)))
    texts = [event.text for event in of(found, ToolFinished)]
    assert "longer than 0.1 seconds" in texts[0] and texts[1] == "broken could not be called."
    assert isinstance(found[-1], TurnFinished)


@pytest.mark.parametrize("names", [("bash",), ("a", "a"), ("computer",), ("not a name",), ("",)])
async def test_names_that_are_taken_are_refused(names: tuple[str, ...], make: MakeAgent, api: MessagesApi) -> None:
    found = await play(make(api, extra_tools=Functions(*names) if names != ("",) else _Nameless()))
    assert isinstance(found[-1], TurnFailed) and "cannot be offered" in found[-1].error
    assert found[-1].kind == InvalidRequest.__name__


class _Nameless(Functions):
    def schemas(self) -> Sequence[dict[str, Any]]:
        return [{"name": ""}]


async def test_functions_offered_later_keep_a_bound_conversation_alive(make: MakeAgent, api: MessagesApi) -> None:
    from tests.messages_api import screenshot, think

    api.policy = Script([answer(think("hm"), screenshot())], end="Done.")
    agent = make(api)
    await play(agent)
    agent.extra_tools = Functions("look_up")
    assert isinstance((await play(agent))[-1], TurnFinished)
    assert api.bodies[-1]["thinking"]["block_binding"] == {"prefix_mismatch_behavior": "drop_block"}


async def test_a_lost_desktop_in_an_action_is_fatal(make: MakeAgent, api: MessagesApi, desktop: FakeDesktop) -> None:
    def die() -> None:
        raise DesktopLost("The VNC connection broke.")

    desktop.on["click"] = die
    for model, call in (("claude-sonnet-5-5", member("left_click")), ("claude-sonnet-4-6", legacy("left_click"))):
        api.policy = Script([answer(call)], end="Done.")
        found = await play(make(api, model=model))
        assert isinstance(found[-1], TurnFailed) and found[-1].fatal
