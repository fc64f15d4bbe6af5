"""A window that only eyes and a mouse can use: its buttons say nothing, their colours do."""

from __future__ import annotations

import json

from ..live import Live
from ..task import Task, Verdict
from .files import LIMITS

COLOURS = {"green": "#00c853", "red": "#d50000", "blue": "#2962ff", "yellow": "#ffd600"}
WINDOW = """\
import json, pathlib, sys, tkinter
places = json.loads(sys.argv[1])
root = tkinter.Tk()
root.title("Buttons")
root.geometry("700x460+120+90")
pressed = []
def press(name):
    pressed.append(name)
    pathlib.Path("pressed.json").write_text(json.dumps(pressed))
    buttons[name].place_forget()
buttons = {}
for name, (colour, x, y) in places.items():
    button = tkinter.Label(root, bg=colour, width=9, height=3)
    button.bind("<Button-1>", lambda event, name=name: press(name))
    button.place(x=x, y=y)
    buttons[name] = button
root.update()
pathlib.Path(".buttons-ready").write_text("yes")
root.mainloop()
"""


async def _open_window(live: Live) -> None:
    corners = live.random.sample([(x, y) for x in (30, 200, 370, 540) for y in (30, 170, 310)], len(COLOURS))
    places = {name: (colour, *corner) for (name, colour), corner in zip(COLOURS.items(), corners, strict=True)}
    live.values["wanted"] = live.random.choice(list(COLOURS))
    await live.write(".buttons.py", WINDOW)
    await live.spawn(f"python3 .buttons.py '{json.dumps(places)}'")
    await live.wait_for(".buttons-ready")


def _ask_button(live: Live) -> str:
    return f"A window named Buttons is open. Press its {live.values['wanted']} button once, and no other."


async def _check_button(live: Live) -> Verdict:
    pressed = json.loads(await live.read("pressed.json")) if await live.exists("pressed.json") else []
    right = pressed == [live.values["wanted"]]
    return Verdict(right, float(right), f"pressed {pressed}")


PRESS_BUTTON = Task(
    "press button",
    _ask_button,
    setup=_open_window,
    check=_check_button,
    config=LIMITS,
    description="Find a coloured button at a random place and click it.",
)
