"""What programs of the desktop can write into the DevTools pipe, and pages that make Chromium send it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from cambio_lab.desktop.browser import BrowserClosed, DevToolsError, actions
from cambio_lab.desktop.browser.chromium import MOST_TABS, Chromium
from cambio_lab.desktop.browser.tab import MOST_URL
from cambio_lab.desktop.machine import STDOUT
from cambio_lab.errors import ActionError

from .measure import prefer
from .test_hostile_rfb import measure_lag

PIECE = 1 << 18


class Pipe:
    """A Chromium that starts like a real one; from :meth:`attack` on it writes ``attack``, and ``answers`` to calls."""

    def __init__(self, attack: Iterator[bytes], answers: dict[str, Any] | None = None) -> None:
        self._attack = attack
        self._answers = answers or {}
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self._left = memoryview(b"")
        self.attacking = False

    def attack(self) -> None:
        self.attacking = True
        self._pieces.put_nowait(b"")

    async def write(self, data: bytes) -> None:
        call = json.loads(data[:-1])
        if self.attacking and call["method"] not in self._answers:
            await asyncio.Event().wait()  # nothing is read any more
        result: Any = self._answers.get(call["method"], {})
        if call["method"] == "Page.getFrameTree" and not self.attacking:
            result = {"frameTree": {"frame": {"id": "main"}}}
        self._pieces.put_nowait(message(id=call["id"], result=result))
        if call["method"] == "Target.setAutoAttach":
            info = {"type": "page", "targetId": "t", "url": "about:blank"}
            self._pieces.put_nowait(event("Target.attachedToTarget", sessionId="s", targetInfo=info))

    async def read(self) -> tuple[int, bytes] | None:
        if not self.attacking or not self._pieces.empty():
            return STDOUT, await self._pieces.get()
        if not self._left:
            self._left = memoryview(next(self._attack, b""))
        if not self._left:
            return STDOUT, await self._pieces.get()
        piece, self._left = bytes(self._left[:PIECE]), self._left[PIECE:]
        await asyncio.sleep(0)  # as data from a socket: it arrives between two callbacks
        return STDOUT, piece

    async def kill(self, spare: Any = ()) -> None:
        pass

    def abandon(self) -> None:
        pass


def message(**fields: Any) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\0"


def event(method: str, **params: Any) -> bytes:
    return message(method=method, sessionId="s", params=params)


async def started(pipe: Pipe) -> Chromium:
    class Machine:
        home = "/home/user"

        async def spawn(self, argv: Any, environment: Any = None) -> Pipe:
            return pipe

    machine: Any = Machine()
    return await Chromium.start(machine, lambda url: True, console=True, network=True)


def endless(data: bytes, least: int = 65536) -> Callable[[], Iterator[bytes]]:
    def send() -> Iterator[bytes]:
        block = data * max(1, least // len(data))
        while True:
            yield block

    return send


def numbered(data: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: (data.replace(b"NUMBER", b"%d" % number, 1) for number in range(1_000_000_000))


LONG = "x" * 3_000_000
TAB = {"type": "page", "targetId": "t", "url": LONG, "title": LONG}
ATTACKS: dict[str, Callable[[], Iterator[bytes]]] = {
    "answers to no call": endless(b'{"id":-1}\0'),
    "unknown events": endless(event("x.y")),
    "large events": endless(event("x.y", text=["x"] * 40_000)),
    "console": endless(event("Runtime.consoleAPICalled", type=LONG, args=[{"value": LONG}])),
    "requests": endless(event("Network.responseReceived", type=LONG, response={"url": LONG, "status": 1})),
    "dialogs": endless(event("Page.javascriptDialogOpening", type=LONG, message=LONG)),
    "small dialogs": endless(event("Page.javascriptDialogOpening", type="alert", message="x")),
    "documents": endless(event("Fetch.requestPaused", requestId="1", request={"url": "http://a/"})),
    "downloads": numbered(event("Browser.downloadWillBegin", guid="NUMBER" + LONG, url=LONG)),
    "tabs": numbered(event("Target.attachedToTarget", sessionId="NUMBER", targetInfo=TAB)),
    "long addresses": endless(event("Page.frameNavigated", frame={"id": "main", "url": LONG})),
    "digits": endless(b'{"id":-1,"result":[' + b"9" * 4000 + (b"," + b"9" * 4000) * 900 + b"]}\0"),
    "many values": endless(b'{"id":-1,"result":[0' + b",{}" * 1_000_000 + b"]}\0"),
    "screenshots": endless(b'{"id":1,"result":{"data":"' + b"A" * 26_000_000 + b'"}}\0'),
    "no end": endless(b"x" * 65536),
}


@pytest.mark.timing
@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_flood_of_devtools_messages_costs_only_its_own_browser(
    attack: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cambio_lab")
    pipe = Pipe(ATTACKS[attack]())
    browser = await started(pipe)
    lags: list[float] = []
    measuring = asyncio.create_task(measure_lag(lags))
    await asyncio.to_thread(len, "")  # its thread is there
    prefer(os.getpid())
    before = psutil.Process().memory_info().rss
    pipe.attack()
    stirring = asyncio.create_task(browser._devtools.send("Browser.getVersion", timeout=0.7))
    await asyncio.wait([stirring], timeout=2)
    prefer(os.getpid(), os.SCHED_OTHER)
    assert stirring.exception() is not None
    grown = psutil.Process().memory_info().rss - before
    measuring.cancel()
    p99 = sorted(lags)[int(len(lags) * 0.99)]
    print(f"{attack:20} p99 {p99 * 1000:.1f} ms, {grown / 1e6:+.0f} MB, {len(caplog.records)} log lines")
    assert p99 <= 0.020
    assert grown <= 150 << 20
    assert len(caplog.records) <= 100
    assert len(browser.tabs) <= MOST_TABS + 1 and all(len(tab.url) <= MOST_URL for tab in browser.tabs.values())
    kept = [
        *browser.changes,
        *browser._downloads.items(),
        *(line for tab in browser.tabs.values() for line in tab.network),
    ]
    assert sum(len(str(one)) for one in kept) < 2_000_000
    await asyncio.wait_for(browser.close(), 6)
    assert not [record.exc_text or record.getMessage() for record in caplog.records if record.exc_info]


DAMAGED = {
    "no JSON": b"{]\0",
    "no object": b"[]\0[1]\0",
    "deep": b"[" * 90_000 + b"\0",
    "a request that is none": event("Fetch.requestPaused", request=[]),
    "a tab that is none": event("Target.attachedToTarget", targetInfo=7),
    "sizes that are none": event("Browser.downloadWillBegin", guid="g")
    + b'{"method":"Browser.downloadProgress","params":{"guid":"g","state":"completed","totalBytes":1e999}}\0',
}


@pytest.mark.parametrize("damage", DAMAGED)
async def test_a_damaged_message_ends_at_most_the_browser(damage: str, caplog: pytest.LogCaptureFixture) -> None:
    pipe = Pipe(iter([DAMAGED[damage]]), {"Target.getTargets": {"targetInfos": [7]}})
    browser = await started(pipe)
    pipe.attack()
    try:
        await browser.titles()
        await browser.titles()
    except BrowserClosed:
        assert not browser.running
    await browser.close()
    assert not [record.getMessage() for record in caplog.records if record.exc_info]


ANSWERS: dict[str, Any] = {
    "nothing": None,
    "text": "x",
    "a deep tree": {"lines": [[10**12, "x", -1]] * 1000, "next": 1, "cut": False},
    "long lines": {"lines": [[0, "x" * 100_000, -1]] * 20, "next": 1, "cut": False},
    "long finds": {"found": [[1, "x" * 10_000, "a" * 100_000, "x", True]] * 20, "next": 1},
    "wrong finds": {"found": [[1, 2]], "next": "x"},
    "long text": {"text": "x" * 3_000_000, "cut": False},
}


@pytest.mark.parametrize("answer", ANSWERS)
async def test_a_forged_reading_is_bounded(answer: str) -> None:
    given = {
        "Runtime.evaluate": {"result": {"value": ANSWERS[answer]}},
        "Page.createIsolatedWorld": {"executionContextId": 1},
    }
    given |= {"Page.getFrameTree": {"frameTree": {"frame": {"id": "main"}}}}
    pipe = Pipe(iter(()), given)
    browser = await started(pipe)
    pipe.attack()
    tab = browser.tab(None)
    for reading in (tab.tree(None, 15, None), actions.find(tab, "a"), tab.text()):
        try:
            assert len(await reading) <= 60_000
        except (ActionError, DevToolsError, LookupError, TypeError, ValueError):
            continue  # `refusing` makes fixed words of it
    await browser.close()


@pytest.mark.parametrize("data", ["", "AAAA", "iVBORw0KGgoAAAANSUhEUgAA6mAAAOpgCAYAAAA=", "%%%"])
async def test_what_is_no_screenshot_is_refused(data: str) -> None:
    pipe = Pipe(iter(()), {"Page.captureScreenshot": {"data": data}})
    browser = await started(pipe)
    with pytest.raises(ActionError, match="could not be taken"):
        await actions.screenshot(browser.tab(None))
    await browser.close()
