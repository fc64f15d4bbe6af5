"""``cambio-lab replay``: replay runs and notebooks, and report whether the results are the recorded ones."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..desktop import KINDS
from ..errors import ConfigurationError
from ..recording.rows import printable

if TYPE_CHECKING:
    from ..replay.desktop_replay import Look
    from .run import Run


def add(subcommands: Any) -> None:
    """Add the command."""
    replay = subcommands.add_parser(
        "replay",
        help="replay runs (.cambio) or notebooks (.ipynb) and report differences",
        description="Exit status 0 only if everything matches. No network is used.",
    )
    replay.add_argument("files", type=Path, nargs="+", metavar="FILE")
    replay.add_argument("--desktop", action="store_true", help="also perform the actions on a fresh desktop")
    replay.add_argument("--kind", choices=KINDS, default="auto", help="which desktop")
    replay.add_argument("--mask", action="append", default=[], metavar="X0,Y0,X1,Y1", help="pixels that do not count")
    replay.add_argument("--tolerance", type=float, default=0.0, help="share of pixels that may differ, 0 to 1")
    replay.add_argument("--pace", type=float, default=0.0, help="0: at once, 1: as slowly as it went")
    replay.add_argument("--record", action="store_true", help="a notebook: run it live and record it again")
    replay.add_argument("--output", type=Path, help="a notebook: where to write it as it was executed")
    replay.set_defaults(run=_replay)


def _replay(arguments: argparse.Namespace) -> int:
    if arguments.output is not None and len(arguments.files) > 1:
        raise ConfigurationError("--output is for one notebook.")
    notebooks = [path for path in arguments.files if path.suffix == ".ipynb"]
    good = True
    if notebooks:
        good = _replay_notebooks(notebooks, arguments)
    for path in arguments.files:
        if path not in notebooks:
            good = asyncio.run(_replay_run(path, arguments)) and good
    return 0 if good else 1


def _replay_notebooks(paths: list[Path], arguments: argparse.Namespace) -> bool:
    from .notebooks import recorded, replay_notebooks
    from .run import Run

    good = replay_notebooks(paths, record=arguments.record, output=arguments.output)
    if arguments.desktop:
        for file in (file for path in paths for file in recorded(path)):
            print(file.name, end=": ")
            good = asyncio.run(replay_on_fresh(Run.load(file), file.stem, arguments)) and good
    return good


async def _replay_run(path: Path, arguments: argparse.Namespace) -> bool:
    from .run import Run

    run = await asyncio.to_thread(Run.load, path)
    replayed = await run.replay(pace=arguments.pace)
    verdict = "the same to the byte" if replayed.identical else "NOT the same"
    print(f"{printable(str(run))}\nreplayed in {replayed.seconds:.2f} s: the conversation is {verdict}")
    good = replayed.identical
    if arguments.desktop:
        good = await replay_on_fresh(run, path.stem, arguments) and good
    return good


async def replay_on_fresh(run: Run, name: str, arguments: argparse.Namespace) -> bool:
    """Replay on a new desktop; print the outcome and, on a difference, where the screenshots are."""
    from ..desktop import make_provider
    from ..desktop.base import Region, Size
    from ..desktop.provider import DesktopOptions

    size = Size(*run.manifest.get("desktop", {}).get("display", (1280, 800)))
    masks = tuple(Region(*(int(part) for part in mask.split(","))) for mask in arguments.mask)
    provider = await make_provider(arguments.settings(), server_id=f"replay-{os.getpid()}", kind=arguments.kind)
    try:
        desktop = await provider.acquire(f"replay-{os.getpid()}", DesktopOptions(size=size))
        try:
            found = await run.replay_on(desktop, masks=masks, tolerance=arguments.tolerance)
        finally:
            await desktop.close()
    finally:
        await provider.stop()
    print("\n".join(map(printable, str(found).splitlines())))
    if (look := found.divergence) is not None:
        folder = await asyncio.to_thread(_save_difference, look, Path(f"{name}-difference"))
        print(f"screenshots in {folder}/")
    return bool(found.matches)


def _save_difference(look: Look, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in (("recorded", look.recorded), ("now", look.seen), ("difference", look.difference())):
        (folder / f"step-{look.step}-{name}.png").write_bytes(data)
    return folder
