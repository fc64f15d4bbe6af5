"""Progress on a terminal, and what a terminal cannot show."""

from __future__ import annotations

import pytest

from cambio_lab.client import display
from cambio_lab.client.display import Progress
from cambio_lab.client.message import Message
from cambio_lab.client.turn import Turn, TurnBuilder
from cambio_lab.client.workbench import Workbench, _take_news
from cambio_lab.errors import ConfigurationError
from cambio_lab.usage import duration


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


def test_the_last_words_of_a_stopped_turn_are_shown_once_and_its_calls_as_what_they_are() -> None:
    builder = TurnBuilder(Turn("sleep"))
    builder.feed(Message("agent_delta", "I run it."))
    builder.feed(Message("status", metadata={"event": "usage", "said": "I run it."}))
    for number, ended in ((1, "interrupted"), (2, "skipped")):
        call = {"tool": "bash", "status": "failed", "tool_use_id": f"t{number}", "step": number, "arguments": {}}
        builder.feed(Message("tool_execution", raw=call, metadata={"ended": ended}))
    builder.feed(Message("agent_response", "I run it.", metadata={"stopped": True, "unfinished": ""}))
    assert [item if isinstance(item, str) else item.status for item in builder.turn.items] == [
        "I run it.",
        "interrupted",
        "skipped",
    ]


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [(84, "84 ms"), (999.6, "1.0 s"), (11_653, "11.7 s"), (59_960, "1 min 0 s"), (125_400, "2 min 5 s")],
)
def test_a_time_for_people(milliseconds: float, words: str) -> None:
    assert duration(milliseconds) == words


async def test_a_wrong_argument_is_named_with_the_right_one(lab: Workbench) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'aproval'") as caught:
        await lab.create_session("Plain", aproval="risky")  # type: ignore[call-arg]
    assert caught.value.hint == "Did you mean approval instead of aproval?"  # type: ignore[attr-defined]
    shown = "".join(caught.value._render_traceback_())  # type: ignore[attr-defined]
    assert "portal.py" not in shown and 'lab.create_session("Plain", aproval="risky")' in shown
    session = await lab.create_session("Plain")
    with pytest.raises(TypeError, match="missing a required argument: 'content'"):
        await session.send()  # type: ignore[call-arg]


async def test_a_terminal_has_no_panels_and_says_what_to_do(lab: Workbench) -> None:
    session = await lab.create_session("Plain")
    with pytest.raises(ConfigurationError, match="needs a notebook") as caught:
        session.panel()
    assert session.vnc_url in caught.value.hint
