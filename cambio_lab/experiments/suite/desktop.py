"""Files, text, the shell and a window whose buttons only eyes can tell apart."""

from __future__ import annotations

import json
from functools import partial

from ..live import Live
from ..task import Task, Verdict

WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "hazel", "iris", "jade", "kelp", "lotus")
limited = partial(Task, config={"max_steps": 40, "max_cost_usd": 1.0})


async def _draw_folders(live: Live) -> None:
    live.values["folders"] = live.random.sample(WORDS, 4)


def _ask_folders(live: Live) -> str:
    *first, last = live.values["folders"]
    return f"In your home folder make a folder `project` with four folders in it: {', '.join(first)} and {last}."


async def _check_folders(live: Live) -> Verdict:
    found = {entry.path.rsplit("/", 1)[-1] for entry in await live.files("project") if entry.is_dir}
    wanted = set(live.values["folders"])
    return Verdict(found == wanted, len(found & wanted) / len(wanted), f"found {sorted(found)}")


async def _mix_files(live: Live) -> None:
    live.values["files"] = {
        f"{word}.{ending}": f"{word} {live.random.random()}\n"
        for word, ending in zip(live.random.sample(WORDS, 9), ("csv", "txt", "log") * 3, strict=True)
    }
    for name, content in live.values["files"].items():
        await live.write(f"inbox/{name}", content)


async def _check_sorted(live: Live) -> Verdict:
    places = {"csv": "inbox/tables", "txt": "inbox/notes", "log": "inbox"}
    right = 0
    for name, content in live.values["files"].items():
        path = f"{places[name.rsplit('.', 1)[1]]}/{name}"
        right += await live.exists(path) and await live.read(path) == content
    total = len(live.values["files"])
    return Verdict(right == total, right / total, f"{right} of {total} files are where they belong")


async def _take_photos(live: Live) -> None:
    numbers = live.random.sample(range(100, 999), 5)
    live.values["numbers"] = numbers
    for number in numbers:
        await live.write(f"photos/IMG_{number}.jpg", f"photo {number}")


def _ask_photos(live: Live) -> str:
    return (
        "The folder `photos` in your home has photos named IMG_<number>.jpg. "
        "Rename each to holiday-<number>.jpg, keeping its number. Leave no other file there."
    )


async def _check_photos(live: Live) -> Verdict:
    found = {entry.path.rsplit("/", 1)[-1] for entry in await live.files("photos")}
    wanted = {f"holiday-{number}.jpg" for number in live.values["numbers"]}
    kept = [number for number in live.values["numbers"] if f"holiday-{number}.jpg" in found]
    same = [await live.read(f"photos/holiday-{number}.jpg") == f"photo {number}" for number in kept]
    return Verdict(found == wanted and all(same), sum(same) / len(wanted), f"found {sorted(found)}")


LINES = ("Dear Zoë,", "the café on Großstraße 7 opens at 9:30 – see you there!", "Yours, Jürgen")


async def _write_list(live: Live) -> None:
    items = live.random.sample(WORDS, 8)
    old, new = items[live.random.randrange(8)], "walnut"
    live.values |= {"items": items, "old": old, "new": new}
    await live.write("list.txt", "\n".join(items) + "\n")
    await live.spawn("mousepad list.txt")
    await live.wait_for_window("list.txt")


def _ask_replace(live: Live) -> str:
    old, new = live.values["old"], live.values["new"]
    return f"The editor shows list.txt from your home folder. Replace {old} by {new}, change nothing else, and save."


async def _check_replaced(live: Live) -> Verdict:
    text = await live.read("list.txt")
    wanted = [live.values["new"] if item == live.values["old"] else item for item in live.values["items"]]
    lines = text.splitlines()
    same = sum(one == other for one, other in zip(lines, wanted, strict=False))
    return Verdict(lines == wanted, same / max(len(lines), len(wanted)), f"{same} of {len(wanted)} lines are right")


async def _open_editor(live: Live) -> None:
    await live.write("letter.txt", "")
    await live.spawn("mousepad letter.txt")
    await live.wait_for_window("letter.txt")


