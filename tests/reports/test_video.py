"""The film of a run: it opens, shows pointer, keys and words where they were, and leaves waits out."""

from __future__ import annotations

from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from cambio_lab.errors import ConfigurationError
from cambio_lab.recording.rows import ACCENT
from cambio_lab.reports import Run, video
from tests.messages_api import Script, click, member, reply, screenshot
from tests.recording.parts import Workshop

from .kinds import run_of


def seconds(path: Path) -> float:
    with Image.open(path) as film:
        total = 0.0
        for number in range(film.n_frames):  # type: ignore[attr-defined]
            film.seek(number)
            film.load()
            total += film.info["duration"] / 1000
        return total


def accent(image: Image.Image) -> np.ndarray:
    """Rows and columns of what has the pointer's colour."""
    pixels = np.asarray(image.convert("RGB")).astype(int)
    return np.argwhere((abs(pixels - ACCENT) < 30).all(axis=2))


async def test_the_pointer_goes_where_the_agent_clicked(workshop: Workshop) -> None:
    run = await run_of(workshop, "desktop")
    frames = list(video.Film(run, 1280, 8, 1.0).frames())
    assert all(image.size == (1280, 800 + video.BAR) for image, _ in frames)
    clicked = [
        found for image, _ in frames if len(found := accent(image)) and abs(found.mean(axis=0) - 400).max() < 300
    ]
    ring = max((found for found in clicked if 610 < found[:, 1].mean() < 670), key=lambda f: np.ptp(f[:, 1]))
    assert ring[:, 0].min() > 370 and ring[:, 0].max() < 430 and np.ptp(ring[:, 1]) >= 40
    assert any(
        found[:, 1].mean() < 110 and found[:, 0].mean() < 110
        for found in map(accent, (i for i, _ in frames))
        if len(found)
    )
    words = [image.crop((0, 800, 1280, 800 + video.BAR)).tobytes() for image, _ in frames]
    assert len(set(words)) >= 8, "what was asked, said, decided and answered"
    keyed = [image for image, _ in frames if image.getpixel((640, 788)) == (24, 26, 31)]
    assert keyed, "typed text stands at the lower edge of the screen"


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
async def test_a_film_without_ffmpeg(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(video, "_ffmpeg", lambda: pytest.fail("ffmpeg is not needed"))
    run = await run_of(workshop, "desktop")
    normal, fast = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    run.to_video(normal)
    run.to_video(fast, speed=3)
    with Image.open(normal) as film:
        assert film.n_frames > 20 and film.width == video.WIDTHS[suffix][0]  # type: ignore[attr-defined]
    assert seconds(fast) == pytest.approx(seconds(normal) / 3, rel=0.1)


async def test_mp4(workshop: Workshop, tmp_path: Path) -> None:
    run = await run_of(workshop, "desktop")
    run.export(tmp_path / "a.mp4")
    frames, length = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "a.mp4"))
    planned = sum(part for _, part in video.Film(run, 1280, video.MOVES, 1.0).frames())
    assert length == pytest.approx(planned, abs=0.2) and frames == pytest.approx(planned * video.RATE, abs=3)


async def test_waits_are_left_out(workshop: Workshop, tmp_path: Path) -> None:
    policy = Script([reply(screenshot(), member("wait", duration=6)), reply(click(10, 10))])
    run = await workshop.run("wait", policy=policy)
    run.to_video(tmp_path / "a.webp")
    assert run.seconds > 6
    acted = seconds(tmp_path / "a.webp") - video.ANSWER_SECONDS
    assert acted < 6


def test_long_runs_stay_within_memory() -> None:
    for steps, suffix in ((10, ".webp"), (150, ".webp"), (1000, ".gif")):
        width, moves = video._size(steps, video.WIDTHS[suffix], True)
        assert width in video.WIDTHS[suffix] and 1 <= moves <= video.MOVES
    assert video._size(14, video.WIDTHS[".webp"], True) == (960, video.MOVES)
    assert video._size(5000, video.WIDTHS[".mp4"], False) == (1280, video.MOVES)


async def test_what_cannot_be_filmed_says_why(workshop: Workshop, tmp_path: Path) -> None:
    run: Run = await run_of(workshop, "failed")
    for name, speed, reason in (
        ("a.gif", 1.0, "no screenshots"),
        ("a.avi", 1.0, "A video ends in"),
        ("a.gif", 0.0, "speed"),
    ):
        with pytest.raises(ConfigurationError, match=reason):
            run.to_video(tmp_path / name, speed=speed)
    assert not (tmp_path / "a.gif").exists()
