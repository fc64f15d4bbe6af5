"""Which server is mine? Arguments, environment, JupyterHub, the server that started this kernel, the only one running.

Running servers are known from the JSON files that Jupyter Server writes into its runtime directory; nothing of
Jupyter Server is imported. A token never leaves this module except inside :class:`Address`, whose ``repr`` hides it.
"""

from __future__ import annotations

import json
import os
import ssl
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from ..errors import ConfigurationError


@dataclass(frozen=True)
class Address:
    """A server: its URL with the base path and without a trailing slash, and a token that no ``repr`` shows."""

    url: str
    token: str = field(default="", repr=False)
    found_by: str = "arguments"
    parent: bool = False
    """This server started the kernel, so a page that shows the notebook reaches it on its own origin."""

    @property
    def ws_url(self) -> str:
        """The same address for WebSockets."""
        return "ws" + self.url.removeprefix("http")

    @property
    def base_path(self) -> str:
        """The path of the URL with a trailing slash: Jupyter's ``base_url``."""
        return urlsplit(self.url).path.rstrip("/") + "/"

    @property
    def loopback(self) -> bool:
        """The server is on this machine."""
        return urlsplit(self.url).hostname in ("127.0.0.1", "localhost", "::1")

    def tls(self) -> ssl.SSLContext | None:
        """Return the certificates that an ``https`` address is verified with: ``SSL_CERT_FILE``, else the system's."""
        return ssl.create_default_context() if self.url.startswith("https:") else None

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"token {self.token}"} if self.token else {}


def find_server(url: str | None = None, token: str | None = None) -> Address:
    """The server to use, in the documented order.

    Raises :class:`~cambio_lab.errors.ConfigurationError` that says what to set when none or several qualify.
    """
    running = _running_servers()
    if url is not None:
        return _from_url(url, token, "arguments", running)
    if named := os.environ.get("CAMBIO_LAB_URL"):
        return _from_url(named, token, "CAMBIO_LAB_URL", running)
    found = _default(running)
    if found is None and running:
        urls = ", ".join(server.url for server in running)
        raise ConfigurationError(
            f"{len(running)} Jupyter servers are running: {urls}.",
            hint="Say which: Workbench(url, token), or set CAMBIO_LAB_URL and CAMBIO_LAB_TOKEN.",
        )
    if found is None:
        raise ConfigurationError(
            "No Jupyter server with cambio_lab was found.",
            hint="Start one with `cambio-lab serve` or `jupyter lab`, or set CAMBIO_LAB_URL and CAMBIO_LAB_TOKEN.",
        )
    given = token if token is not None else os.environ.get("CAMBIO_LAB_TOKEN")
    return found if given is None else replace(found, token=given)


def _default(running: list[Address]) -> Address | None:
    """Return the server that is used when no address is given."""
    service, token = os.environ.get("JUPYTERHUB_SERVICE_URL"), os.environ.get("JUPYTERHUB_API_TOKEN")
    if service and token:  # a single-user server of JupyterHub lends its token to its kernels
        return Address(_usable(service, os.environ.get("JUPYTERHUB_SERVICE_PREFIX")), token, "JupyterHub", True)
    for server in running:
        if server.parent:
            return replace(server, found_by="JPY_PARENT_PID")
    return replace(running[0], found_by="the only running server") if len(running) == 1 else None


def _token_of(url: str, running: list[Address]) -> str | None:
    """Return the environment's token for ``url``; ``None`` if that token belongs to another server."""
    default = _default(running)
    owner = os.environ.get("CAMBIO_LAB_URL") or (default.url if default else "")
    if not owner or not _belongs(url, owner):
        return None
    token = os.environ.get("CAMBIO_LAB_TOKEN")
    if token is None and default is not None and _belongs(url, default.url):
        return default.token
    return token


def _belongs(url: str, owner: str) -> bool:
    """Whether ``url`` is at or below ``owner``. All users of a hub share its origin, so the path counts, too."""
    base, path = (unquote(urlsplit(one).path).rstrip("/") + "/" for one in (owner, url))
    return _origin(url) == _origin(owner) and path.startswith(base) and ".." not in path.split("/")


def _origin(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port, with the scheme's usual port filled in."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname or ""
    return parts.scheme, host, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _from_url(url: str, token: str | None, source: str, running: list[Address]) -> Address:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        shown = urlunsplit(urlsplit(url)._replace(query="", fragment=""))  # a token may be in the query
        raise ConfigurationError(f"{shown!r} is no address of a server.", hint="Use http://HOST:PORT/.")
    in_query = parse_qs(parts.query).get("token", [""])[0]
    plain = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
    named = plain.replace("//localhost:", "//127.0.0.1:")
    known = next((server for server in running if server.url.replace("//localhost:", "//127.0.0.1:") == named), None)
    if token is None:
        token = in_query or _token_of(plain, running)
    if token is None:
        token = known.token if known else ""
    return Address(plain, token, source, known is not None and known.parent)


def _running_servers() -> list[Address]:
    """What ``jpserver-PID.json`` files say, newest first; those of dead processes and unreadable ones are left out."""
    from jupyter_core.paths import jupyter_runtime_dir

    found: list[tuple[float, Address]] = []
    for path in Path(jupyter_runtime_dir()).glob("jpserver-*.json"):
        try:
            server = json.loads(path.read_text(encoding="utf-8"))
            changed = path.stat().st_mtime
        except (OSError, ValueError):
            continue  # being written or removed at this moment, or not ours to read
        if isinstance(server, dict) and server.get("url") and not server.get("sock") and _alive(server.get("pid")):
            url = _usable(str(server["url"]), str(server.get("base_url") or ""))
            parent = str(server["pid"]) == os.environ.get("JPY_PARENT_PID")
            found.append((changed, Address(url, str(server.get("token") or ""), "a running server", parent)))
    return [server for _, server in sorted(found, key=lambda item: item[0], reverse=True)]


def _alive(pid: Any) -> bool:
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (OSError, TypeError, ValueError):
        return False
    return True


def _usable(url: str, path: str | None) -> str:
    """Return where to reach a server that says it is at ``url``, without a trailing slash; ``path`` is stronger."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    every = host in ("", "0.0.0.0", "::")
    if every or (host == "localhost" and parts.scheme == "http"):  # with https, the certificate's name counts
        host = "127.0.0.1"
    netloc = (f"[{host}]" if ":" in host else host) + (f":{parts.port}" if parts.port else "")
    return urlunsplit((parts.scheme or "http", netloc, (path or parts.path).rstrip("/"), "", ""))
