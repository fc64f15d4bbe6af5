"""A run as a video: real timing without the waits, with pointer, clicks, keys and the agent's words drawn in.

GIF and WebP are written by Pillow; MP4 by ``ffmpeg``, the program or that of the ``video`` extra.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BundleRefused, ConfigurationError, RunError, load_optional
from ..recording import Json
from ..recording.rows import ACCENT, HALO, describe, opened, points
from . import only

if TYPE_CHECKING:
    from PIL import Image

    from .run import Run

RATE = 20
"""Frames of an MP4 in a second."""
LONGEST_WAIT = 1.0
"""Seconds that are left of a time in which nothing happens."""
ANSWER_SECONDS = 3.0
MOVES = 8
"""Frames of the pointer's way to a place."""
MOVE_SECONDS, CLICK_SECONDS = 0.32, 0.35
WIDTHS = {".gif": (720, 480, 360), ".webp": (960, 640, 480, 360), ".mp4": (1280,)}
"""From which to choose: Pillow keeps all frames in memory, at most about :data:`MOST_BYTES`."""
MOST_BYTES = 400_000_000
BAR = 84
"""Height of the bar with words below the screen."""
_KEYS = frozenset({"key", "hold_key", "type"})
_FONTS = ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf")
Frame = tuple["Image.Image", float]


class VideoExporter:
    """A film of the run."""

    summary = "a video; .mp4 needs ffmpeg or cambio-lab[video]"
    suffixes = (".mp4", ".gif", ".webp")

    def write(self, runs: Sequence[Run], target: Path) -> None:
        to_video(only(runs), target)


def to_video(run: Run, path: Path, *, speed: float = 1.0) -> Path:
    """Write the video; ``speed`` 2 is twice as fast. :class:`ConfigurationError` without screenshots or ffmpeg."""
    suffix = path.suffix.lower()
    if suffix not in WIDTHS:
        raise ConfigurationError(f"A video ends in .mp4, .gif or .webp, not as {path.name!r} does.")
    if not 0.05 <= speed <= 100:
        raise ConfigurationError(f"The speed is {speed:g}; it must be between 0.05 and 100.")
    width, moves = _size(len(run.rows), WIDTHS[suffix], suffix != ".mp4")
    frames = Film(run, width, moves, speed).frames()
    (_write_mp4 if suffix == ".mp4" else _write_animation)(frames, path)
    return path


def _size(steps: int, widths: Sequence[int], bounded: bool) -> tuple[int, int]:
    """Return width and pointer frames so that a run of ``steps`` fits in memory, if that is ``bounded``."""
    for width in widths:
        for moves in (MOVES, 2, 1):
            if not bounded or steps * (moves + 5) * width * (width * 0.7 + BAR) <= MOST_BYTES:
                return width, moves
    return widths[-1], 1


