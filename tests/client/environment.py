"""Which server a process with a given environment finds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from unittest import mock

from cambio_lab.client import discovery


def find_server(
    url: str | None = None, token: str | None = None, *, environment: Mapping[str, str]
) -> discovery.Address:
    with mock.patch.dict(os.environ, environment, clear=True):
        return discovery.find_server(url, token)
