"""Two stand-in models that work on the ten tasks of the suite: one carefully, one carelessly.

Both look at what they are sent: names and numbers come from the message, the button's place from the screenshot,
results of commands from what the desktop answered. The careless one makes mistakes that a model could make; in
:data:`WRONG` are the tasks that its mistakes spoil.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from cambio_lab.experiments.suite.desktop import COLOURS, LINES
from tests.messages_api import Reply, View, click, find_color, member, reply, screenshot, tool

CAREFUL, CARELESS = "claude-opus-5-5", "claude-haiku-5-5"
WRONG = frozenset(
    {"sort files", "replace word", "count errors", "fix script", "press button", "fill form", "read page"}
)
"""Tasks that the careless model gets wrong; the other three it does right."""
_FIXED = "sed -i 's/numbers\\[1:\\]/numbers/' average.py"
_HALF_FIXED = "sed -i 's/len(numbers)/(len(numbers) - 1)/' average.py"


def solve(view: View) -> Reply:
    careful = view.body["model"] == CAREFUL
    for words, policy in _POLICIES.items():
        if words in view.prompt:
            return policy(view, careful)
    return reply("I do not know this task.")


def _shell(view: View, command: str, answer: str = "Done.") -> Reply:
    """One command, a look at the screen, a report."""
    if not view.calls:
        return reply("I use the shell.", tool("bash", command=command), screenshot())
    return reply(answer)


def _folders(view: View, careful: bool) -> Reply:
    names = re.findall(r"[a-z]+", view.prompt.split("in it: ")[1].rstrip("."))
    return _shell(view, "mkdir -p ~/project && cd ~/project && mkdir " + " ".join(n for n in names if n != "and"))


def _sort(view: View, careful: bool) -> Reply:
    text = "notes" if careful else "tables"
    return _shell(view, f"cd ~/inbox && mkdir -p tables notes && mv *.csv tables/ && mv *.txt {text}/")


def _photos(view: View, careful: bool) -> Reply:
    return _shell(view, 'cd ~/photos && for f in IMG_*.jpg; do mv "$f" "holiday-${f#IMG_}"; done')


def _replace(view: View, careful: bool) -> Reply:
    found = re.search(r"Replace (\w+) by (\w+)", view.prompt)
    assert found
    after = "" if careful else "; sed -i 1d ~/list.txt"
    return _shell(view, f"sed -i 's/^{found[1]}$/{found[2]}/' ~/list.txt{after}")


def _letter(view: View, careful: bool) -> Reply:
    """In the editor's window, with the keyboard."""
    if not view.calls:
        return reply("I look.", screenshot())
    if len(view.calls) == 1:
        return reply(
            "I type and save.",
            click(400, 300),
            member("type", text="\n".join(LINES)),
            member("key", text="ctrl+s"),
            screenshot(),
        )
    return reply("The letter is saved.")


def _count(view: View, careful: bool) -> Reply:
    pattern = "awk '$3 == \"ERROR\"' ~/server.log | wc -l" if careful else "grep -c ERROR ~/server.log"
    return _shell(view, f"{pattern} > ~/answer.txt")


def _script(view: View, careful: bool) -> Reply:
    return _shell(view, f"cd ~ && {_FIXED if careful else _HALF_FIXED}")


def _button(view: View, careful: bool) -> Reply:
    """Only the screenshot says where it is."""
    name = re.search(r"Press its (\w+) button", view.prompt)
    assert name
    if not view.looks():
        return reply("I look for the button.", screenshot())
    if any(call["name"] == "left_click" for call in view.calls):
        return reply("Pressed.")
    names = list(COLOURS)
    wanted = name[1] if careful else names[(names.index(name[1]) + 1) % len(names)]
    seen = view.last_screenshot()
    assert seen is not None
    place = find_color(seen, COLOURS[wanted], least=400)
    if place is None:
        return reply("I cannot see it.")
    return reply("There it is.", click(*place), screenshot())


def _form(view: View, careful: bool) -> Reply:
    """With the keyboard: the first field has the focus once the page is there."""
    found = re.search(r"Order (\d+) chairs of (\w+) for (.+), once", view.prompt)
    port = re.search(r":(\d+)/", view.prompt)
    assert found and port
    fields = {"name": found[3], "chairs": found[1], "wood": found[2] if careful else "oak"}
    if not view.calls:
        return reply("I look.", screenshot())
    if not any(call["name"] == "bash" for call in view.calls):
        if not _page_is_there(view) and len(view.calls) < 30:
            return reply("Not yet.", member("wait", duration=1), screenshot())
        return reply(
            "I fill it in.",
            member("type", text=f"{fields['name']}\t{fields['chairs']}\t{fields['wood']}\t"),
            member("key", text="space"),
            screenshot(),
            tool("bash", command="sleep 1; cat ~/.received.json"),
        )
    return reply(f"Ordered: {view.result_text()}")


def _page_is_there(view: View) -> bool:
    """The page is white where the desktop was blue."""
    seen = view.last_screenshot()
    return seen is not None and bool((seen[300:700, 300:1000] > 240).mean() > 0.7)


def _price(view: View, careful: bool) -> Reply:
    port = re.search(r":(\d+)/", view.prompt)
    assert port
    if not view.calls:
        page = f"curl -s http://127.0.0.1:{port[1]}/"
        return reply("I read the page.", tool("bash", command=f"{page} | tr '<' '\\n' | grep '^td'"), screenshot())
    prices = re.findall(r"td>(\w+)\s+td align=right>([\d.]+)", view.result_text())
    if not prices:
        return reply("There are no prices.")
    chosen = (min if careful else max)(prices, key=lambda item: float(item[1]))
    return reply(chosen[0])


_POLICIES: dict[str, Callable[[View, bool], Reply]] = {
    "make a folder `project`": _folders,
    "In the folder `inbox`": _sort,
    "The folder `photos`": _photos,
    "The editor shows list.txt": _replace,
    "The editor shows the empty file letter.txt": _letter,
    "The file server.log": _count,
    "average.py in your home": _script,
    "A window named Buttons": _button,
    "The browser shows an order form": _form,
    "The browser shows a list of prices": _price,
}
