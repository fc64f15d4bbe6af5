"""The front end's built files, as the kernel needs them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ..errors import ConfigurationError

STATIC = Path(__file__).resolve().parent.parent / "static"


@cache
def asset(name: str) -> str:
    """The text of a built front-end file. Raises ``ConfigurationError`` when the package was installed without it."""
    path = STATIC / name
    if not path.is_file():
        raise ConfigurationError(
            f"The front end's {name} is not there.",
            hint="Install the package from a wheel, or run `npm ci && npm run build:prod` in labextension/.",
        )
    return path.read_text(encoding="utf-8")
