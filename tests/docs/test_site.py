"""The documentation builds without a warning, and its generated parts hold what the code has."""

from __future__ import annotations

import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
import yaml

from cambio_lab import __all__ as public
from cambio_lab import errors

from .blocks import DOCS

API = DOCS.parent / "cambio_lab" / "api"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return target


def _pages(site: Path) -> list[Path]:
    return [page for page in site.rglob("*.html") if "_static" not in page.parts]


def _text(page: Path) -> str:
    return unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    page = (site / "reference/python.html").read_text(encoding="utf-8")
    missing = [name for name in public if not name.startswith("_") and f".{name}" not in page]
    assert missing == []


def test_every_route_and_schema_is_in_the_reference(site: Path) -> None:
    page = _text(site / "reference/rest.html")
    described = yaml.safe_load((API / "openapi.yaml").read_text(encoding="utf-8"))
    wanted = [f"{method.upper()} {path}" for path, item in described["paths"].items() for method in item]
    wanted = [name for name in wanted if not name.startswith("PARAMETERS")] + [*described["components"]["schemas"]]
    assert len(wanted) > 40
    assert [name for name in wanted if name not in page] == []


def test_every_channel_and_error_and_command_is_in_the_reference(site: Path) -> None:
    described = yaml.safe_load((API / "asyncapi.yaml").read_text(encoding="utf-8"))
    page = _text(site / "reference/websocket.html")
    assert [one["address"] for one in described["channels"].values() if one["address"] not in page] == []
    page = _text(site / "reference/errors.html")
    assert [name for name in vars(errors) if name.endswith("Error") and name not in page] == []
    page = _text(site / "reference/command-line.html")
    for command in ("serve", "doctor", "image build", "runs export", "replay", "experiment run"):
        assert f"cambio-lab {command}" in page


def test_every_link_to_a_file_leads_somewhere(site: Path) -> None:
    broken = []
    for page in _pages(site):
        for link in re.findall(r'(?:href|src)="(?!\w+:)([^"#?]+)', page.read_text(encoding="utf-8")):
            if not (page.parent / link).exists():
                broken.append(f"{page.relative_to(site)}: {link}")
    assert broken == []


def test_no_page_of_the_site_loads_anything_from_elsewhere(site: Path) -> None:
    for page in _pages(site):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img|iframe)[^>]+src="(?:https?:)?//[^"]*', text), page.name
