"""Fixtures of the notebook's tests: those of the client's."""

from __future__ import annotations

from ..client.conftest import lab, live, server  # noqa: F401
