"""What the tests of faults share: the strict stand-in for the model's service, an engine of their own."""

from __future__ import annotations

from tests.messages_api.fixtures import messages_api

__all__ = ["messages_api"]
