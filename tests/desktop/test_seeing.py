"""Screenshots, settling, sizes and the pointer, on a real Xvnc."""

from __future__ import annotations

import asyncio
import random
import statistics
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from cambio_lab.api.base import Thumbnails
from cambio_lab.desktop import screen as png
from cambio_lab.desktop.base import Point, Region, Size
from cambio_lab.desktop.connected import ConnectedDesktop
from cambio_lab.desktop.screen import View, fit_inside, fit_model
from cambio_lab.errors import ActionError

from .programs import content, launch, launch_window, wait_for_window

MAGENTA = (255, 0, 255)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)).convert("RGB"))


def test_png_is_lossless() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (37, 53, 4), np.uint8)
    screenshot = png.encode(frame)
    assert (screenshot.width, screenshot.height, screenshot.media_type) == (53, 37, "image/png")
    assert np.array_equal(pixels(screenshot.data), frame[:, :, 2::-1])


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_other_formats(kind: str) -> None:
    frame = np.full((40, 60, 4), (200, 100, 50, 0), np.uint8)
    screenshot = png.encode(frame, kind, Size(30, 20))
    assert screenshot.media_type == f"image/{kind}"
    found = Image.open(BytesIO(screenshot.data))
    assert (found.format, found.size) == (kind.upper(), (30, 20))
    assert np.abs(np.asarray(found.convert("RGB")).astype(int) - (50, 100, 200)).max() < 12


