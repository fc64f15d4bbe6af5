"""Progress on a terminal, and what a terminal cannot show."""

from __future__ import annotations

import pytest

from cambio_lab.client import display
from cambio_lab.client.display import Progress
from cambio_lab.client.message import Message
from cambio_lab.client.workbench import Workbench, _take_news
from cambio_lab.errors import ConfigurationError


def test_short_work_shows_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("Sending x", 10, show=True) as bar:
        bar.to(10)
    assert capsys.readouterr().err == ""


def test_progress_follows_the_servers_news_and_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(display, "PROGRESS_SECONDS", -1.0)
    bar = Progress("Starting a desktop", show=True)

    def news(fraction: float | None, name: str = "Flights") -> None:
        metadata = {"event": "progress", "fraction": fraction, "name": name}
        _take_news(Message("status", "step 3/9: apt-get\x1b[31m", metadata=metadata), "Flights", bar)

    news(0.4, "another session")
    assert capsys.readouterr().err == ""
    news(0.4)
    assert "\rStarting a desktop: step 3/9: apt-get:  40 % · 0 s" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError), bar:
        bar.to(1 / 0)
    assert capsys.readouterr().err.endswith("failed\n")


async def test_a_terminal_has_no_panels_and_says_what_to_do(lab: Workbench) -> None:
    session = await lab.create_session("Plain")
    with pytest.raises(ConfigurationError, match="needs a notebook") as caught:
        session.panel()
    assert session.vnc_url in caught.value.hint
