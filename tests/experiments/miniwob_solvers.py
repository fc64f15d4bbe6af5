"""Scripted solvers for pages of MiniWoB++: they read the page through DevTools and act with mouse and keyboard.

Each is an asynchronous generator of batches of actions. ``solution(name)`` makes a policy of it, for ``Task.solution``.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

from cambio_lab.agent.computer import ACTIONS
from cambio_lab.experiments import Live, Observation, action
from cambio_lab.experiments.miniwob import evaluate

Batch = list[dict[str, Any]]
SUBMIT = "document.querySelector('#subbtn')"
WRONG_AT = "document.querySelector('#query')"


class Page:
    """The task's page: values of expressions, and where elements are on the screen."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self.message = str(live.values["message"])

    async def js(self, expression: str) -> Any:
        return json.loads(await evaluate(self._live, f"JSON.stringify({expression})"))

    async def at(self, element: str) -> list[int]:
        """Return the screen's point in the middle of an element's first box."""
        found = await self.js(
            f"(() => {{ const e = {element}; e.scrollIntoViewIfNeeded(); const r = e.getClientRects()[0],"
            " v = visualViewport; return [screenX + (r.x + r.width / 2 - v.offsetLeft) * v.scale,"
            " screenY + outerHeight - innerHeight + (r.y + r.height / 2 - v.offsetTop) * v.scale] })()"
        )
        return [round(value) for value in found]

    async def click(self, element: str) -> dict[str, Any]:
        return action("left_click", coordinate=await self.at(element))

    @property
    def quoted(self) -> list[str]:
        return re.findall(r'"([^"]*)"', self.message)


Solver = Callable[[Page], AsyncIterator[Batch]]


def text(selector: str, words: str) -> str:
    return f"[...document.querySelectorAll('{selector}')].find(e => e.textContent.trim() === {json.dumps(words)})"


def one(selector: str) -> str:
    return f"document.querySelector({json.dumps(selector)})"


def clicking(*elements: str) -> Solver:
    """Click fixed elements, one after another."""

    async def solve(page: Page) -> AsyncIterator[Batch]:
        for element in elements:
            yield [await page.click(element)]

    return solve


def clicking_quoted(selector: str) -> Solver:
    """Click the element whose text the message quotes."""

    async def solve(page: Page) -> AsyncIterator[Batch]:
        yield [await page.click(text(selector, page.quoted[-1]))]

    return solve


def typing(selector: str, words: Callable[[Page], Any]) -> Solver:
    """Type into a field and submit."""

    async def solve(page: Page) -> AsyncIterator[Batch]:
        found = words(page)
        written = str(found if isinstance(found, str) else await found)
        yield [await page.click(one(selector)), action("type", text=written)]
        yield [await page.click(SUBMIT)]

    return solve


def choosing(kind: str) -> Solver:
    """Tick the named boxes and submit."""

    async def solve(page: Page) -> AsyncIterator[Batch]:
        found = re.search(r"Select (.*) and click Submit", page.message)
        assert found
        for name in found[1].split(", ") if found[1] != "nothing" else []:
            yield [await page.click(f"{text('#boxes label', name)}.querySelector('input[type={kind}]')")]
        yield [await page.click(SUBMIT)]

    return solve


def fields(*selectors: str) -> Solver:
    """Type what the message quotes into fields, the last one also into those left over, and submit."""

    async def solve(page: Page) -> AsyncIterator[Batch]:
        for number, selector in enumerate(selectors):
            words = page.quoted[min(number, len(page.quoted) - 1)]
            yield [await page.click(one(selector)), action("type", text=words)]
        yield [await page.click(SUBMIT)]

    return solve


async def _focus_second(page: Page) -> AsyncIterator[Batch]:
    position = re.search(r"the (\d)", page.message)
    assert position
    yield [await page.click(one(f"#tt{position[1]}"))]


async def _arithmetic(page: Page) -> str:
    first, sign, second = (await page.js(f"{one('#math-problem')}.textContent")).split()[:3]
    return str({"+": int.__add__, "-": int.__sub__, "x": int.__mul__}[sign](int(first), int(second)))


async def _algebra(page: Page) -> str:
    left, sign, right, _, result = (await page.js(f"{one('#math-problem')}.textContent")).split()
    if sign == "+":
        return str(int(result) - int(right if left == "x" else left))
    return str(int(result) + int(right)) if left == "x" else str(int(left) - int(result))


async def _cell(page: Page) -> str:
    name = re.search(r"value of (.*) into", page.message)
    assert name
    return str(await page.js(f"{text('td', name[1])}.nextSibling.textContent"))


async def _widget(page: Page) -> AsyncIterator[Batch]:
    yield [await page.click(one(f"[data-type={page.quoted[0]}]"))]


async def _color(page: Page) -> AsyncIterator[Batch]:
    name = re.search(r"on the (\w+) colored", page.message)
    assert name
    yield [await page.click(one(f"#area [data-color={name[1]}]"))]


