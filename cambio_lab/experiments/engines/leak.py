"""Nothing secret goes on its way: what would pass a scheduler is searched for the values of this process's secrets."""

from __future__ import annotations

import os

from ...errors import ConfigurationError

SECRETS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
SHORTEST = 8
"""Bytes; a shorter value would be found by accident."""


def refuse_secrets(payload: bytes) -> None:
    """:class:`ConfigurationError` when a secret of this process's environment is in what would pass the scheduler."""
    for name in SECRETS:
        secret = os.environ.get(name, "").encode()
        if len(secret) >= SHORTEST and secret in payload:
            raise ConfigurationError(
                f"A task, its check or the experiment's settings contain the value of {name}.",
                hint="Workers read it from their own environment or secret file; take it out.",
            )
