"""MiniWoB++ on the desktop's own browser: the pages of the package ``miniwob``, opened from files, without network.

The page of a cell is seeded with the cell's seed, started (what pressing START does) and magnified three times, as a
pinch does, so that its 160 x 210 pixels are 480 x 630 of the screen while its own coordinates and layout stay. The
verdict is the page's own, read through DevTools. An episode is scored once: after its end the page cannot be started
again, and a page that was left or loaded again has no score.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import io
import json
import tarfile
from functools import cache, partial
from pathlib import Path
from typing import Any

from ..errors import ActionError, ConfigurationError, DesktopError
from . import Benchmark, Published
from .live import Live
from .task import Task, Verdict

SCALE = 3
EPISODE_SECONDS = 600.0
"""The pages' own limits are 7 to 30 seconds; a model needs longer."""
_MEMBERS = frozenset({"javascript_exec", "file"})
_SYSTEM = (
    "The browser on the desktop shows a small web page. Do on this page what the user says. There is nothing else to "
    "open, load or search. The page covers itself with DONE when it has taken your answer; stop then."
)
_START = """
Math.seedrandom(%(number)d); core.setDataMode(%(mode)s); core.EPISODE_MAX_TIME = %(milliseconds)d;
core.startEpisodeReal(); core.hideDisplay();
document.getElementById('click-canvas').style.display = 'none'; globalThis.cambioSeed = %(seed)s;
core.startEpisode = () => {
  core.cover_div.textContent = 'DONE'; core.cover_div.onclick = null; core.cover_div.style.display = 'block'
};
while (!WOB_TASK_READY) await new Promise(done => setTimeout(done, 20));
"""
_ASK = """
(() => {
  const said = core.getUtterance(), top = screenY + outerHeight - innerHeight;
  return JSON.stringify([said.utterance ?? said, [screenX, top, innerWidth, innerHeight]])
})()
"""
_VERDICT = """
JSON.stringify(globalThis.cambioSeed === undefined
  ? null : [cambioSeed, WOB_DONE_GLOBAL, WOB_RAW_REWARD_GLOBAL, WOB_REWARD_REASON])
"""


def make_tasks(split: str) -> list[Task]:
    """Return a task for each page; :class:`ConfigurationError` without the package."""
    folder = _pages().joinpath("miniwob")
    names = sorted(page.name.removesuffix(".html") for page in folder.iterdir() if page.name.endswith(".html"))
    return [make_task(name, mode=split) for name in names]


def make_task(name: str, *, mode: str = "train", seconds: float = EPISODE_SECONDS) -> Task:
    """Return the task of one page. ``seconds`` is the page's own limit, after which it says -1."""
    return Task(
        name,
        _say,
        setup=partial(_open, name=name, mode=mode, seconds=seconds),
        check=_check,
        config={"max_steps": 60, "max_cost_usd": 1.0, "tools": ["computer"], "system": _SYSTEM},
        timeout=EPISODE_SECONDS + 120,
        description=name.replace("-", " "),
        tags=(name.partition("-")[0],),
    )


async def _open(live: Live, *, name: str, mode: str, seconds: float) -> None:
    """Lay out the pages, open one, seed and start it; ``values`` gets what it says and where it is on the screen."""
    if not live.desktop.has_browser:
        raise DesktopError("This desktop has no Chromium.", hint="Use another kind of desktop or image.")
    live.desktop.limit_browser([], _MEMBERS)
    # The browser starts while the files are written.
    packed = await asyncio.to_thread(_packed)
    _, home = await asyncio.gather(_start_browser(live), _lay_out(live, packed))
    await live.desktop.browse("navigate", {"url": f"file://{home}/.miniwob/miniwob/{name}.html"})
    tabs = (await live.desktop.browse("list_tabs", {}))["tabs"]
    live.values["tab"] = next(tab["tab_id"] for tab in tabs if tab.get("active"))
    names = {"number": live.seed, "seed": json.dumps(str(live.seed)), "mode": json.dumps(mode)}
    await evaluate(live, _START % {**names, "milliseconds": round(seconds * 1000)})
    await live.desktop.browse("scale", {"factor": SCALE})
    live.values["message"], (left, top, width, height) = json.loads(await evaluate(live, _ASK))
    right, bottom = left + min(width, 160 * SCALE), top + min(height, 210 * SCALE)
    live.values["area"] = (left, top, right, bottom)


