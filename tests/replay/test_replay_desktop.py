"""The recorded desktop: clients get what they got, nothing else is live."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from cambio_lab.desktop.base import Point
from cambio_lab.errors import ActionError
from cambio_lab.recording.calls import CLIENT
from cambio_lab.recording.placeholders import Mask
from cambio_lab.replay.recorded import ReplayDesktop


def recorded(*calls: tuple[str, dict[str, Any], dict[str, Any]]) -> Any:
    observations = [
        {"by": CLIENT, "method": method, "arguments": arguments, "result": result, "at": 0.0, "ms": 0.0}
        for method, arguments, result in calls
    ]
    return SimpleNamespace(manifest={"session": {"id": "a"}}, observations=observations, find=lambda digest: None)


async def test_clients_give_values_and_the_recording_knows_placeholders() -> None:
    digest = hashlib.sha256(b"is {{PIN}}").hexdigest()
    desktop = ReplayDesktop(
        recorded(
            ("set_clipboard", {"text": "{{PIN}}"}, {"none": True}),
            ("write_file", {"path": "a", "content": digest}, {"number": 12}),
            ("write_file", {"path": "b", "content": digest}, {"number": 12}),
            ("read_file", {"path": "{{PIN}}"}, {"bytes": base64.b64encode(b"x").decode()}),
        ),
        mask=Mask({"PIN": "1234-5678"}),
    )
    await desktop.set_clipboard("1234-5678")
    assert await desktop.write_file("a", pieces(b"is 1234-5678")) == 12
    assert await desktop.write_file("b", b"is 1234-5678") == 12
    assert [piece async for piece in desktop.read_file("1234-5678")] == [b"x"]
    with pytest.raises(ActionError, match="no such set_clipboard"):
        await desktop.set_clipboard("1234-5678")


async def test_a_recorded_desktop_can_be_looked_at_and_not_touched() -> None:
    desktop = ReplayDesktop(recorded())
    assert desktop.recorded and desktop.for_agent.recorded
    for attempt in (desktop.click("left", Point(1, 1)), desktop.type_text("x"), desktop.run_command("true")):
        with pytest.raises(ActionError, match="not touched"):
            await attempt


async def test_the_thumbnail_is_as_sharp_as_that_of_a_live_desktop() -> None:
    image, out = Image.new("RGB", (640, 400), (90, 120, 200)), io.BytesIO()
    image.save(out, "PNG")
    picture = {"sha256": "a" * 64, "media_type": "image/png", "width": 640, "height": 400}
    contents = recorded(("screenshot", {}, {"picture": picture}))
    contents.observations[0]["by"] = None
    contents.find = lambda digest: out.getvalue()
    desktop = ReplayDesktop(contents)
    reference = io.BytesIO()
    image.resize((160, 100)).save(reference, "JPEG", quality=80)
    small = await desktop.thumbnail(160)
    with Image.open(io.BytesIO(small.data)) as shown, Image.open(reference) as expected:
        assert (small.width, small.height) == shown.size == (160, 100)
        assert vars(shown)["quantization"] == vars(expected)["quantization"]
    assert (await desktop.thumbnail(2000)).width == 640


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 3):
        yield data[start : start + 3]
