"""``cambio-lab serve | doctor | image | runs | replay | experiment | mcp``.

A part of the package adds its commands with a module ``commands`` that has
``add_commands(subcommands: argparse._SubParsersAction) -> None``; each parser sets ``run`` to a function that takes the
parsed arguments and returns the exit status. ``arguments.settings()`` gives the settings, resolved as the server does.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .desktop import KINDS
from .errors import CambioError
from .settings import read_flags, resolve

if TYPE_CHECKING:
    from .desktop.provider import Progress

MOUNTED = ("cambio_lab.reports.commands", "cambio_lab.experiments.commands", "cambio_lab.interop")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    parser = _parser()
    parsed, rest = parser.parse_known_args(arguments)
    if parsed.command == "serve":
        parsed.rest = rest
    else:
        try:
            flags, rest = read_flags(rest)
        except ValueError as error:
            parser.error(str(error))
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        parsed.settings = partial(resolve, flags)
    run: Callable[[argparse.Namespace], int] = parsed.run
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of runs are not limited to the terminal's encoding
    try:
        status = run(parsed)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader has seen enough, such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except CambioError as error:
        print(f"cambio-lab: {error.describe()}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("cambio-lab", description="Claude computer-use agents with desktops of their own.")
    parser.add_argument("--version", action="version", version=f"cambio-lab {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_serve(commands)
    doctor = commands.add_parser("doctor", help="say what is ready, and the command that fixes what is not")
    doctor.set_defaults(run=_doctor)
    _add_image(commands)
    for name in MOUNTED:
        import_module(name).add_commands(commands)
    return parser


def _add_serve(commands: Any) -> None:
    serve = commands.add_parser(
        "serve",
        help="run the server alone, without JupyterLab",
        description="Serve the documented API. Further options are Jupyter Server's and ours: --CambioLab.model=demo",
    )
    serve.add_argument("--port", type=int, help="default: Jupyter's configuration, else 8000")
    serve.add_argument("--host", help="address to listen on; default: Jupyter's configuration, else this machine only")
    serve.add_argument("--name", action="append", default=[], help="host name by which clients call this server")
    serve.add_argument("--base-url", help="prefix of every URL; default: Jupyter's configuration, else /")
    serve.add_argument("--desktop", choices=KINDS, help="where desktops come from; default: auto")
    serve.add_argument("--no-token", action="store_true", help="ask for no token; this machine only")
    serve.set_defaults(run=_serve)


def _add_image(commands: Any) -> None:
    image = commands.add_parser("image", help="the container image of the desktops")
    actions = image.add_subparsers(dest="action", required=True, metavar="ACTION")
    build = actions.add_parser("build", help="build it unless it is there")
    build.add_argument("--from", dest="dockerfile", type=Path, help="a Dockerfile with ARG BASE / FROM $BASE on top")
    build.add_argument("--force", action="store_true", help="build even if it is there")
    build.add_argument("--rootfs", action="store_true", help="unpack it into the cache, for sandboxes; needs no engine")
    build.set_defaults(run=_build_image)


def _serve(arguments: argparse.Namespace) -> int:
    from .server.extension import LOOPBACK, serve

    elsewhere = any(option.startswith(("--ip", "--ServerApp.ip", "--QuietServer.ip")) for option in arguments.rest)
    if arguments.no_token and (elsewhere or arguments.host not in (None, *LOOPBACK)):
        print("cambio-lab: --no-token listens on this machine only; leave out --host", file=sys.stderr)
        return 2
    serve(jupyter_options(arguments))
    return 0


def jupyter_options(arguments: argparse.Namespace) -> list[str]:
    """What ``serve`` means in Jupyter Server's own options: only what was asked for, the rest is configuration."""
    from .server.extension import host_names

    host = arguments.host
    options = []
    if arguments.no_token:
        host = host or "127.0.0.1"  # whatever the configuration files say
        options += ["--IdentityProvider.token=", "--PasswordIdentityProvider.hashed_password="]
    given = {"ip": host, "port": arguments.port, "base_url": arguments.base_url}
    options += [f"--ServerApp.{name}={value}" for name, value in given.items() if value is not None]
    if arguments.name:
        names = [*host_names(host or ""), *arguments.name]
        options += [f"--ServerApp.local_hostnames={name}" for name in names]
    if arguments.desktop:
        options.append(f"--CambioLab.desktop={arguments.desktop}")
    return [*options, *arguments.rest]


def _doctor(arguments: argparse.Namespace) -> int:
    from .server.doctor import examine

    return asyncio.run(examine(print, arguments.settings))


def _build_image(arguments: argparse.Namespace) -> int:
    from .desktop.docker.engine import Engine
    from .desktop.docker.image import build_image
    from .desktop.sandbox.probe import build_rootfs

    async def build() -> str:
        if arguments.rootfs:
            return str(await build_rootfs(arguments.settings(), Lines(), force=arguments.force))
        name, extension = arguments.settings().image, arguments.dockerfile
        with closing(Engine()) as engine:
            return await build_image(engine, name, Lines(), dockerfile=extension, force=arguments.force)

    print(asyncio.run(build()))
    return 0


class Lines:
    """Prints what a long job does, one line for each step."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, progress: Progress) -> None:
        if progress.text != self._last:
            self._last = progress.text
            print(progress.text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
