"""Text, in the desktop's editor or any other."""

from __future__ import annotations

from ..live import Live
from ..task import Task, Verdict
from .files import LIMITS, WORDS

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


REPLACE_WORD = Task(
    "replace word",
    _ask_replace,
    setup=_write_list,
    check=_check_replaced,
    config=LIMITS,
    description="Change one line of a file that is open in the editor.",
)
WRITE_LETTER = Task(
    "write letter",
    "The editor shows the empty file letter.txt. Type these three lines exactly, and save:\n\n" + "\n".join(LINES),
    setup=_open_editor,
    check=_check_letter,
    config=LIMITS,
    description="Type text with umlauts and punctuation, exactly.",
)