async def _start_browser(live: Live) -> None:
    try:
        await live.desktop.browse("list_tabs", {})
    except ActionError as error:  # no fault of the task: the attempt is made again
        raise DesktopError(error.message) from error


async def _lay_out(live: Live, packed: bytes) -> str:
    """Unpack the pages into the desktop's home; returns the home's path."""
    await live.write(".miniwob.tgz", packed)
    done = await live.shell("cd && mkdir -p .miniwob && tar -xzf .miniwob.tgz -C .miniwob && pwd")
    if done.exit_code:
        raise DesktopError(f"The pages could not be unpacked: {done.stderr.strip()[:300]}")
    return done.stdout.strip()


async def evaluate(live: Live, expression: str) -> str:
    """Return the value of a JavaScript expression in the task's page, as text."""
    live.desktop.limit_browser([], _MEMBERS)  # the agent's own tool may have set other limits
    where = {"tab_id": live.values["tab"]}
    return str((await live.desktop.browse("javascript_exec", {"text": expression, **where}))["text"])


def _say(live: Live) -> str:
    return str(live.values["message"])


async def _check(live: Live) -> Verdict:
    """The page's verdict on its first episode; a page that was left has none."""
    found: Any = json.loads(await evaluate(live, _VERDICT))
    if found is None or found[0] != str(live.seed):
        return Verdict(False, 0.0, "the page was left or loaded again")
    _, done, reward, reason = found
    if not done:
        return Verdict(False, 0.0, "the episode had not ended")
    score = max(0.0, min(1.0, float(reward)))
    return Verdict(score == 1.0, score, f"reward {float(reward):g}" + (f": {str(reason)[:200]}" if reason else ""))


def _pages() -> Path:
    """The package's folder of pages. It is not imported: that would need Selenium and Gymnasium."""
    spec = importlib.util.find_spec("miniwob")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError("The pages of MiniWoB++ are not installed.", hint='pip install "cambio-lab[miniwob]"')
    return Path(spec.submodule_search_locations[0]) / "html"


@cache
def _packed() -> bytes:
    """Pages and scripts as a compressed archive, without the flights, which need a server."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=6) as archive:
        for name in ("core", "common", "miniwob"):
            archive.add(_pages() / name, name)
    return stream.getvalue()


def _version() -> str:
    try:
        return importlib.metadata.version("miniwob")
    except importlib.metadata.PackageNotFoundError:
        return ""


BENCHMARK = Benchmark(
    name="miniwob",
    title="MiniWoB++: small web pages, one task each",
    version=_version(),
    load=make_tasks,
    metric=(
        "The page's raw reward, -1 to 1, without the time penalty (WOB_RAW_REWARD_GLOBAL). Success is a reward of 1; "
        "the score is the reward, negative ones counted as 0. A page that times out says -1."
    ),
    licence="MIT",
    citation=(
        "Liu, Guu, Pasupat, Shi and Liang: Reinforcement Learning on Web Interfaces using Workflow-Guided Exploration, "
        "ICLR 2018; after Shi et al.: World of Bits, ICML 2017."
    ),
    url="https://miniwob.farama.org/",
    needs='pip install "cambio-lab[miniwob]" and a desktop with Chromium',
    seeds=(
        "The cell's seed goes to the page's Math.seedrandom right before the episode, as a number: the page that the "
        "package's own environment shows after reset(seed=...). The same for every model."
    ),
    splits=("train", "test", "default"),
    published=(
        Published(
            "CC-Net (SL + RL)",
            None,
            "Humphreys et al.: A Data-Driven Approach for Learning to Control Computers, ICML 2022, arXiv 2202.08137",
            "104 tasks; the abstract says human-level mean performance across all tasks. Original time limits.",
        ),
    ),
    differences=(
        "The agent sees the whole desktop, a browser with the page three times as large, not a crop of 160 x 210; "
        "BrowserGym shows 500 x 320 with the page 1.4 times as large.",
        "START is pressed for the agent; the clock, the last reward and the click marks beside the page are hidden.",
        f"The page's limit is {EPISODE_SECONDS:g} s (the pages' own are 7 to 30 s, BrowserGym's is 1000 s).",
        "An episode counts once: the page cannot be started again after its end.",
        "A partial reward is no success; BrowserGym counts every positive reward as one.",
        "All pages of the folder miniwob; the flights are left out, because they need a server.",
        "The five pages with a train and a test part take the split's; the others know no such parts.",
    ),
)
