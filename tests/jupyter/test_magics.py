"""``%%agent`` and its companions in a real IPython shell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.testing.globalipapp import start_ipython

from cambio_lab.client.turn import Turn
from cambio_lab.client.workbench import Workbench
from cambio_lab.errors import InvalidRequest
from cambio_lab.jupyter.host import fill

from ..client.small_server import TOKEN, SmallServer


@pytest.fixture
async def shell(server: SmallServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[InteractiveShell]:
    monkeypatch.setenv("CAMBIO_LAB_URL", server.url)
    monkeypatch.setenv("CAMBIO_LAB_TOKEN", TOKEN)
    found = start_ipython() or InteractiveShell.instance()  # type: ignore[no-untyped-call]
    found.run_line_magic("load_ext", "cambio_lab")
    yield found
    found.run_line_magic("unload_ext", "cambio_lab")
    found.user_ns.pop("agent_result", None)


async def cell(shell: InteractiveShell, line: str, text: str) -> Any:
    """A cell magic blocks its thread as in a kernel; the small server goes on in ours."""
    return await asyncio.to_thread(shell.run_cell_magic, "agent", line, text)


async def test_a_cell_is_a_message(
    shell: InteractiveShell, server: SmallServer, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.user_ns["city"] = "Rome"
    await cell(shell, "--session Trip --model demo --max-steps 9 --approval never", "Fly to {city} for {{100}}")
    turn = shell.user_ns["agent_result"]
    assert isinstance(turn, Turn) and turn.text == "I typed Fly to Rome for {100}."
    assert "I typed Fly to Rome" in capsys.readouterr().out
    created = next(iter(server.sessions.values()))
    assert (created.name, created.config) == ("Trip", {"model": "demo", "max_steps": 9, "approval": "never"})
    await cell(shell, "--session Trip --out second", "again")
    assert shell.user_ns["second"].text == "I typed again."
    assert len(server.sessions) == 1 and server.connections == 1
    table = await asyncio.to_thread(shell.run_line_magic, "agent_sessions", "active")
    assert [row["name"] for row in table] == ["Trip"]
    await asyncio.to_thread(shell.run_line_magic, "agent_stop", "Trip")


@pytest.mark.parametrize("line", ["--max-steps many", "--approval maybe", "--frobnicate", "--out not-a-name"])
async def test_a_wrong_line_is_an_error_not_an_exit(shell: InteractiveShell, line: str) -> None:
    with pytest.raises(InvalidRequest):
        await cell(shell, line, "hello")


def test_expressions_become_text() -> None:
    turn = Turn("x", text="inner")
    assert fill("{a} and { turn.text } {{b}}", {"a": 1, "turn": turn}) == "1 and inner {b}"
    variables = {"rows": [{"city": "Rome"}], "price": 12.345, "turn": turn, "len": len}
    assert fill("{rows[0]['city']} {price:.2f} {len(rows) + 1} {turn} {rows}", variables) == (
        "Rome 12.35 2 inner [{'city': 'Rome'}]"
    )
    assert fill('{"json": 1} {} {1, 2}', {}) == '{"json": 1} {} {1, 2}'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{missing}", "NameError: name 'missing' is not defined"),
        ("{two words}", "no Python expression"),
        ("{1 / zero}", "ZeroDivisionError"),
        ("{thing}", "is a object, which has no text form"),
        ("{function}", "has no text form"),
    ],
)
def test_what_has_no_text_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        fill(text, {"zero": 0, "thing": object(), "function": fill})


async def test_ipython_in_a_terminal_prints_a_turn_once(
    shell: InteractiveShell, lab: Workbench, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.user_ns["session"] = await lab.create_session("Terminal")
    done = await asyncio.to_thread(shell.run_cell, "await session.send('hello')", True)
    done.raise_error()
    shown = capsys.readouterr().out
    assert shown.count("I typed hello.") == 1 and "<Turn: 2 steps, 1.5 s" in shown
    shell.user_ns["turn"] = done.result
    await asyncio.to_thread(shell.run_cell, "turn", True)
    assert "You: hello" in capsys.readouterr().out
