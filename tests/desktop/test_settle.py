"""What is learned to be restless, and what is not: the watch alone, on a clock of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cambio_lab.desktop.base import Size
from cambio_lab.desktop.screen import Rect
from cambio_lab.desktop.settle import TILE, Watch, _spread

FRAME = 1 / 60


def tile(column: int, row: int) -> Rect:
    """A small change inside one tile."""
    return Rect(column * TILE + 4, row * TILE + 4, 8, 8)


class Scene:
    """A watch on a clock that moves by frames; each frame damages what the scene's drawing says."""

    def __init__(self) -> None:
        self.now = 100.0
        self.requests = 0
        self.watch = Watch(self._request, Size(640, 320), quiet=0.08, cap=2.0)
        self.watch._clock = lambda: self.now
        self.watch._last_input = 0.0
        self.counted = 0

    def _request(self) -> None:
        self.requests += 1

    def play(self, seconds: float, drawing: Callable[[float], list[Rect]], input_every: float = 0.0) -> None:
        """Draw for ``seconds``; ``counted`` is how many frames of the last second counted as damage."""
        end, next_input, self.counted = self.now + seconds, self.now, 0
        while self.now < end:
            if input_every and self.now >= next_input:
                self.watch.input_sent()
                next_input += input_every
            if damage := drawing(self.now):
                counts = self.watch._learn(damage, self.now)
                self.counted += counts and self.now > end - 1
            self.now += FRAME
        self.watch.close()


@pytest.fixture
async def scene() -> Scene:
    return Scene()


async def test_what_turns_all_the_time_is_restless_until_it_rests(scene: Scene) -> None:
    scene.play(2, lambda now: [tile(3, 3)])
    assert (scene.counted, scene.watch.restless) == (0, 1)
    scene.play(2, lambda now: [])
    scene.play(FRAME, lambda now: [tile(3, 3)])
    assert (scene.counted, scene.watch.restless) == (1, 0)


async def test_the_rim_of_an_animation_is_learned_though_inputs_come_with_it(scene: Scene) -> None:
    """A corner is drawn for 50 ms of each half second, always right after a click: a settle that waited for it to
    be learned would wait for a round of the wheel with every action."""

    def wheel(now: float) -> list[Rect]:
        return [tile(3, 3), tile(4, 4)] if now % 0.5 < 0.05 else [tile(3, 3)]

    scene.play(1, lambda now: [tile(3, 3)])
    scene.now = 200.0
    scene.play(1, lambda now: [tile(3, 3)])
    scene.now = float(round(scene.now + 1))
    scene.play(4, wheel, input_every=0.5)
    assert (scene.counted, scene.watch.restless) == (0, 2)


async def test_what_inputs_do_elsewhere_counts_however_often(scene: Scene) -> None:
    def typing(now: float) -> list[Rect]:
        return [tile(3, 3), tile(9, 3)] if now % 0.5 < 0.05 else [tile(3, 3)]

    scene.play(1, lambda now: [tile(3, 3)])
    scene.now = float(round(scene.now + 1))
    scene.play(6, typing, input_every=0.5)
    assert scene.counted >= 4
    assert scene.watch.restless == 1


async def test_a_blinking_cursor_is_never_restless(scene: Scene) -> None:
    scene.play(12, lambda now: [tile(1, 1)] if now % 0.6 < FRAME else [])
    assert scene.watch.restless == 0


async def test_spreading_stays_inside(scene: Scene) -> None:
    tiles = scene.watch._restless.copy()
    tiles[0, 0] = tiles[5, 7] = True
    assert int(_spread(tiles).sum()) == 4 + 9
    assert _spread(scene.watch._restless) is scene.watch._restless


async def test_calm_is_told_once_for_each_stillness(scene: Scene) -> None:
    told: list[float] = []
    watch = Watch(lambda: None, Size(640, 320), quiet=0.06, cap=1.0)
    watch.input_sent()
    settled = await watch.settle(calm=lambda: told.append(watch._clock() - watch._last_input))
    watch.close()
    assert settled.quiet and len(told) == 1
    assert 0.03 <= told[0] < 0.06