def test_sizes_that_models_take() -> None:
    assert fit_model(Size(1280, 800)) == Size(1280, 800)
    for screen in (Size(3840, 2160), Size(2560, 1440), Size(1080, 3840), Size(7680, 4320)):
        width, height = fit_model(screen)
        assert max(width, height) <= 2576
        assert -(-width // 28) * -(-height // 28) <= 4784
        assert abs(width / height - screen.width / screen.height) < 0.01
    assert max(fit_model(Size(1920, 1080), 1568, 1568)) <= 1568
    assert fit_inside(Size(100, 50), Size(1280, 800)) == Size(1280, 640)


def test_each_axis_has_its_own_scale() -> None:
    view = View(Size(3840, 2160), Size(1000, 500))
    assert view.to_screen(Point(0, 0)) == Point(1, 2)
    assert view.to_screen(Point(999, 499)) == Point(3838, 2157)
    for point in (Point(0, 0), Point(7, 11), Point(500, 250), Point(999, 499)):
        assert view.to_image(view.to_screen(point)) == point
    assert view.region_to_screen(Region(0, 0, 1000, 500)) == Region(0, 0, 3840, 2160)
    for outside in (Point(1000, 0), Point(0, 500), Point(-1, 0)):
        with pytest.raises(ActionError, match="1000x500"):
            view.to_screen(outside)


async def test_look_and_click(either: ConnectedDesktop) -> None:
    """A button at random places is found in the screenshot and clicked."""
    places = random.Random(5)
    for number in range(4):
        x, y = places.randrange(0, 1250), places.randrange(0, 730)
        await launch_window(either, "target", str(x), str(y), f"{either.machine.home}/hit{number}")
        for _ in range(200):
            found = np.argwhere((pixels((await either.screenshot()).data) == MAGENTA).all(axis=2))
            if len(found):
                break
            await asyncio.sleep(0.1)
        row, column = found.mean(axis=0).round().astype(int)
        await either.click("left", Point(int(column), int(row)))
        for _ in range(100):
            if await content(either, f"hit{number}") is not None:
                break
            await asyncio.sleep(0.1)
        assert await content(either, f"hit{number}") is not None, (x, y)
        await either.execute(["pkill", "-f", "target.py"])
        await asyncio.sleep(0.3)


async def test_the_pointer_is_in_the_screenshot(local_desktop: ConnectedDesktop) -> None:
    await local_desktop.move(Point(200, 200))
    first = pixels((await local_desktop.screenshot()).data)
    await local_desktop.move(Point(600, 400))
    second = pixels((await local_desktop.screenshot()).data)
    rows, columns = np.nonzero((first != second).any(axis=2))
    assert 185 <= rows.min() <= 200 <= 400 <= rows.max() <= 430
    assert 185 <= columns.min() <= 200 <= 600 <= columns.max() <= 630
    assert await local_desktop.cursor_position() == Point(600, 400)


async def test_zoom_has_true_pixels(local_desktop: ConnectedDesktop) -> None:
    await local_desktop.resize(Size(3840, 2160))
    assert local_desktop.true_size == Size(3840, 2160)
    width, height = local_desktop.size
    assert max(width, height) <= 2576
    await launch_window(local_desktop, "target", "3000", "1500", "/tmp/never")
    spot = Point(round(3015 * width / 3840), round(1512 * height / 2160))
    region = Region(spot.x - 40, spot.y - 30, spot.x + 40, spot.y + 30)
    for _ in range(100):
        screenshot = await local_desktop.zoom(region)
        magenta = (np.abs(pixels(screenshot.data).astype(int) - MAGENTA) < 100).all(axis=2)
        if magenta.any():
            break
        await asyncio.sleep(0.1)
    scale = screenshot.width / (80 * 3840 / width)
    assert abs(magenta.sum() - 30 * 24 * scale**2) / (30 * 24 * scale**2) < 0.15
    await local_desktop.move(Point(width - 1, height - 1))
    assert await local_desktop.cursor_position() == Point(width - 1, height - 1)


async def test_formats_and_thumbnails(local_desktop: ConnectedDesktop) -> None:
    local_desktop.settings = replace(local_desktop.settings, image_format="jpeg")
    assert (await local_desktop.screenshot()).data.startswith(b"\xff\xd8")
    thumbnail = await local_desktop.thumbnail(320)
    assert (thumbnail.width, thumbnail.height, thumbnail.media_type) == (320, 200, "image/jpeg")
    with pytest.raises(ActionError):
        await local_desktop.thumbnail(3)


async def test_an_unchanged_screen_is_encoded_once(local_desktop: ConnectedDesktop) -> None:
    await asyncio.sleep(0.5)
    first, second = await local_desktop.screenshot(), await local_desktop.screenshot()
    assert first is second
    thumbnails, revision = Thumbnails(), local_desktop.revision
    small = await thumbnails.get(local_desktop, 192)
    assert await thumbnails.get(local_desktop, 192) is small and local_desktop.revision == revision
    await local_desktop.key("ctrl+alt+t")
    await asyncio.sleep(1)
    assert local_desktop.revision != revision and await thumbnails.get(local_desktop, 192) != small


@pytest.mark.timing
async def test_the_screenshot_is_encoded_while_the_screen_settles(local_desktop: ConnectedDesktop) -> None:
    await launch(local_desktop, "xterm", "-T", "typing")
    await wait_for_window(local_desktop, "typing")
    for text in ("one", "two", "three"):
        settled = await local_desktop.type_text(text)
        assert settled.quiet
        assert local_desktop._latest is not None
        foreseen = await local_desktop._latest[1]
        assert foreseen.data == png.encode(local_desktop.frame()).data
        assert await local_desktop.screenshot() is foreseen


async def test_screenshots_that_are_asked_for_at_once_are_one(local_desktop: ConnectedDesktop) -> None:
    await asyncio.sleep(0.5)
    waiting = [asyncio.create_task(local_desktop.screenshot()) for _ in range(5)]
    waiting[0].cancel()
    first, *others = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert len({id(screenshot) for screenshot in others}) == 1


@pytest.mark.timing
async def test_a_turning_wheel_does_not_cost_the_cap(local_desktop: ConnectedDesktop) -> None:
    await launch_window(local_desktop, "spinner")
    await wait_for_window(local_desktop, "spinner")
    waits = []
    for number in range(9):
        settled = await local_desktop.click("left", Point(300 + number, 400))
        waits.append(settled.waited_ms)
    assert statistics.median(waits) <= 400, waits
    # What the click changed is seen all the same: the button is green.
    screenshot = pixels((await local_desktop.screenshot()).data)
    assert (screenshot == (0, 128, 0)).all(axis=2).sum() > 10_000


@pytest.mark.timing
async def test_the_cap_ends_a_wait(local_desktop: ConnectedDesktop) -> None:
    await launch_window(local_desktop, "spinner")
    await wait_for_window(local_desktop, "spinner")
    watch = local_desktop._connection.watch
    watch.input_sent()
    settled = await watch.settle(quiet=0.2, cap=0.22)
    assert settled.waited_ms < 1000
