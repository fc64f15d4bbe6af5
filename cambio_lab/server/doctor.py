"""``cambio-lab doctor``: what is ready, line by line, and the command that fixes what is not."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from ..desktop.docker import engine_is_named
from ..desktop.provider import ProviderHealth
from ..errors import CambioError, ConfigurationError
from ..settings import Settings, data_directory

Say = Callable[[str], None]
PATIENCE = 10.0
MODEL_SECONDS = 40.0
CONTAINER_SECONDS = 60.0
PACKAGE = Path(__file__).resolve().parent.parent


async def examine(say: Say, resolve: Callable[[], Settings]) -> int:
    """Say one line for each part; 0 when sessions can be served, 1 otherwise."""
    try:
        settings = resolve()
    except ConfigurationError as error:
        say(f"[fix] settings       {error.describe()}")
        return 1
    from ..desktop import probe_container, probe_engine, probe_image, probe_local, probe_sandbox

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
        say(f"{mark} {finding.name:<14} {finding.summary}{fix}")
    ready = all(finding.up or needed_by != kind for needed_by, finding in findings)
    say("Ready." if ready else "Not ready: fix the lines that say [fix].")
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
    from ..agent.client import KEY_VARIABLES, check
    from ..agent.service_errors import Transient

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
    from ..api.access import RateLimiter

    limiter = RateLimiter(settings)
    try:
        await limiter.start()
        answer = await limiter.ping()
    except ConfigurationError as error:
        return ProviderHealth("redis", False, error.message, error.hint)
    await limiter.stop()
    if answer == "up":
        return ProviderHealth("redis", True, "answers")
    return ProviderHealth("redis", False, "does not answer", "start it, or unset CAMBIO_LAB_REDIS_URL")
