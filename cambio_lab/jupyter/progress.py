"""A progress bar that ends: in a cell, on a terminal, or nowhere."""

from __future__ import annotations

import html
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from . import shell

REFRESH_SECONDS = 0.1
BAR_CHARACTERS = 30


class Progress:
    """``with Progress("Upload data.csv", total=size) as bar: bar.add(65536)``. ``total=None``: only the time is known.

    Nothing is shown for the first ``delay`` seconds: short work needs no bar, and leaves the same page every time.
    Methods may be called from any thread. The last state shown is always an end: done, or failed.
    """

    def __init__(
        self, label: str, total: float | None = None, *, unit: str = "", delay: float = 2.0, show: bool | None = None
    ) -> None:
        self.label = label
        self.total = total
        self.unit = unit
        self.value = 0.0
        self._delay = delay
        self._lock = threading.Lock()
        self._started = self._last = time.monotonic()
        self._ended = False
        self._draw = _drawer() if show is None else (_drawer() if show else None)

    def add(self, amount: float) -> None:
        self.to(self.value + amount)

    def to(self, value: float, label: str | None = None) -> None:
        """Set the value; draws at most ten times a second."""
        with self._lock:
            self.value = value
            self.label = label or self.label
            now = time.monotonic()
            if self._draw is None or self._ended or now - self._started < self._delay:
                return
            if now - self._last >= REFRESH_SECONDS:
                self._last = now
                self._draw(self, "")

    def end(self, outcome: str = "done") -> None:
        """Draw the end, once; not at all when nothing was drawn before and all went well."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            drawn = self._last > self._started
            if self._draw is not None and (drawn or outcome != "done"):
                self._draw(self, outcome)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def amount(self) -> str:
        """``12.3 of 45.6 MB``, ``40 %`` or ``3 of 40 steps``; empty without a total."""
        if self.total is None:
            return ""
        if self.unit == "B":
            return f"{self.value / 1e6:.1f} of {self.total / 1e6:.1f} MB"
        if self.unit == "%":
            return f"{100 * self.value / self.total:.0f} %"
        return f"{self.value:g} of {self.total:g} {self.unit}".strip()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end("done" if kind is None else "failed")


Draw = Callable[[Progress, str], None]


def _drawer() -> Draw | None:
    if shell.in_kernel():
        return _Cell()
    return _terminal if sys.stderr.isatty() else None


class _Cell:
    def __init__(self) -> None:
        self._handle: Any = None

    def __call__(self, bar: Progress, outcome: str) -> None:
        content = {"text/html": as_html(bar, outcome), "text/plain": as_text(bar, outcome)}
        if self._handle is None:
            self._handle = shell.show(content)
        else:
            self._handle.update(content, raw=True)


def as_html(bar: Progress, outcome: str = "") -> str:
    """A labelled ``<progress>`` while it runs, plain words once it has ended."""
    label = html.escape(bar.label)
    words = " · ".join(part for part in (html.escape(bar.amount), f"{bar.seconds:.1f} s", outcome) if part)
    if outcome:
        return f"<p>{label}: {words}</p>"
    state = "" if bar.total is None else f' value="{bar.value:g}" max="{bar.total:g}"'
    return f'<p>{label} <progress aria-label="{label}"{state}></progress> {words}</p>'


def as_text(bar: Progress, outcome: str = "") -> str:
    words = ", ".join(part for part in (bar.amount, f"{bar.seconds:.1f} s", outcome) if part)
    return f"{bar.label}: {words}"


def _terminal(bar: Progress, outcome: str) -> None:
    filled = 0 if not bar.total else min(BAR_CHARACTERS, int(BAR_CHARACTERS * bar.value / bar.total))
    line = "█" * filled + "·" * (BAR_CHARACTERS - filled)
    end = "\n" if outcome else ""
    sys.stderr.write(f"\r\x1b[K{line} {as_text(bar, outcome)}{end}")
    sys.stderr.flush()