@dataclass
class Film:
    """What is on the screen at one moment of the run; :meth:`frames` moves it on, event by event."""

    run: Run
    width: int
    moves: int
    speed: float
    words: str = ""
    keys: str = ""
    pointer: tuple[float, float] | None = None
    ring: float = 0.0
    """Radius of the circle round the pointer, in pixels; 0: none."""

    def frames(self) -> Iterator[Frame]:
        """Yield each image with its seconds."""
        digests = (row["screenshot"] for row in self.run.rows)
        screen = next((made for digest in digests if digest and (made := self._load(digest))), None)
        if screen is None:
            raise ConfigurationError("The run has no screenshots to show.")
        self._screen, before = screen, None
        for event in self.run.contents.events:
            kind = event["kind"]
            if kind not in _SHOWN:
                continue
            waited = min(LONGEST_WAIT, max(0.0, event["time"] - before)) if before is not None else 0.0
            before = event["time"]
            if kind == "ToolFinished":
                yield from self._act(event)
                continue
            if waited:
                yield self._frame(waited)
            self.words, self.keys = clipped(_SHOWN[kind].format_map(event), 1000) or self.words, ""
            if kind in ("TurnFinished", "TurnFailed"):
                yield self._frame(ANSWER_SECONDS)
            elif kind != "ModelReplied":
                yield self._frame(LONGEST_WAIT)

    def _load(self, digest: str) -> Image.Image | None:
        data = self.run.contents.find(digest)
        if data is None:
            return None
        try:
            with opened(data) as encoded:
                image = encoded.convert("RGB")
        except BundleRefused:
            return None
        self._scale = self.width / image.width
        height = max(2, min(4 * self.width, round(image.height * self._scale)))
        return image.resize((self.width, height - height % 2))

    def _act(self, event: Json) -> Iterator[Frame]:
        action, seconds = event["tool"], min(LONGEST_WAIT, event["timing"]["total"] / 1000)
        places = [(x * self._scale, y * self._scale) for x, y in points(event["arguments"])]
        for place in places:
            yield from self._move(place)
            if "click" in action or "mouse" in action or len(places) == 2:
                for radius in (8, 16, 24):
                    self.ring = radius
                    yield self._frame(CLICK_SECONDS / 3)
                self.ring = 0.0
        if action in _KEYS or not places:
            self.keys = "" if action in ("screenshot", "zoom") else describe(action, event["arguments"])
            yield self._frame(max(seconds, LONGEST_WAIT / 2))
        elif seconds:
            yield self._frame(seconds)
        screen = self._load(event["image"]["sha256"]) if event.get("image") else None
        if screen is not None:
            self._screen, self.keys = screen.resize(self._screen.size), ""
            yield self._frame(LONGEST_WAIT / 4)

    def _move(self, place: tuple[float, float]) -> Iterator[Frame]:
        start = self.pointer or place
        for number in range(1, self.moves + 1):
            part = number / self.moves
            self.pointer = (start[0] + (place[0] - start[0]) * part, start[1] + (place[1] - start[1]) * part)
            yield self._frame(MOVE_SECONDS / self.moves)

    def _frame(self, seconds: float) -> Frame:
        from PIL import Image, ImageDraw

        width, height = self._screen.size
        image = Image.new("RGB", (width, height + BAR), (24, 26, 31))
        image.paste(self._screen)
        pen = ImageDraw.Draw(image)
        if self.pointer is not None:
            _draw_pointer(pen, self.pointer, self.ring)
        if self.keys:
            label = clipped(self.keys, self.width // 12)
            box = pen.textbbox((width / 2, height - 30), label, font=_font(18), anchor="mm")
            pen.rounded_rectangle((box[0] - 10, box[1] - 6, box[2] + 10, box[3] + 6), 6, fill=(24, 26, 31))
            pen.text((width / 2, height - 30), label, font=_font(18), anchor="mm", fill=(255, 214, 102))
        for number, line in enumerate(textwrap.wrap(self.words, self.width // 9, max_lines=3, placeholder=" …")):
            pen.text((14, height + 10 + 23 * number), line, font=_font(16), fill=(235, 235, 235))
        return image, seconds / self.speed


_SHOWN = {
    "UserMessage": "User: {content}",
    "ModelReplied": "{text}",
    "ToolFinished": "",
    "HumanInput": "A person uses the desktop.",
    "ApprovalRequested": "Waits for approval: {shown}",
    "ApprovalDecided": "Approval: {verdict}",
    "TurnFinished": "{text}",
    "TurnFailed": "{error} {details}",
}


def clipped(text: str, longest: int) -> str:
    """Return at most ``longest`` printable characters of ``text``, on one line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * longest]).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _font(size: int) -> Any:
    from PIL import ImageFont

    for name in _FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def _draw_pointer(pen: Any, place: tuple[float, float], ring: float) -> None:
    x, y = place
    if ring:
        pen.ellipse((x - ring, y - ring, x + ring, y + ring), outline=ACCENT, width=3)
    arrow = [(0, 0), (0, 20), (5, 15), (9, 23), (12, 21), (8, 14), (15, 14)]
    pen.polygon([(x + dx, y + dy) for dx, dy in arrow], fill=ACCENT, outline=HALO)


def _write_animation(frames: Iterator[Frame], path: Path) -> None:
    """Pillow joins frames that are the same; a frame shorter than 20 ms would be shown as 100 ms by browsers."""
    from PIL import Image

    images, durations = [], []
    for image, seconds in frames:
        images.append(image.quantize(256, dither=Image.Dither.NONE))
        durations.append(max(20, round(seconds * 1000)))
    options: dict[str, Any] = {"quality": 70, "method": 2} if path.suffix.lower() == ".webp" else {"optimize": False}
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0, **options)


def _write_mp4(frames: Iterator[Frame], path: Path) -> None:
    first, seconds = next(frames)
    width, height = first.size
    command = [
        *(_ffmpeg(), "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"),
        *("-r", str(RATE), "-i", "-", "-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p"),
        *("-movflags", "+faststart", "-f", "mp4", str(path.absolute())),
    ]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
        assert process.stdin is not None
        shown, due = 0, 0.0
        try:
            with process.stdin:
                for image, length in chain([(first, seconds)], frames):
                    due += length
                    data = image.tobytes()
                    while shown < due * RATE:
                        process.stdin.write(data)
                        shown += 1
        except BrokenPipeError:
            pass  # ffmpeg has ended; its words are below
        finally:
            status = process.wait()
        if status:
            log.seek(0)
            raise RunError(f"ffmpeg could not write {path.name}: {log.read(2000).decode(errors='replace').strip()}")


def _ffmpeg() -> str:
    if found := shutil.which("ffmpeg"):
        return found
    hint = 'Install it, or: pip install "cambio-lab[video]". GIF and WebP need neither.'
    return str(load_optional("imageio_ffmpeg", "MP4 needs ffmpeg.", hint).get_ffmpeg_exe())
