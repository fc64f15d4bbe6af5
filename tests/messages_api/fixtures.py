"""``messages_api``: the stand-in for one test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .server import MessagesApi


@pytest.fixture
def messages_api() -> Iterator[MessagesApi]:
    """A running stand-in with the policy :class:`~tests.messages_api.policies.Echo`; set ``messages_api.policy``."""
    with MessagesApi() as api:
        yield api
