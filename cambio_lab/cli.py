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
import shutil
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .desktop import KINDS
from .desktop.docker import engine_is_named
from .desktop.provider import ProviderHealth
from .errors import CambioError, ConfigurationError
from .settings import Settings, data_directory, read_flags, resolve

if TYPE_CHECKING:
    from .desktop.provider import Progress

MOUNTED = ("cambio_lab.reports.commands", "cambio_lab.experiments.commands", "cambio_lab.interop")
PATIENCE, MODEL_SECONDS, CONTAINER_SECONDS = 10.0, 40.0, 60.0
"""For the answers that ``doctor`` waits for."""
PACKAGE = Path(__file__).resolve().parent


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
    doctor.set_defaults(run=lambda arguments: asyncio.run(_examine(arguments.settings)))
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


async def _examine(resolve_settings: Callable[[], Settings]) -> int:
    """Print one line for each part, and the command that fixes it; 0 when sessions can be served, 1 otherwise."""
    try:
        settings = resolve_settings()
    except ConfigurationError as error:
        print(f"[fix] settings       {error.describe()}")
        return 1
    from .desktop import probe_container, probe_engine, probe_image, probe_local, probe_sandbox

    engine, image, sandbox, local = await asyncio.gather(
        _within("engine", probe_engine()),
        _within("image", probe_image(settings)),
        _within("sandbox", probe_sandbox(settings)),
        _within("local desktop", probe_local()),
    )
    if image.up:
        container = await _within("container", probe_container(settings), CONTAINER_SECONDS)
    else:
        container = ProviderHealth("container", False, "needs the image", image.fix)
    kind = settings.desktop
    if kind == "auto":  # as `make_provider` chooses
        kind = "docker" if engine.up or _engine_is_named() else "sandbox"
    findings = [
        ("docker", engine),
        ("docker", image),
        ("docker", container),
        ("sandbox", sandbox),
        ("local", local),
        (kind, await _within("model service", _model(settings), MODEL_SECONDS)),
        (kind, await _within("database", asyncio.to_thread(_database, data_directory(settings)))),
        (kind, _front_end()),
        (kind, await _within("redis", _redis(settings))),
    ]
    for needed_by, finding in findings:
        mark = "[ok] " if finding.up else "[fix]" if needed_by == kind else "[--] "
        fix = f"\n      {' ' * 14} -> {finding.fix}" if finding.fix and not finding.up else ""
        print(f"{mark} {finding.name:<14} {finding.summary}{fix}")
    ready = all(finding.up or needed_by != kind for needed_by, finding in findings)
    print("Ready." if ready else "Not ready: fix the lines that say [fix].")
    return 0 if ready else 1


def _engine_is_named() -> bool:
    try:
        return engine_is_named()
    except ConfigurationError:  # a context that cannot be read was meant, too
        return True


async def _within(name: str, question: Awaitable[ProviderHealth], seconds: float = PATIENCE) -> ProviderHealth:
    try:
        async with asyncio.timeout(seconds):
            found = await question
    except TimeoutError:
        return ProviderHealth(name, False, f"no answer within {seconds:g} s")
    except CambioError as error:
        return ProviderHealth(name, False, error.message, error.hint)
    return replace(found, name=name)


async def _model(settings: Settings) -> ProviderHealth:
    """Make one real request (a token's worth of it), so that key, address, proxy and certificate are known to work."""
    if settings.model == "demo":
        return ProviderHealth("model service", True, "not needed: the model is demo")
    from .agent.client import KEY_VARIABLES, check
    from .agent.service_errors import Transient

    if settings.platform == "anthropic" and not any(os.environ.get(name) for name in KEY_VARIABLES):
        fix = "export ANTHROPIC_API_KEY=...   or, without a key: export CAMBIO_LAB_MODEL=demo"
        return ProviderHealth("model service", False, "ANTHROPIC_API_KEY is not set", fix)
    try:
        await check(settings, settings.model)
    except Transient as error:
        return ProviderHealth("model service", False, error.reason, "check base_url, ANTHROPIC_BASE_URL and proxies")
    return ProviderHealth("model service", True, f"answers for {settings.model} ({settings.platform})")


def _database(directory: Path) -> ProviderHealth:
    """Looked at from outside: a running server holds the directory's lock, and that is no fault."""
    place = directory
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        return ProviderHealth("database", False, f"{place} is not writable", "export CAMBIO_LAB_DATA_DIR=...")
    free = shutil.disk_usage(place).free / 1024**3
    if free < 0.5:
        return ProviderHealth("database", False, f"{free:.1f} GB free at {place}", "cambio-lab runs prune")
    state = "there" if (directory / "cambio.db").exists() else "made at the first start"
    return ProviderHealth("database", True, f"{directory} ({state}, {free:.0f} GB free)")


def _front_end() -> ProviderHealth:
    built = (PACKAGE / "static" / "viewer.js", PACKAGE / "labextension" / "package.json")
    missing = [str(path.relative_to(PACKAGE)) for path in built if not path.exists()]
    if missing:
        fix = "npm --prefix labextension ci && npm --prefix labextension run build:prod"
        return ProviderHealth("front end", False, f"not built: {', '.join(missing)}", fix)
    return ProviderHealth("front end", True, "viewer and JupyterLab extension are built")


async def _redis(settings: Settings) -> ProviderHealth:
    if not settings.redis_url:
        return ProviderHealth("redis", True, "not used: rate limits are counted in memory")
    from .api.access import RateLimiter

    limiter = RateLimiter(settings)
    await limiter.start()
    answer = await limiter.ping()
    await limiter.stop()
    if answer == "up":
        return ProviderHealth("redis", True, "answers")
    return ProviderHealth("redis", False, "does not answer", "start it, or unset CAMBIO_LAB_REDIS_URL")


if __name__ == "__main__":
    sys.exit(main())
