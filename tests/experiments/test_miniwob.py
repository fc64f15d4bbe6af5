"""MiniWoB++: every page loads, starts, times out and scores; scripted solvers win; a seed is a page."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from cambio_lab.desktop import make_provider
from cambio_lab.desktop.base import Desktop
from cambio_lab.desktop.provider import DesktopOptions
from cambio_lab.experiments import Live, Task, Verdict, benchmark
from cambio_lab.experiments.live import call
from cambio_lab.experiments.miniwob import evaluate, make_task
from cambio_lab.settings import Settings

from .miniwob_solvers import SOLVERS, WRONG, Solver, drive

pytestmark = pytest.mark.asyncio(loop_scope="module")
SAMPLE = ("click-checkboxes", "click-collapsible", "copy-paste", "enter-date", "login-user", "simple-algebra")
MOVING = {"chase-circle", "moving-items", "simon-says", "stock-market"}
"""Pages that a timer of the earlier episode may have changed when they are looked at."""
STATE = "document.body.innerHTML.replace(/ (data-)?[a-z_]*id=.[^ >]*/g, '') + core.getUtterance()"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def desktop() -> AsyncIterator[Desktop]:
    provider = await make_provider(Settings(pool_size=0), server_id=uuid.uuid4().hex, kind="local")
    yield await provider.acquire("test", DesktopOptions())
    await provider.stop()


def tasks() -> dict[str, Task]:
    return {task.name: task for task in benchmark("miniwob")}


async def begin(task: Task, desktop: Desktop, seed: int) -> Live:
    live = Live(None, desktop, seed)
    assert task.setup is not None
    await call(task.setup, live)
    return live


async def end(task: Task, live: Live) -> Verdict:
    assert task.check is not None
    return Verdict.of(await call(task.check, live))


async def play(desktop: Desktop, name: str, seed: int, solver: Solver) -> Verdict:
    task = tasks()[name]
    live = await begin(task, desktop, seed)
    before = await end(task, live)
    assert not before.success and before.reason == "the episode had not ended"
    await drive(live, solver)
    verdict = await end(task, live)
    if not verdict.success:
        fields = await evaluate(live, "JSON.stringify([...document.querySelectorAll('input')].map(e => e.value))")
        print(f"{name} {seed}: {live.values['message']!r} fields {fields}")
    return verdict


async def test_a_solver_wins_and_the_page_says_so(desktop: Desktop) -> None:
    for name in SAMPLE:
        assert await play(desktop, name, 11, SOLVERS[name]) == Verdict(True, 1.0, "reward 1"), name


async def test_a_wrong_answer_gets_what_the_page_says(desktop: Desktop) -> None:
    for name in ("enter-text", "read-table"):
        assert await play(desktop, name, 11, WRONG[name]) == Verdict(False, 0.0, "reward -1"), name


async def test_an_episode_counts_once_and_a_page_that_is_loaded_again_not_at_all(desktop: Desktop) -> None:
    task = tasks()["click-test"]
    live = await begin(task, desktop, 1)
    await drive(live, SOLVERS["click-test"])
    await evaluate(live, "core.cover_div.click()")
    assert (await end(task, live)).success
    assert await evaluate(live, "core.cover_div.textContent") == "DONE"
    await desktop.browse("navigate", {"url": "reload"})
    assert await end(task, live) == Verdict(False, 0.0, "the page was left or loaded again")


async def test_a_page_times_out(desktop: Desktop) -> None:
    task = make_task("click-button", seconds=0.1)
    live = await begin(task, desktop, 1)
    await evaluate(live, "await new Promise(done => setInterval(() => WOB_DONE_GLOBAL && done(''), 20))")
    assert await end(task, live) == Verdict(False, 0.0, "reward -1: timed out")


async def test_the_same_seed_is_the_same_page(desktop: Desktop) -> None:
    states = []
    for seed in (5, 5, 6):
        live = await begin(tasks()["click-checkboxes-large"], desktop, seed)
        states.append((live.values["message"], await evaluate(live, STATE)))
    assert states[0] == states[1] != states[2]


async def test_clicks_of_both_tools_land_where_the_screenshots_show_it(desktop: Desktop) -> None:
    """The page is magnified: a point of the screen and one of the browser's screenshot are the page's own."""
    live = await begin(tasks()["click-test"], desktop, 1)
    left, top, *_ = live.values["area"]
    await evaluate(live, "onmousedown = event => globalThis.pressed = [event.clientX, event.clientY]")
    await desktop.browse("left_click", {"target": {"type": "coordinate", "x": 300, "y": 600}})
    assert json.loads(await evaluate(live, "JSON.stringify(pressed)")) == [100, 200]
    await drive(live, lambda page: _click_once(left + 300, top + 600))
    assert [round(value) for value in json.loads(await evaluate(live, "JSON.stringify(pressed)"))] == [100, 200]


async def _click_once(x: int, y: int) -> AsyncIterator[list[dict[str, object]]]:
    yield [{"name": "left_click", "input": {"coordinate": [x, y]}}]


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_75_of_75(desktop: Desktop) -> None:
    lost = {}
    for seed in (1, 2, 3):
        for name, solver in SOLVERS.items():
            verdict = await play(desktop, name, seed, solver)
            if not verdict.success:
                lost[name, seed] = verdict.reason
    assert not lost and len(SOLVERS) >= 25
    for name, solver in WRONG.items():
        assert not (await play(desktop, name, 1, solver)).success


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_every_page_loads_repeats_and_times_out(desktop: Desktop) -> None:
    found, different = tasks(), set()
    assert len(found) >= 120
    for name, task in found.items():
        states = []
        for _ in range(2):
            live = await begin(task, desktop, 3)
            # Begun again in the same script, because things on some pages move by themselves.
            again = "core.endEpisode(0); Math.seedrandom(3); core.startEpisodeReal(); "
            states.append(await evaluate(live, again + STATE))
            states.append(live.values["message"])
        assert states[1] == states[3] != "", name
        if states[0] != states[2]:
            different.add(name)
        await evaluate(live, "core.endEpisode(-1, false, 'timed out')")
        assert await end(task, live) == Verdict(False, 0.0, "reward -1: timed out"), name
    assert different <= MOVING


RIGHT = {  # where to click, by the page's own parts
    "click-test": "document.querySelector('#subbtn')",
    "click-test-2": "[...document.querySelectorAll('#area button')].find(e => e.innerText === 'ONE')",
    "click-button": "[...document.querySelectorAll('#area button')].find(named)",
    "click-link": "[...document.querySelectorAll('.alink')].find(named)",
    "focus-text": "document.querySelector('#tt')",
}
NAMED = "const named = e => core.getUtterance().includes(JSON.stringify(e.innerText));"
ANYWHERE = (
    *("click-test", "click-color", "grid-coordinate", "identify-shape", "click-shape"),
    *("bisect-angle", "circle-center", "click-pie-nodelay", "count-shape", "click-test-2"),
)
Clicks = list[tuple[int, int]]


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_the_packages_own_environment_gives_the_same_rewards(desktop: Desktop) -> None:
    """20 episodes by Selenium and by us, with the same seeds and the same clicks. Needs Debian's chromium-driver."""
    ours, episodes = [], []
    for name, seed, where in [(name, seed, where) for name, where in RIGHT.items() for seed in (31, 32)] + [
        (name, 41, "") for name in ANYWHERE
    ]:
        live = await begin(tasks()[name], desktop, seed)
        if where:
            middle = f"const box = ({where}).getBoundingClientRect(); const {{x, y, width, height}} = box;"
            found = f"{NAMED} {middle} JSON.stringify([x + width / 2, y + height / 2].map(Math.round))"
            clicks: Clicks = [tuple(json.loads(await evaluate(live, f"{{ {found} }}")))]
        else:
            draw = random.Random(name)
            clicks = [(draw.randint(5, 154), draw.randint(55, 205)) for _ in range(3)]
        said = live.values["message"]
        for x, y in clicks:
            if json.loads(await evaluate(live, "JSON.stringify(WOB_DONE_GLOBAL)")):
                break
            await desktop.browse("left_click", {"target": {"type": "coordinate", "x": 3 * x, "y": 3 * y}})
        ours.append(
            (
                name,
                seed,
                said,
                *json.loads(await evaluate(live, "JSON.stringify([WOB_DONE_GLOBAL, WOB_RAW_REWARD_GLOBAL])")),
            )
        )
        episodes.append((name, seed, clicks))
    theirs = await asyncio.to_thread(in_selenium, episodes)
    assert ours == theirs and len(ours) == 20
    assert [reward for name, seed, _, _, reward in ours if seed != 41] == [1] * 10


def in_selenium(episodes: list[tuple[str, int, Clicks]]) -> list[tuple[Any, ...]]:
    from miniwob.selenium_actions import execute_click_coords
    from miniwob.selenium_instance import SeleniumInstance

    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIWOB_CHROME_BINARY", shutil.which("chromium") or "chromium")
        patch.setenv("MINIWOB_CHROMEDRIVER", shutil.which("chromedriver") or "chromedriver")
        for name, seed, clicks in episodes:
            instance = SeleniumInstance(0, name, headless=True, threading=False)
            instance.start()
            try:
                infos: list[Any] = [None]
                instance.reset([None], infos, seed)
                said = infos[0].get("utterance") or instance.driver.execute_script("return core.getUtterance()")
                for x, y in clicks:
                    if instance.get_metadata()["done"]:
                        break
                    execute_click_coords(x, y, instance.driver)
                metadata = instance.get_metadata()
                found.append((name, seed, said, metadata["done"], metadata["raw_reward"]))
            finally:
                instance.close()
    return found
