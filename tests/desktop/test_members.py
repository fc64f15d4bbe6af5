"""Each member of the computer toolset, as a program in the desktop sees it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from cambio_lab.desktop import make_provider
from cambio_lab.desktop.base import Point, Region
from cambio_lab.desktop.connected import ConnectedDesktop
from cambio_lab.desktop.provider import DesktopOptions
from cambio_lab.errors import ActionError
from cambio_lab.settings import Settings

from .programs import Recorder

HERE = Point(400, 350)
SHIFT, CONTROL, ALT, SUPER = 1, 4, 8, 64


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared(docker_host: str) -> AsyncIterator[tuple[ConnectedDesktop, Recorder]]:
    """One desktop for the whole module: every test leaves it with nothing pressed."""
    provider = await make_provider(Settings(pool_size=0), server_id=uuid.uuid4().hex, kind="docker")
    desktop = await provider.acquire("test", DesktopOptions())
    assert isinstance(desktop, ConnectedDesktop)
    yield desktop, await Recorder.open(desktop)
    await provider.stop()


@pytest.fixture
def docker_desktop(shared: tuple[ConnectedDesktop, Recorder]) -> ConnectedDesktop:
    return shared[0]


@pytest_asyncio.fixture(loop_scope="module")
async def recorder(shared: tuple[ConnectedDesktop, Recorder]) -> Recorder:
    await asyncio.sleep(0.5)  # so that no click makes a double one with the last of the test before
    await shared[1].events()
    return shared[1]


@pytest.mark.timing  # what is a double click and what are two is a matter of half a second
async def test_clicks(docker_desktop: ConnectedDesktop, recorder: Recorder) -> None:
    for button, number in (("left", 1), ("middle", 2), ("right", 3)):
        await docker_desktop.click(button, HERE)  # type: ignore[arg-type]
        press, release = await recorder.events("ButtonPress", "ButtonRelease", least=2)
        assert (press["num"], press["x"], press["y"]) == (number, *HERE)
        assert release["kind"] == "ButtonRelease"
        await asyncio.sleep(0.5)  # so that the next click does not make a double one
    await docker_desktop.click("left", HERE, count=2)
    assert len(await recorder.events("click2", least=1)) == 1
    await asyncio.sleep(0.6)
    await docker_desktop.click("left", HERE, count=3)
    kinds = [event["kind"] for event in await recorder.events("click2", "click3", least=2)]
    assert kinds == ["click2", "click3"]


async def test_a_click_without_a_place_is_where_a_person_left_the_pointer(
    docker_desktop: ConnectedDesktop, recorder: Recorder
) -> None:
    await docker_desktop.move(Point(300, 300))
    from cambio_lab.desktop.rfb.client import RfbClient

    person = await RfbClient.connect(docker_desktop.endpoint(), lambda damage: None)
    person.pointer(*HERE)
    await person.sync()
    assert await docker_desktop.cursor_position() == HERE
    await docker_desktop.click()
    press, *_ = await recorder.events("ButtonPress", least=1)
    assert (press["x"], press["y"]) == HERE
    await person.close()


@pytest.mark.timing  # 0.55 s apart, and Tk joins what its X server gets within 0.5 s
async def test_clicks_of_separate_steps_are_single_clicks(docker_desktop: ConnectedDesktop, recorder: Recorder) -> None:
    for _ in range(3):
        await docker_desktop.click("left", HERE)
    await docker_desktop.click("left", Point(HERE.x + 2, HERE.y + 2))
    await docker_desktop.click("left", HERE, count=2)
    await docker_desktop.button_down()
    await docker_desktop.button_up()
    await docker_desktop.key("F12")
    kinds = [event["kind"] for event in await recorder.events("click2", "click3", "ButtonPress", least=7)]
    # Tk tells the second press of a double click as click2 instead of ButtonPress.
    assert kinds == ["ButtonPress"] * 5 + ["click2", "ButtonPress"]


async def test_a_drag_in_three_steps_travels(docker_desktop: ConnectedDesktop, recorder: Recorder) -> None:
    await docker_desktop.move(Point(300, 300))
    await docker_desktop.button_down()
    await docker_desktop.move(Point(500, 420))
    await docker_desktop.button_up()
    events = await recorder.events("Motion", "ButtonRelease", least=7)
    held = [event for event in events if event["kind"] == "Motion" and event["state"] & 0x100]
    assert len(held) >= 6
    assert (events[-1]["kind"], events[-1]["x"], events[-1]["y"]) == ("ButtonRelease", 500, 420)


async def test_modifiers_are_held_for_one_action_only(docker_desktop: ConnectedDesktop, recorder: Recorder) -> None:
    await docker_desktop.click("left", HERE, modifiers="ctrl+Shift")
    press, *_ = await recorder.events("ButtonPress", least=1)
    assert press["state"] & (SHIFT | CONTROL | ALT) == SHIFT | CONTROL
    await asyncio.sleep(0.6)  # so that the next click does not make a double one
    await docker_desktop.click("left", HERE)
    press, *_ = await recorder.events("ButtonPress", least=1)
    assert press["state"] & (SHIFT | CONTROL | ALT | SUPER) == 0
    await asyncio.sleep(0.6)
    await docker_desktop.click("left", HERE, modifiers="cmd")
    press, *_ = await recorder.events("ButtonPress", least=1)
    assert press["state"] & (SHIFT | CONTROL | ALT | SUPER) == SUPER


async def test_scrolling_in_four_directions(docker_desktop: ConnectedDesktop, recorder: Recorder) -> None:
    # Tk tells the horizontal wheel's buttons 6 and 7 as 4 and 5 with shift.
    for direction, number, state in (("up", 4, 0), ("down", 5, 0), ("left", 4, SHIFT), ("right", 5, SHIFT)):
        await docker_desktop.scroll(direction, 3, HERE)  # type: ignore[arg-type]
        presses = await recorder.events("ButtonPress", least=3)
        assert [(press["num"], press["state"] & SHIFT) for press in presses] == [(number, state)] * 3
    await docker_desktop.scroll("down", 1, HERE, modifiers="ctrl")
    (press,) = await recorder.events("ButtonPress", least=1)
    assert press["num"] == 5
    assert press["state"] & CONTROL
    for amount in (0, 51):
        with pytest.raises(ActionError, match="1 and 50"):
            await docker_desktop.scroll("down", amount, HERE)


async def test_drag_travels(docker_desktop: ConnectedDesktop, recorder: Recorder) -> None:
    await docker_desktop.drag(Point(300, 300), Point(500, 420))
    events = await recorder.events("ButtonPress", "Motion", "ButtonRelease", least=8)
    press = next(event for event in events if event["kind"] == "ButtonPress")
    release = next(event for event in events if event["kind"] == "ButtonRelease")
    held = [event for event in events if event["kind"] == "Motion" and event["state"] & 0x100]
    assert (press["x"], press["y"]) == (300, 300)
    assert (release["x"], release["y"]) == (500, 420)
    assert len(held) >= 6


async def test_mouse_down_and_up(docker_desktop: ConnectedDesktop, recorder: Recorder) -> None:
    await docker_desktop.move(HERE)
    await docker_desktop.button_down()
    await docker_desktop.move(Point(450, 360))
    await docker_desktop.button_up()
    events = await recorder.events("ButtonPress", "ButtonRelease", least=2)
    assert [(event["kind"], event["x"]) for event in events] == [("ButtonPress", 400), ("ButtonRelease", 450)]
    await docker_desktop.button_down()
    await docker_desktop.release_all()
    assert [event["kind"] for event in await recorder.events("ButtonPress", "ButtonRelease", least=2)] == [
        "ButtonPress",
        "ButtonRelease",
    ]


KEYS = [
    # combo, keysym, modifiers
    ("Return", "Return", 0),
    ("ENTER", "Return", 0),
    ("ctrl+s", "s", CONTROL),
    ("Ctrl+Shift+T", "T", CONTROL | SHIFT),
    ("ctrl+shift+t", "T", CONTROL | SHIFT),
    ("shift+1", "exclam", SHIFT),
    ("shift+Tab", "ISO_Left_Tab", SHIFT),
    ("alt+F5", "F5", ALT),
    ("Page_Down", "Next", 0),
    ("pgup", "Prior", 0),
    ("BackSpace", "BackSpace", 0),
    ("KP_1", "KP_1", None),
    ("KP_Enter", "KP_Enter", 0),
    ("+", "plus", SHIFT),
    ("ctrl++", "plus", CONTROL | SHIFT),
    ("ctrl+plus", "plus", CONTROL | SHIFT),
    ("super+e", "e", SUPER),
    ("space", "space", 0),
    ("ö", "odiaeresis", 0),
    ("€", "U20AC", 0),
    ("Escape", "Escape", 0),
    ("Left", "Left", 0),
]


async def test_keys_table(docker_desktop: ConnectedDesktop, recorder: Recorder) -> None:
    modifiers = {"Shift_L", "Control_L", "Alt_L", "Super_L", "Num_Lock"}
    for combo, _, _ in KEYS:
        await docker_desktop.key(combo)
        await docker_desktop.key("F12")  # between each and the next
    events: list[dict[str, Any]] = []
    while [event["keysym"] for event in events].count("F12") < len(KEYS):
        events += await recorder.events("KeyPress", least=1)
    groups: list[list[dict[str, Any]]] = [[]]
    for event in events:
        if event["keysym"] == "F12":
            groups.append([])
        elif event["keysym"] not in modifiers:
            groups[-1].append(event)
    wrong = []
    for (combo, keysym, state), pressed in zip(KEYS, groups, strict=False):
        got = [(event["keysym"], event["state"] & (SHIFT | CONTROL | ALT | SUPER)) for event in pressed]
        good = len(got) == 1 and got[0][0] == keysym and state in (None, got[0][1])
        print(f"{combo:14} {keysym:14} {'ok' if good else got}")
        if not good:
            wrong.append((combo, got))
    assert not wrong
    assert len(groups) == len(KEYS) + 1


@pytest.mark.timing
async def test_repeat_and_hold(docker_desktop: ConnectedDesktop, recorder: Recorder) -> None:
    await docker_desktop.key("a", repeat=100)
    assert len(await recorder.events("KeyPress", least=100)) == 100
    begin = time.monotonic()
    await docker_desktop.hold_key("shift", 0.6)
    assert time.monotonic() - begin >= 0.6
    events = await recorder.events("KeyPress", "KeyRelease", least=2)
    assert [event["kind"] for event in events][-1] == "KeyRelease"
    for repeat in (0, 101):
        with pytest.raises(ActionError, match="1 and 100"):
            await docker_desktop.key("a", repeat=repeat)


async def test_a_cancelled_hold_lets_go(docker_desktop: ConnectedDesktop, recorder: Recorder) -> None:
    holding = asyncio.create_task(docker_desktop.hold_key("ctrl+b", 60))
    await recorder.events("KeyPress", least=2)
    holding.cancel()
    await asyncio.wait([holding])
    released = await recorder.events("KeyRelease", least=2)
    assert {event["keysym"] for event in released[-2:]} == {"b", "Control_L"}
    await docker_desktop.key("x")
    events = await recorder.events("KeyPress", least=1)
    assert events[-1]["state"] & CONTROL == 0


async def test_places_outside_the_screen_are_refused(docker_desktop: ConnectedDesktop) -> None:
    for point in (Point(1280, 10), Point(10, 800), Point(-1, 10), Point(5000, 5000)):
        for action in (
            docker_desktop.move(point),
            docker_desktop.click("left", point),
            docker_desktop.scroll("up", 1, point),
            docker_desktop.drag(Point(1, 1), point),
        ):
            with pytest.raises(ActionError, match="outside the 1280x800 screen"):
                await action
    for region in (Region(5, 5, 5, 9), Region(9, 5, 4, 9), Region(0, 0, 1281, 10)):
        with pytest.raises(ActionError, match="region"):
            await docker_desktop.zoom(region)
