"""The container image: found, pulled or built, with progress; its tag is the digest of what it is built from."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable
from functools import cache
from operator import methodcaller
from pathlib import Path

from cambio_lab.errors import DesktopUnavailable

from ..provider import Progress
from .engine import Engine, EngineError

log = logging.getLogger(__name__)

CONTEXT = Path(__file__).resolve().parent.parent / "image"
BASE, BASE_TAG, SUITE = "debian", "bookworm-slim", "bookworm"
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""A build gets these of the environment; the engine keeps them out of the image."""
_STEP = re.compile(r"^Step (\d+)/(\d+) : (.*)")
Report = Callable[[Progress], None]


@cache
def context_digest() -> str:
    """Twelve hex digits over names, modes and contents of everything that the image is built from."""
    digest = hashlib.sha256()
    for path in sorted(CONTEXT.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(CONTEXT)}\0{os.access(path, os.X_OK)}\0".encode())
            digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def image_tag(name: str) -> str:
    """``name:digest`` of the image as this version of the package builds it."""
    return f"{name}:{context_digest()}"


async def image_exists(engine: Engine, reference: str) -> bool:
    try:
        await engine.call(lambda client: client.inspect_image(reference))
    except EngineError as error:
        if error.status == 404:
            return False
        raise
    return True


async def build_image(
    engine: Engine,
    name: str,
    report: Report = lambda progress: None,
    *,
    dockerfile: Path | None = None,
    force: bool = False,
) -> str:
    """Make sure that the image exists; its reference. ``dockerfile`` extends it (``ARG BASE`` / ``FROM $BASE``).

    Raises :class:`~cambio_lab.errors.DesktopUnavailable` with the engine's own words when it cannot be built.
    """
    reference = image_tag(name)
    if force or not await image_exists(engine, reference):
        # A plain name would be a stranger's in the engine's default registry.
        if force or "/" not in name or not await _pulled(engine, name, context_digest(), report):
            await _ensure_base(engine, report)
            await _build(engine, CONTEXT, "Dockerfile", [reference, f"{name}:latest"], {}, report)
            report(Progress(f"built {reference}", 1.0))
    else:
        report(Progress(f"{reference} is already there", 1.0))
    if dockerfile is None:
        return reference
    digest = hashlib.sha256(reference.encode() + await asyncio.to_thread(dockerfile.read_bytes)).hexdigest()[:12]
    extended = f"{name}-custom:{digest}"
    if force or not await image_exists(engine, extended):
        await _build(engine, dockerfile.parent, dockerfile.name, [extended], {"BASE": reference}, report)
        report(Progress(f"built {extended}", 1.0))
    return extended


async def _build(
    engine: Engine, folder: Path, dockerfile: str, tags: list[str], arguments: dict[str, str], report: Report
) -> None:
    tail: list[str] = []
    try:
        async for line in engine.lines(
            lambda client: client.build(
                path=str(folder),
                dockerfile=dockerfile,
                tag=tags[0],
                buildargs={**{name: os.environ[name] for name in PROXIES if name in os.environ}, **arguments},
                rm=True,
                forcerm=True,
                decode=True,
                timeout=1800,
            )
        ):
            if "error" in line:
                raise DesktopUnavailable(f"The image cannot be built: {line['error']}", hint=" ".join(tail[-3:]))
            text = str(line.get("stream", "")).strip()
            if text:
                tail = [*tail[-9:], text]
                _tell(text, report)
        for tag in tags[1:]:
            repository, _, version = tag.rpartition(":")
            await engine.call(methodcaller("tag", tags[0], repository, version, force=True))
    except EngineError as error:
        raise DesktopUnavailable(f"The image cannot be built: {error}") from error


def _tell(text: str, report: Report) -> None:
    if match := _STEP.match(text):
        step, steps, what = int(match[1]), int(match[2]), match[3]
        report(Progress(f"step {step}/{steps}: {what[:100]}", (step - 1) / steps))
    elif not text.startswith(("--->", "Removing intermediate")):
        report(Progress(text[:200]))


# The base
async def _ensure_base(engine: Engine, report: Report) -> None:
    """``debian:bookworm-slim``: there already, pulled, or made with debootstrap where no registry can be reached."""
    reference = f"{BASE}:{BASE_TAG}"
    if await image_exists(engine, reference):
        report(Progress(f"base {reference}: found on this engine"))
        return
    if not await _pulled(engine, BASE, BASE_TAG, report):
        report(Progress(f"base {reference}: using debootstrap"))
        await _bootstrap(engine, reference, report)


async def _pulled(engine: Engine, name: str, tag: str, report: Report) -> bool:
    """Whether a registry had it."""
    reference = f"{name}:{tag}"
    report(Progress(f"{reference}: pulling"))
    try:
        async for line in engine.lines(lambda client: client.pull(name, tag=tag, stream=True, decode=True)):
            if "error" in line:
                raise EngineError(str(line["error"]))
            if line.get("status") and line.get("progress"):
                report(Progress(f"{reference}: {line['status']} {line['progress']}"))
    except EngineError as error:
        report(Progress(f"{reference}: no registry to pull it from ({str(error)[:160]})"))
        return False
    report(Progress(f"{reference}: pulled", 1.0))
    return True


async def _bootstrap(engine: Engine, reference: str, report: Report) -> None:
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        raise DesktopUnavailable(
            f"{reference} cannot be pulled, and making it needs debootstrap and root.",
            hint="apt install debootstrap and run `cambio-lab image build` as root, or load the image by hand.",
        )
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="cambio-base-"))
    try:
        make = f"debootstrap --variant=minbase {SUITE} root && tar -C root -cf root.tar ."
        await run_reported(make, folder, report, "debootstrap")
        report(Progress(f"base {reference}: importing"))
        await import_image(engine, folder / "root.tar", BASE, BASE_TAG)
        report(Progress(f"base {reference}: made with debootstrap"))
    except EngineError as error:
        raise DesktopUnavailable(f"The base image cannot be imported: {error}") from error
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def run_reported(command: str, folder: Path, report: Report, name: str) -> None:
    """Run a shell command in ``folder``, reporting each line of it. :class:`DesktopUnavailable` if it fails."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", command),
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    last = ""
    try:
        async for line in process.stdout:
            last = line.decode("utf-8", "replace").strip()
            report(Progress(f"{name}: {last[:120]}"))
        code = await process.wait()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if code:
        raise DesktopUnavailable(f"{name} failed: {last}", hint="Is a Debian mirror reachable?")


async def import_image(engine: Engine, archive: Path, repository: str, tag: str) -> None:
    """Make the tar file ``archive`` the image ``repository:tag``; :class:`EngineError` when the engine will not.

    By its name: given as a stream, the ``docker`` package announces both a length and chunks, and the engine refuses.
    """
    load = methodcaller("import_image_from_file", str(archive), repository=repository, tag=tag)
    answer: str = await engine.call(load)
    # What goes wrong after the status line comes as the last of the JSON lines.
    for line in answer.splitlines():
        if "error" in (said := json.loads(line)):
            raise EngineError(str(said["error"]))
