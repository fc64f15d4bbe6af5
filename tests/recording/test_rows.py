"""Steps as rows and tables."""

from __future__ import annotations

import sys

import pytest

from cambio_lab.client.display import Table
from cambio_lab.errors import ConfigurationError
from cambio_lab.recording.rows import load_pandas


def test_without_pandas_a_table_says_what_to_install_and_what_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigurationError, match="pandas") as caught:
        load_pandas()
    assert "cambio-lab[analysis]" in caught.value.hint and "run.rows" in caught.value.hint
    with pytest.raises(ConfigurationError, match="pandas"):
        Table([{"a": 1}], ["a"]).to_frame()
