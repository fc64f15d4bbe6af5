"""What a saved notebook shows without kernel, server, scripts or styles; and hostile text."""

from __future__ import annotations

import functools
import io
import re
import time
from html.parser import HTMLParser

import nh3
import numpy
import pytest
from PIL import Image

from cambio_lab import jupyter as record
from cambio_lab.client.screenshot import Screenshot
from cambio_lab.client.turn import Step, Turn
from cambio_lab.errors import ConfigurationError, MissingKey

from ..client.small_server import png

HOSTILE = (
    '<img src=x onerror="alert(1)"> <script>alert(2)</script> [link](javascript:alert(3)) '
    '<a href="javascript:alert(4)">here</a> \x1b[31mred\x1b[0m \x1b]8;;http://evil\x07link\x1b]8;;\x07 '
    '</p></div><iframe src="//evil"></iframe> &lt;b&gt; \u202eevil \x00 "onmouseover="alert(5)'
)
GITHUB_TAGS = {
    *("a", "b", "blockquote", "br", "code", "dd", "details", "div", "dl", "dt", "em", "h1", "h2", "h3", "hr", "i"),
    *("img", "li", "ol", "p", "pre", "small", "span", "strong", "sub", "summary", "sup", "table", "tbody", "td", "th"),
    *("thead", "tr", "ul"),
}


def as_github(page: str) -> str:
    """What is left after a sanitiser like GitHub's: no scripts, styles, classes or handlers."""
    attributes = {
        "img": {"src", "alt", "width", "height", "title"},
        "a": {"href"},
        "ol": {"start"},
        "details": {"open"},
    }
    return nh3.clean(page, tags=GITHUB_TAGS, attributes=attributes, url_schemes={"http", "https", "data"})


class Page(HTMLParser):
    """What a browser would make of a page: elements, attributes, text."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    @property
    def images(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]


@functools.cache
def noisy(number: int, size: tuple[int, int] = (1280, 800)) -> Screenshot:
    """An image that compresses badly, as a photograph on a desktop does."""
    pixels = numpy.random.default_rng(number).integers(0, 255, (size[1] // 8, size[0] // 8, 3), dtype=numpy.uint8)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    target = io.BytesIO()
    image.save(target, "PNG")
    return Screenshot(target.getvalue(), "image/png", f"Screen {number}")


def turn(steps: int = 3, message: str = "Find a flight", text: str = "Done, it costs 80 dollars.") -> Turn:
    found = Turn(message, text=text, done=True, seconds=4.2, usage={"cost_usd": 0.0123})
    found.items.append("I look first.")
    for number in range(1, steps + 1):
        step = Step(number, "left_click", {"coordinate": [number, 20]}, "completed", timing={"total_ms": 101.4})
        step.screenshot = Screenshot(png(f"step {number}"), "image/png")
        found.items.append(step)
    found.items.append(text)
    found.screenshot = Screenshot(png("the end", (1280, 800)), "image/png", "The desktop at the end of the turn")
    return found


def test_transcript_filmstrip_and_last_screenshot_survive_the_sanitiser() -> None:
    page = Page(as_github(record.render([turn()], title="Flights")))
    for words in ("Flights", "Find a flight", "I look first.", "left_click (2, 20)", "Done, it costs 80 dollars."):
        assert words in page.words
    assert "3 steps, 4.2 s, $0.0123" in page.words
    assert len(page.images) == 4
    for image in page.images:
        assert (image["src"] or "").startswith("data:image/jpeg;base64,") and image["alt"]
    assert page.images[0]["alt"] == "Step 1: left_click (1, 20)"
    assert page.images[-1]["width"] == "1280"


def test_plain_text_has_the_transcript() -> None:
    text = record.text([turn()], title="Flights")
    assert text.splitlines()[:3] == ["Flights", "You: Find a flight", "Agent: I look first."]
    assert "  2. left_click (2, 20)" in text


@pytest.mark.parametrize("cap", [400_000, 100_000, 20_000])
def test_the_size_is_bounded(cap: int) -> None:
    long = turn(200, text="word " * 20_000)
    for step in long.steps:
        step.screenshot = noisy(step.number % 3, (640, 400)) if step.number % 20 == 1 else None
    long.screenshot = noisy(0)
    page = record.render([long], cap=cap)
    assert len(page.encode()) <= cap
    if cap == 400_000:
        assert len(Page(page).images) > 5


def test_the_cap_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMBIO_LAB_OUTPUT_BYTES", "30000")
    assert len(record.bundle([turn(30)])["text/html"]) <= 30_000
    monkeypatch.setenv("CAMBIO_LAB_OUTPUT_BYTES", "lots")
    with pytest.raises(ConfigurationError, match="lots"):
        record.output_bytes()


def test_hostile_text_is_only_text() -> None:
    bad = turn(1, message=HOSTILE, text=HOSTILE)
    bad.items.append(Step(2, f"tool{HOSTILE}", {"text": HOSTILE, HOSTILE: HOSTILE}, HOSTILE, text=HOSTILE))
    bad.error = MissingKey(HOSTILE, hint=HOSTILE)
    bad.session_name = HOSTILE
    page = record.render([bad], title=HOSTILE)
    parsed = Page(page)
    assert {tag for tag, _ in parsed.tags} <= {
        *("div", "p", "strong", "em", "br", "ol", "li", "code", "small", "details", "summary", "img"),
        *("table", "tbody", "tr", "td"),
    }
    allowed = {"class", "start", "open", "valign", "style", "src", "width", "height", "alt", "title"}
    for _, attributes in parsed.tags:
        assert set(attributes) <= allowed
    for image in parsed.images:
        assert (image["src"] or "").startswith("data:image/")
    assert '<img src=x onerror="alert(1)">' in parsed.words
    for shown in (parsed.words, record.text([bad], title=HOSTILE)):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\x9b\u202e]", shown)
    assert as_github(page).count("<img") == page.count("<img")


@pytest.mark.timing
def test_a_megabyte_of_text_is_shortened_and_quick() -> None:
    started = time.monotonic()
    page = record.render([turn(1, text="A" * 500_000 + HOSTILE + "Z" * 500_000)])
    assert len(page.encode()) <= record.DEFAULT_BYTES and "characters left out" in page
    assert time.monotonic() - started < 2
