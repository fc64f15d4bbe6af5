"""The documents say what the code does: a setting, metric or command without them fails here."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from cambio_lab.api.base import REQUESTS
from cambio_lab.api.socket import COMMANDS
from cambio_lab.cli import main
from cambio_lab.server.extension import CambioLab
from cambio_lab.settings import Settings

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_each_setting_is_documented_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", (DOCS / "settings.md").read_text(), re.M))
    expected = {item.name: "empty" if item.default == "" else f"`{item.default}`" for item in fields(Settings)}
    assert rows == expected


def test_each_setting_is_a_trait() -> None:
    traits = CambioLab.class_traits(config=True)
    for item in fields(Settings):
        assert traits[item.name].help == item.metadata["help"]
        assert getattr(CambioLab(), item.name) == item.default


def test_each_metric_of_the_dashboard_exists() -> None:
    assert REQUESTS
    known = {sample.name for family in REGISTRY.collect() for sample in family.samples}
    known |= {f"{family.name}{suffix}" for family in REGISTRY.collect() for suffix in ("", "_total", "_bucket")}
    for panel in json.loads((DOCS / "grafana.json").read_text())["panels"]:
        for target in panel["targets"]:
            for name in re.findall(r"\b(?:http|cambio_lab)_\w+", target["expr"]):
                assert name in known, f"{panel['title']}: {name}"


def test_each_command_is_documented() -> None:
    text = (DOCS / "api.md").read_text()
    assert [name for name in COMMANDS if name not in text] == []


def test_no_token_listens_on_this_machine_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--no-token", "--host", "0.0.0.0"]) == 2
    assert "this machine only" in capsys.readouterr().err


def test_the_doctor_names_every_part(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMBIO_LAB_DESKTOP", "local")
    monkeypatch.setenv("CAMBIO_LAB_MODEL", "claude-sonnet-5-5")
    monkeypatch.setenv("CAMBIO_LAB_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    for part in ("engine", "image", "local desktop", "model service", "database", "front end", "redis"):
        assert re.search(rf"^\[\S+\s*\] +{part}", said, re.M), said
    assert "export ANTHROPIC_API_KEY" in said and "Not ready" in said