async def _check_letter(live: Live) -> Verdict:
    lines = (await live.read("letter.txt")).rstrip("\n").split("\n")
    same = sum(one == other for one, other in zip(lines, LINES, strict=False))
    return Verdict(lines == list(LINES), same / max(len(lines), len(LINES)), f"{same} of {len(LINES)} lines are right")


BROKEN = """\
import sys


def average(numbers):
    total = 0
    for number in numbers[1:]:
        total += number
    return total / len(numbers)


print(average([float(word) for word in sys.argv[1:]]))
"""


async def _write_log(live: Live) -> None:
    levels = live.random.choices(("INFO", "WARNING", "ERROR"), weights=(80, 12, 8), k=400)
    lines = [
        f"2026-03-{1 + number // 20:02} 10:{number % 60:02}:00 {level} worker-{live.random.randrange(9)}: "
        f"{'no ERROR here' if level == 'INFO' and number % 7 == 0 else 'job ' + str(number)}"
        for number, level in enumerate(levels)
    ]
    live.values["errors"] = levels.count("ERROR")
    await live.write("server.log", "\n".join(lines) + "\n")


async def _check_count(live: Live) -> Verdict:
    text = (await live.read("answer.txt")).strip()
    return Verdict(
        text == str(live.values["errors"]), float(text == str(live.values["errors"])), f"wrote {text[:40]!r}"
    )


async def _write_script(live: Live) -> None:
    live.values["numbers"] = [live.random.randrange(1, 100) for _ in range(5)]
    await live.write("average.py", BROKEN)


async def _check_script(live: Live) -> Verdict:
    """Run the script with numbers that the message does not name, and with one number alone."""
    right, said = 0, []
    for numbers in (live.values["numbers"], [7]):
        ran = await live.shell("python3 average.py " + " ".join(map(str, numbers)))
        said.append((ran.stdout + ran.stderr).strip()[-60:])
        try:
            right += abs(json.loads(ran.stdout) - sum(numbers) / len(numbers)) < 1e-9
        except (ValueError, TypeError):
            continue
    return Verdict(right == 2, right / 2, f"printed {said}")


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


DESKTOP_TASKS: tuple[Task, ...] = (
    limited(
        "make folders",
        _ask_folders,
        setup=_draw_folders,
        check=_check_folders,
        description="Create four named folders inside another.",
    ),
    limited(
        "sort files",
        "In the folder `inbox` of your home, move every .csv file into `inbox/tables` and every .txt file into "
        "`inbox/notes` (make these folders). Leave the other files where they are.",
        setup=_mix_files,
        check=_check_sorted,
        description="Move files by their kind, without losing or touching others.",
    ),
    limited(
        "rename photos",
        _ask_photos,
        setup=_take_photos,
        check=_check_photos,
        description="Rename five files by a pattern.",
    ),
    limited(
        "replace word",
        _ask_replace,
        setup=_write_list,
        check=_check_replaced,
        description="Change one line of a file that is open in the editor.",
    ),
    limited(
        "write letter",
        "The editor shows the empty file letter.txt. Type these three lines exactly, and save:\n\n" + "\n".join(LINES),
        setup=_open_editor,
        check=_check_letter,
        description="Type text with umlauts and punctuation, exactly.",
    ),
    limited(
        "count errors",
        "The file server.log in your home has one entry a line: date, time, level, worker, text. "
        "How many entries have the level ERROR? Write the number alone into answer.txt in your home.",
        setup=_write_log,
        check=_check_count,
        description="Count lines by a field, not by a word that also occurs elsewhere.",
    ),
    limited(
        "fix script",
        "average.py in your home prints the average of the numbers it is given, but the result is wrong. "
        "Find the mistake and repair it.",
        setup=_write_script,
        check=_check_script,
        description="Repair a small Python program; the check runs it with other numbers.",
    ),
    limited(
        "press button",
        _ask_button,
        setup=_open_window,
        check=_check_button,
        description="Find a coloured button at a random place and click it.",
    ),
)