async def _collapsible(page: Page) -> AsyncIterator[Batch]:
    yield [await page.click(one("h3"))]
    yield [action("wait", duration=0.7), await page.click(SUBMIT)]
    yield [await page.click(SUBMIT)]  # if it moved while the section opened


async def _odd_or_even(page: Page) -> AsyncIterator[Batch]:
    for row, number in enumerate(
        await page.js("[...document.querySelectorAll('.display-number')].map(e => +e.innerText)")
    ):
        kind = "odd" if number % 2 else "even"
        yield [await page.click(f"document.querySelectorAll('.{kind}')[{row}]")]
    yield [await page.click(one("#submit"))]


async def _copy_paste(page: Page) -> AsyncIterator[Batch]:
    yield [await page.click(one("#to-copy")), action("key", text="ctrl+a"), action("key", text="ctrl+c")]
    yield [await page.click(one("#answer-input")), action("key", text="ctrl+v")]
    yield [await page.click(SUBMIT)]


async def _grid(page: Page) -> AsyncIterator[Batch]:
    place = re.search(r"\((.*)\)", page.message)
    assert place
    yield [await page.click(f"document.getElementById({json.dumps('(' + place[1] + ')')})")]


async def _date(page: Page) -> AsyncIterator[Batch]:
    day = re.search(r"\d\d/\d\d/\d{4}", page.message)
    assert day
    yield [await page.click(one("#tt")), action("key", text="Left", repeat=3), action("type", text=day[0])]
    yield [await page.click(SUBMIT)]


async def _tab(page: Page) -> AsyncIterator[Batch]:
    name = re.search(r"Tab #\d", page.message)
    assert name
    yield [await page.click(text("#area li a", name[0]))]


async def _captcha(page: Page) -> str:
    return str(await page.js(f"{one('#captcha')}.textContent"))


def _case(page: Page) -> str:
    return page.quoted[0].lower() if "lower case" in page.message else page.quoted[0].upper()


SOLVERS: dict[str, Solver] = {
    "click-button": clicking_quoted("#area button"),
    "click-button-sequence": clicking(one("#subbtn"), one("#subbtn2")),
    "click-checkboxes": choosing("checkbox"),
    "click-checkboxes-transfer": choosing("checkbox"),
    "click-collapsible": _collapsible,
    "click-collapsible-nodelay": _collapsible,
    "click-color": _color,
    "click-dialog": clicking(one(".ui-dialog-titlebar-close")),
    "click-dialog-2": lambda page: _dialog(page),
    "click-link": clicking_quoted(".alink"),
    "click-option": choosing("radio"),
    "click-tab": _tab,
    "click-tab-2-easy": clicking_quoted(".alink"),
    "click-test": clicking(one("#area button")),
    "click-test-2": clicking(text("#area button", "ONE")),
    "click-test-transfer": clicking(text("#area button", "ONE")),
    "click-widget": _widget,
    "copy-paste": _copy_paste,
    "enter-date": _date,
    "enter-password": fields("#password", "#verify"),
    "enter-text": typing("#tt", lambda page: page.quoted[0]),
    "enter-text-2": typing("#tt", _case),
    "enter-text-dynamic": typing("#tt", lambda page: page.quoted[0]),
    "focus-text": clicking(one("#tt")),
    "focus-text-2": _focus_second,
    "grid-coordinate": _grid,
    "login-user": fields("#username", "#password"),
    "odd-or-even": _odd_or_even,
    "read-table": typing("#tt", _cell),
    "simple-algebra": typing("#math-answer", _algebra),
    "simple-arithmetic": typing("#math-answer", _arithmetic),
    "text-transform": typing("#tt", _captcha),
    "unicode-test": clicking_quoted("#area button"),
}


async def _dialog(page: Page) -> AsyncIterator[Batch]:
    close = page.quoted[-1].lower() == "x"
    yield [await page.click(one(".ui-dialog-titlebar-close") if close else text(".ui-dialog button", page.quoted[-1]))]


async def _wrong(page: Page) -> AsyncIterator[Batch]:
    """Type nonsense where something can be typed, and submit."""
    if await page.js("!!document.querySelector('#area input[type=text]')"):
        yield [await page.click(one("#area input[type=text]")), action("type", text="zzz")]
    yield [await page.click(SUBMIT)]


WRONG: dict[str, Solver] = dict.fromkeys(
    ("click-option", "enter-text", "login-user", "read-table", "simple-arithmetic", "text-transform"), _wrong
)


def solution(solver: Solver) -> Callable[[Observation], Any]:
    """Return a policy that follows ``solver`` step by step."""

    async def follow(observation: Observation) -> Batch | str:
        steps = observation.live.values.setdefault("steps", solver(Page(observation.live)))
        return await anext(steps, "Done.")

    return follow


async def drive(live: Live, solver: Solver) -> None:
    """Carry out ``solver`` on a desktop, without a loop."""
    async for batch in solver(Page(live)):
        for block in batch:
            await ACTIONS[block["name"]].run(live.desktop, block["input"])
