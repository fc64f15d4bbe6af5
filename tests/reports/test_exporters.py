"""Exporters are found by name and ending; the one in the docs works as an installed package."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cambio_lab import reports as exporters
from cambio_lab.cli import main
from cambio_lab.errors import ConfigurationError
from cambio_lab.reports import Run
from tests.recording.parts import Workshop

from .kinds import failed_run

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "notebooks" / "runs" / "06-compare-and-fork-1.cambio"


@pytest.fixture
def my_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example of docs/runs.md, installed."""
    text = (ROOT / "docs" / "runs.md").read_text()
    found = re.search(r"```python\n# my_lab/clicks.py\n(.*?)```", text, re.S)
    entry = re.search(r'^clicks = "(.*)"$', text, re.M)
    assert found and entry and len(found[1].splitlines()) <= 50
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "clicks.py").write_text(found[1])
    installed = tmp_path / "my_lab-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my-lab\nVersion: 1.0\n")
    points = f"clicks = {entry[1]}\nbroken = my_lab.nothing:Missing\nhtml = my_lab.clicks:ClicksExporter\n"
    (installed / "entry_points.txt").write_text(f"[{exporters.GROUP}]\n{points}")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("my_lab", "my_lab.clicks"):
        sys.modules.pop(name, None)


def test_the_example_of_the_docs_is_found_and_writes(my_lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, target = Run.load(RUN), my_lab / "out.clicks.csv"
    run.contents.steps[1] |= {"tool": "left_click", "arguments": {"coordinate": [12, 34]}}
    clicked = str(run.save(my_lab / "clicked.cambio"))
    assert main(["runs", "export", clicked, clicked, str(target)]) == 0
    table = list(csv.DictReader(target.read_text().splitlines()))
    assert [(line["run"], line["step"], line["x"], line["y"]) for line in table] == [(run.id, "2", "12", "34")] * 2
    capsys.readouterr()
    assert main(["runs", "export", "--formats"]) == 0
    listed = capsys.readouterr().out
    assert ".clicks.csv, .csv" in listed and "'broken' cannot be loaded" in listed


def test_a_broken_package_stops_no_other_format(my_lab: Path) -> None:
    Run.load(RUN).export(my_lab / "x.html")
    assert (my_lab / "x.html").read_text().startswith("<!doctype html>"), "ours is not replaced"
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        Run.load(RUN).export(my_lab / "x.txt", "broken")


def test_every_format_of_ours_loads_and_names_its_endings() -> None:
    names = set(exporters._OURS)
    assert names <= set(exporters.available())
    documented = (ROOT / "docs" / "runs.md").read_text()
    for name in names:
        exporter = exporters.load(name)
        assert exporter.summary and all(suffix.startswith(".") for suffix in exporter.suffixes)
        assert f"| `{name}` |" in documented


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x.messages.parquet", "MessagesExporter"),
        ("x.parquet", "DatasetExporter"),
        ("x.atif.json", "AtifExporter"),
        ("X.WEBP", "VideoExporter"),
    ],
)
def test_the_longest_ending_wins(name: str, kind: str) -> None:
    assert type(exporters.choose(Path(name))).__name__ == kind


def test_an_ending_of_two_formats_is_asked_about() -> None:
    with pytest.raises(ConfigurationError) as refused:
        exporters.choose(Path("x.json"))
    assert "atif, inspect" in refused.value.hint
    assert type(exporters.choose(Path("x.json"), "inspect")).__name__ == "InspectExporter"


def test_one_run_for_a_format_of_one_run(tmp_path: Path) -> None:
    run = Run.load(RUN)
    with pytest.raises(ConfigurationError, match="one run"):
        exporters.write([run, run], tmp_path / "x.html")


async def test_the_file_of_a_run_that_failed_is_read_back(workshop: Workshop, tmp_path: Path) -> None:
    run = await failed_run(workshop)
    exporters.write([run], tmp_path / "x.cambio")
    (end,) = [event for event in Run.load(tmp_path / "x.cambio").contents.events if event["kind"] == "TurnFailed"]
    assert end["error_kind"] == "ModelRejected"
