"""``cambio-lab serve``: a Jupyter Server with our extension and as little else as possible."""

from __future__ import annotations

import os
import socket

from jupyter_server.serverapp import ServerApp
from traitlets import default

from .extension import CambioLab

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class QuietServer(ServerApp):
    """Without kernels, terminals, files and notebooks: who may drive an agent need not run code on the server.

    What differs from Jupyter's defaults is a default here, too: the user's configuration files, ``JUPYTER_PORT`` and
    the command line are stronger.
    """

    default_services: tuple[str, ...] = ("auth", "api", "security", "shutdown")  # type: ignore[assignment]
    port_default_value = 8000
    port_retries_default_value = 0

    @default("ip")
    def _ip_of_this_machine(self) -> str:
        return "127.0.0.1"

    @default("answer_yes")
    def _no_questions(self) -> bool:
        return True

    @default("allow_root")
    def _as_the_user_that_started_it(self) -> bool:
        return os.geteuid() == 0

    @default("allow_remote_access")
    def _checked_host(self) -> bool:
        """Listening on every address turns Jupyter's check of the Host header off, and with it what keeps a page
        elsewhere from reaching this server under a name of its own (DNS rebinding)."""
        return False

    @default("local_hostnames")
    def _own_names(self) -> list[str]:
        return host_names(self.ip)


def host_names(ip: str) -> list[str]:
    """The names by which clients may call a server that listens on ``ip``."""
    return ["localhost"] if ip in LOOPBACK else ["localhost", socket.gethostname(), socket.getfqdn()]


class Serve(CambioLab):
    """Our extension as the only one."""

    load_other_extensions = False
    serverapp_class = QuietServer

    @default("open_browser")
    def _no_browser(self) -> bool:
        assert self.serverapp is not None
        return bool(self.serverapp.config["ServerApp"].get("open_browser", False))


def serve(options: list[str]) -> None:
    """Run until SIGTERM, SIGINT or ``POST /api/shutdown``. ``options`` are Jupyter's."""
    Serve.launch_instance(options)  # type: ignore[no-untyped-call]
