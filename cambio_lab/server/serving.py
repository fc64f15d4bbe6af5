"""``cambio-lab serve``: a Jupyter Server with our extension and as little else as possible."""

from __future__ import annotations

from jupyter_server.serverapp import ServerApp

from .extension import CambioLab


class QuietServer(ServerApp):
    """Without kernels, terminals, files and notebooks: who may drive an agent need not run code on the server."""

    default_services: tuple[str, ...] = ("auth", "api", "security", "shutdown")  # type: ignore[assignment]


class Serve(CambioLab):
    """Our extension as the only one."""

    load_other_extensions = False
    serverapp_class = QuietServer


def serve(options: list[str]) -> None:
    """Run until SIGTERM, SIGINT or ``POST /api/shutdown``. ``options`` are Jupyter's."""
    Serve.launch_instance(options)  # type: ignore[no-untyped-call]
