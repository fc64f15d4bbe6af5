"""docs/agent.md says what is there: every module, setting, platform and stop reason, and the numbers of the code."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from cambio_lab.agent import models, transcript
from cambio_lab.agent.options import TurnOptions

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "agent.md").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "cambio_lab" / "agent").glob("*.py")), ids=lambda path: path.name)
def test_every_module_is_explained(path: Path) -> None:
    implied = {"__init__.py"}
    assert path.name in implied or f"`{path.name}`" in PAGE


@pytest.mark.parametrize("platform", models.PLATFORMS)
def test_every_platform_says_what_to_set(platform: str) -> None:
    assert f"| `{platform}` |" in PAGE


def test_what_one_message_may_change_is_named() -> None:
    named = [item.name for item in fields(TurnOptions) if item.name not in ("extra_tools", "max_tokens")]
    assert [name for name in named if f"`{name}`" not in PAGE] == []


@pytest.mark.parametrize(
    "reason",
    ["tool_use", "end_turn", "max_tokens", "model_context_window_exceeded", "pause_turn", "refusal", "compaction"],
)
def test_every_stop_reason_is_in_the_table(reason: str) -> None:
    assert f"`{reason}`" in PAGE


def test_the_numbers_are_those_of_the_code() -> None:
    clearing = transcript.CLEARING
    for number in (clearing["trigger"]["value"], clearing["clear_at_least"]["value"], transcript.COMPACT_AT):  # type: ignore[index]
        assert f"{number:,}" in PAGE
    assert f"the last {clearing['keep']['value']} stay" in PAGE  # type: ignore[index]
    assert f"last {transcript.KEPT_IMAGES} images every {transcript.PRUNE_EVERY}" in PAGE
