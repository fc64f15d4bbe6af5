"""Hostile names and forged answers of the helper that reads and writes a desktop's files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import psutil
import pytest

from cambio_lab.api.desktop import _page
from cambio_lab.desktop import files
from cambio_lab.desktop.connected import ConnectedDesktop
from cambio_lab.desktop.machine import STDERR, STDOUT, Process
from cambio_lab.errors import ActionError, DesktopUnavailable
from tests.desktop.conftest import kept  # noqa: F401  (a fixture)

from .test_hostile_rfb import measure_lag

pytestmark = pytest.mark.asyncio(loop_scope="module")

# 10,000 names of 255 bytes, none of them UTF-8: each byte becomes a character of three bytes.
LONG_NAMES = (
    "import os\nos.mkdir('many')\nfor n in range(10000): open(b'many/' + b'\\xff' * 249 + b'%06d' % n, 'w').close()"
)


@pytest.mark.timing
async def test_ten_thousand_long_names_are_truncated_and_delay_no_other_client(kept: ConnectedDesktop) -> None:  # noqa: F811
    await kept.execute(["rm", "-rf", "many"])
    code, _, error = await kept.execute([kept.machine.python, "-c", LONG_NAMES])
    assert code == 0, error
    lags: list[float] = []
    measuring = asyncio.create_task(measure_lag(lags))
    before = psutil.Process().memory_info().rss
    for _ in range(5):
        found = await kept.list_files("many")
        body = await asyncio.to_thread(_page, "many/", found)
    measuring.cancel()
    p99, grown = sorted(lags)[int(len(lags) * 0.99)], psutil.Process().memory_info().rss - before
    print(f"{len(found)} entries, {len(body)} bytes, p99 {p99 * 1000:.1f} ms, {grown / 1e6:+.0f} MB")
    assert json.loads(body)["truncated"] is True
    assert 500 < len(found) < 10_000 and len(body) < 4_000_000
    assert p99 <= 0.020
    assert grown <= 32 << 20
    await kept.execute(["rm", "-rf", "many"])


async def test_a_listing_that_is_whole_says_so(kept: ConnectedDesktop) -> None:  # noqa: F811
    await kept.write_file("few/one", b"1")
    found = await kept.list_files("few")
    assert ([entry.path for entry in found], found.truncated) == (["few/one"], False)


class Forged:
    """A helper whose output is what ``pieces`` says; after them it is silent, or ends with ``None``."""

    def __init__(self, *pieces: bytes | None, endless: bytes = b"", stream: int = STDOUT) -> None:
        self.pieces = list(pieces)
        self.endless = endless
        self.stream = stream
        self.abandoned = False
        self.sent = 0

    async def write(self, data: bytes) -> None:
        self.sent += len(data)

    async def close_stdin(self) -> None:
        pass

    async def read(self) -> tuple[int, bytes] | None:
        await asyncio.sleep(0)
        if self.pieces:
            piece = self.pieces.pop(0)
            return None if piece is None else (STDOUT, piece)
        if not self.endless:
            await asyncio.Event().wait()
        return self.stream, self.endless

    def abandon(self) -> None:
        self.abandoned = True


class Machine:
    home, roots, python = "/home/user", ("/home/user",), "python3"

    def __init__(self, process: Forged) -> None:
        self.process = process
        self.helpers = asyncio.Semaphore(1)

    async def spawn(self, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Process:
        return self.process  # type: ignore[return-value]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_ANSWER_SECONDS", "_STALL_SECONDS", "_LAST_WORD", "_TURN_SECONDS"):
        monkeypatch.setattr(files, name, 0.3)


async def perform(verb: str, process: Forged) -> Any:
    machine: Any = Machine(process)
    async with asyncio.timeout(5):
        if verb == "list":
            return await files.entries(machine, "x")
        if verb == "write":
            return await files.write(machine, "x", pieces(), 1 << 30)
        return b"".join([piece async for piece in files.read(machine, "x", 1 << 30)])


async def pieces() -> AsyncIterator[bytes]:
    yield b"data"


ANSWERS = {
    "no JSON": b"{]\n",
    "a list": b"[]\n",
    "deep": b"[" * 100_000 + b"\n",
    "negative": b'{"size": -5, "entries": [["x", -5, 0, false]]}\n',
    "text": b'{"size": "5", "entries": "abc"}\n',
    "true": b'{"size": true, "entries": [["x", true, 0, false]]}\n',
    "float": b'{"size": 1e99, "entries": [["x", 1e99, 0, false]]}\n',
    "nothing": b'{"size": null, "entries": [null]}\n',
    "wrong counts": b'{"size": [], "entries": [["x", 1], ["y", 1, 2, 3, 4, 5]]}\n',
    "no calendar": b'{"size": {}, "entries": [["x", 1, 1e300, false]]}\n',
    "not a number": b'{"size": NaN, "entries": [["x", 1, NaN, false]]}\n',
}


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("verb", ["read", "list", "write"])
@pytest.mark.parametrize("answer", ANSWERS)
async def test_a_forged_answer_is_one_error(verb: str, answer: str) -> None:
    first = [b'{"ready": true}\n'] if verb == "write" else []
    process = Forged(*first, ANSWERS[answer])
    with pytest.raises(ActionError, match="damaged the answer"):
        await perform(verb, process)
    assert process.abandoned


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("verb", ["read", "list", "write"])
@pytest.mark.parametrize("endless", [b"", b"x" * 65536])
@pytest.mark.parametrize("stream", [STDOUT, STDERR])
async def test_an_answer_that_never_ends_is_cut_off(verb: str, endless: bytes, stream: int) -> None:
    process = Forged(endless=endless, stream=stream)
    with pytest.raises(ActionError, match=r"damaged|does not answer"):
        await perform(verb, process)
    assert process.abandoned


async def test_a_file_has_no_more_bytes_than_it_said() -> None:
    process = Forged(b'{"size": 10}\nabc', endless=b"x" * 1_000_000)
    assert await perform("read", process) == b"abcxxxxxxx"
    assert process.abandoned


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("stream", [STDOUT, STDERR])
async def test_a_file_that_stalls_is_given_up(stream: int) -> None:
    process = Forged(b'{"size": 10}\nabc', endless=b"noise" if stream == STDERR else b"", stream=stream)
    with pytest.raises(ActionError, match="stalled after 3 of 10 bytes"):
        await perform("read", process)
    assert process.abandoned


async def test_an_error_is_quoted_in_part() -> None:
    with pytest.raises(ActionError) as caught:
        await perform("read", Forged(json.dumps({"error": "x" * 100_000}).encode() + b"\n"))
    assert len(caught.value.message) < 600


@pytest.mark.usefixtures("soon")
async def test_transfers_wait_for_their_turn_and_not_for_ever() -> None:
    machine: Any = Machine(Forged(b'{"size": 10}\n', b"123"))
    content = files.read(machine, "x", 100)
    assert await anext(content) == b"123"
    with pytest.raises(DesktopUnavailable, match="being transferred"):
        await files.entries(machine, "x")
    await content.aclose()
    assert not machine.helpers.locked()


async def stalled() -> AsyncIterator[bytes]:
    yield b"begun"
    await asyncio.Event().wait()


@pytest.mark.usefixtures("soon")
async def test_an_upload_that_stalls_is_cut_off() -> None:
    machine: Any = Machine(Forged(b'{"ready": true}\n'))
    with pytest.raises(ActionError, match="stalled"):
        await files.write(machine, "x", stalled(), 100)
