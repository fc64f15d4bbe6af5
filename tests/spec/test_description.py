"""``openapi.yaml`` and ``asyncapi.yaml`` are what ``scripts/describe_api.py`` makes of the models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_the_committed_descriptions_are_those_of_the_models() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "describe_api.py"), "--check"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert found.returncode == 0, found.stderr


def test_every_reference_of_the_descriptions_leads_somewhere() -> None:
    for name in ("openapi.yaml", "asyncapi.yaml"):
        document = yaml.safe_load((ROOT / "cambio_lab" / "api" / name).read_text())
        pending = [document]
        while pending:
            value = pending.pop()
            if isinstance(value, dict):
                if isinstance(target := value.get("$ref"), str):
                    found = document
                    for part in target.removeprefix("#/").split("/"):
                        found = found[part]
                pending.extend(value.values())
            elif isinstance(value, list):
                pending.extend(value)
