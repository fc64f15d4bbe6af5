"""Desktops in containers of a Docker Engine; where that is, found as the ``docker`` command finds it.

``DOCKER_HOST`` goes before ``DOCKER_CONTEXT``, and that before ``currentContext`` of the CLI's ``config.json``. The
``docker`` package reads contexts too, but takes a broken file for the default engine and does not read the variable.
"""

from __future__ import annotations

import hashlib
import json
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cambio_lab.errors import ConfigurationError

DEFAULT_HOST = "unix:///var/run/docker.sock"
CHOOSE_CONTEXT = "See `docker context ls`, then run `docker context use NAME`, or set DOCKER_HOST."


@dataclass(frozen=True)
class Endpoint:
    """The address of an engine, and the certificates it wants."""

    host: str
    secure: bool = False
    certificates: Path | None = None
    verify: bool = True

    def tls_config(self) -> Any:
        """The same for the ``docker`` package."""
        from docker.tls import TLSConfig

        authority, *pair = (self._certificate(name) for name in ("ca", "cert", "key"))
        verify = authority if authority and self.verify else self.verify
        return TLSConfig(client_cert=tuple(pair) if all(pair) else None, ca_cert=authority, verify=verify)

    def ssl_context(self) -> ssl.SSLContext:
        """The same for a connection of asyncio."""
        authority, certificate, key = (self._certificate(name) for name in ("ca", "cert", "key"))
        context = ssl.create_default_context(cafile=authority)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if certificate and key:
            context.load_cert_chain(certificate, key)
        return context

    def _certificate(self, name: str) -> str | None:
        path = self.certificates / f"{name}.pem" if self.certificates else None
        return str(path) if path and path.exists() else None


def find_endpoint() -> Endpoint:
    """Return the engine that the environment or the CLI's current context names.

    Raises :class:`~cambio_lab.errors.ConfigurationError` for a context that is unknown or cannot be read.
    """
    if host := os.environ.get("DOCKER_HOST"):
        return _from_environment(host)
    name = os.environ.get("DOCKER_CONTEXT") or _current_context()
    return _from_environment(DEFAULT_HOST) if name == "default" else _from_context(name)


def engine_is_named() -> bool:
    """Whether the environment or a context names the engine, so that the default one is not meant."""
    return bool(os.environ.get("DOCKER_HOST") or os.environ.get("DOCKER_CONTEXT")) or _current_context() != "default"


def _from_environment(host: str) -> Endpoint:
    secure = host.startswith("https://") or bool(os.environ.get("DOCKER_TLS_VERIFY"))
    secure = secure and not host.startswith("unix://")
    folder = os.environ.get("DOCKER_CERT_PATH")
    return Endpoint(host, secure, Path(folder) if folder else _folder() if secure else None)


def _from_context(name: str) -> Endpoint:
    identity = hashlib.sha256(name.encode()).hexdigest()
    meta = _read(_folder() / "contexts" / "meta" / identity / "meta.json")
    if meta is None:
        raise ConfigurationError(f"The Docker context {name!r} is unknown.", hint=CHOOSE_CONTEXT)
    endpoints = meta.get("Endpoints")
    endpoint = endpoints.get("docker") if isinstance(endpoints, dict) else None
    if not isinstance(endpoint, dict) or not isinstance(host := endpoint.get("Host", DEFAULT_HOST), str):
        raise ConfigurationError(f"The Docker context {name!r} has no Docker endpoint.", hint=CHOOSE_CONTEXT)
    folder = _folder() / "contexts" / "tls" / identity / "docker"
    secure = not host.startswith("unix://") and (folder.is_dir() or host.startswith("https://"))
    return Endpoint(
        host, secure, folder if secure and folder.is_dir() else None, verify=not endpoint.get("SkipTLSVerify")
    )


def _current_context() -> str:
    name = (_read(_folder() / "config.json") or {}).get("currentContext") or "default"
    if not isinstance(name, str):
        raise ConfigurationError("currentContext in Docker's config.json is not a name.", hint=CHOOSE_CONTEXT)
    return name


def _folder() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


def _read(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; ``None`` if there is no such file."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"Docker's file {path} cannot be read: {error}", hint=CHOOSE_CONTEXT) from error
    if not isinstance(value, dict):
        raise ConfigurationError(f"Docker's file {path} is not a JSON object.", hint=CHOOSE_CONTEXT)
    return value
