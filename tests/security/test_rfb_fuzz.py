"""Any bytes that a VNC server may send: only our errors come out, in bounded time. ``RFB_FUZZ_SECONDS`` runs longer."""

from __future__ import annotations

import asyncio
import os
import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cambio_lab.desktop.base import VncEndpoint
from cambio_lab.desktop.rfb.client import RfbClient
from cambio_lab.desktop.rfb.desktop_filter import DesktopOutput
from cambio_lab.desktop.rfb.viewer_filter import ViewerInput
from cambio_lab.errors import DesktopLost

SECONDS = float(os.environ.get("RFB_FUZZ_SECONDS", "8"))
NUMBER = st.sampled_from([0, 1, 2, 8, 16, 63, 64, 65535])
ENCODING = st.sampled_from([0, 1, 7, 16, -224, -223, -239, -307, -308, -261, -258, 0x574D5664, 5])
RECT = st.builds(
    lambda place, encoding, body: struct.pack(">4Hi", *place, encoding) + body,
    st.tuples(NUMBER, NUMBER, NUMBER, NUMBER),
    ENCODING,
    st.binary(max_size=300),
)
UPDATE = st.builds(
    lambda count, rects: struct.pack(">BxH", 0, count) + b"".join(rects), NUMBER, st.lists(RECT, max_size=4)
)
CUT_TEXT = st.builds(
    lambda length, flags, body: struct.pack(">BxxxiI", 3, length, flags) + body,
    st.sampled_from([0, 4, 300, -1, -4, -8, -300, -(1 << 31), (1 << 31) - 1]),
    st.sampled_from([1, *(1 << bit | 1 for bit in range(24, 29)), 0xFFFFFFFF]),
    st.binary(max_size=300),
)
FENCE = st.builds(
    lambda flags, body: struct.pack(">BxxxIB", 248, flags, len(body)) + body,
    st.sampled_from([0, 1 << 31, 0xFFFFFFFF]),
    st.binary(max_size=70),
)
MESSAGES = st.lists(st.one_of(UPDATE, CUT_TEXT, FENCE, st.binary(max_size=40)), max_size=8)
INIT = struct.pack(">HH4B3H3B3xI", 64, 48, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0, 4) + b"name"
FUZZ = settings(
    max_examples=300, deadline=None, database=None, derandomize=False, suppress_health_check=list(HealthCheck)
)


async def receive(handshake: bytes, messages: Sequence[bytes]) -> None:
    served = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(handshake + b"".join(messages))
            writer.write_eof()
            await reader.read()
        except ConnectionError:
            assert writer.is_closing() or reader.at_eof() or reader.exception()
        finally:
            writer.transport.abort()
            served.set()

    with tempfile.TemporaryDirectory() as folder:
        endpoint = VncEndpoint(unix_path=str(Path(folder) / "rfb"))
        async with asyncio.timeout(10), await asyncio.start_unix_server(serve, endpoint.unix_path):
            await attempt(endpoint)
            await served.wait()
            await asyncio.sleep(0)


async def attempt(endpoint: VncEndpoint) -> None:
    try:
        client = await RfbClient.connect(endpoint, lambda damage: None)
        client.clipboard.request()
    except DesktopLost:
        return
    reason = await client.closed
    await client.close()
    assert reason is None or isinstance(reason, DesktopLost), reason


@pytest.mark.timeout(SECONDS + 120)
def test_a_client_raises_only_our_errors() -> None:
    end = time.monotonic() + SECONDS

    @given(st.binary(max_size=60) | st.just(b"RFB 003.008\n\1\1" + bytes(4) + INIT), MESSAGES)
    def fuzz(handshake: bytes, messages: list[bytes]) -> None:
        if time.monotonic() < end:
            asyncio.run(receive(handshake, messages))

    _until_the_end(fuzz, end)


@pytest.mark.timeout(SECONDS + 120)
def test_the_proxy_raises_only_value_errors() -> None:
    end = time.monotonic() + SECONDS

    @given(MESSAGES, st.lists(st.binary(max_size=60), max_size=5), st.integers(1, 50))
    def fuzz(messages: list[bytes], said: list[bytes], piece: int) -> None:
        output = DesktopOutput()
        viewer = ViewerInput(may_act=True, output=output)
        for feed, data in ((viewer.feed, b"\1" + b"".join(said)), (output.feed, INIT + b"".join(messages))):
            try:
                for start in range(0, len(data), piece):
                    feed(data[start : start + piece])
            except ValueError:
                continue

    _until_the_end(fuzz, end)


def _until_the_end(fuzz: Callable[[], None], end: float) -> None:
    """Run ``fuzz`` in batches of new examples, because hypothesis has no time limit."""
    fuzz = FUZZ(fuzz)
    while time.monotonic() < end:
        fuzz()
