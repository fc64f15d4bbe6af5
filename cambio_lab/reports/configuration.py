"""The server's settings for commands that run beside it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ..errors import ConfigurationError
from ..settings import Settings, read_environment

SECTION = "CambioLab"
FILES = ("jupyter_cambio_lab_config", "jupyter_server_config")
"""Jupyter's configuration files that the server reads, the strongest last."""


def resolve_settings() -> Settings:
    """Defaults, Jupyter's configuration files, environment: all but the server's command line, the strongest last.

    Raises :class:`ConfigurationError` naming the setting when a value is of the wrong type.
    """
    try:
        return Settings(**_from_files() | read_environment())
    except ValueError as error:
        raise ConfigurationError(f"{error}.") from None


def _from_files() -> dict[str, Any]:
    from jupyter_core.application import JupyterApp

    app = JupyterApp()
    for name in FILES:
        app.config_file_name = name
        app.load_config_file()
    section = app.config.get(SECTION, {})
    return {
        item.name: _checked(item.name, section[item.name], type(item.default))
        for item in fields(Settings)
        if item.name in section
    }


def _checked(name: str, value: Any, kind: type) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"c.{SECTION}.{name} is {value!r}: set it to a {kind.__name__}")
    return value
