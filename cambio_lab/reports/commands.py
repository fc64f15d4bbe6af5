"""``cambio-lab runs list | show | export | import | rm | prune`` and ``cambio-lab replay``."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CambioError, ConfigurationError, RunError, StoreError

if TYPE_CHECKING:
    from ..replay.desktop_replay import Look
    from ..settings import Settings
    from ..store import Store

FORMATS = ("cambio", "html", "markdown", "inspect", "trajectory")


def add_commands(subcommands: Any) -> None:
    """Add ``runs`` and ``replay``."""
    runs = subcommands.add_parser("runs", help="recorded runs of this machine's server, and .cambio files")
    runs.add_argument("--data-dir", type=Path, help="the server's data directory; default: Jupyter's")
    actions = runs.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add(actions, "list", _list, "the recorded runs, newest first").add_argument("--limit", type=int, default=50)
    show = _add(actions, "show", _show, "one run step by step")
    show.add_argument("name", metavar="RUN", help="a session's id, or a file")
    export = _add(actions, "export", _export, "write a run to a file")
    export.add_argument("name", metavar="RUN", help="a session's id, or a file")
    export.add_argument("target", type=Path, help="file (trajectory: folder) to write")
    export.add_argument("--format", choices=FORMATS, default="cambio")
    _add(actions, "import", _import, "check a .cambio file and keep it with the others").add_argument("file", type=Path)
    remove = _add(actions, "rm", _remove, "forget a run")
    remove.add_argument("name", metavar="RUN", help="a session's id, or an imported file's name")
    prune = _add(actions, "prune", _prune, "forget old runs, and pictures that nothing names")
    prune.add_argument("--max-age-days", type=float, help="default: the setting runs_max_age_days")
    prune.add_argument("--max-bytes", type=int, help="default: the setting runs_max_bytes")
    _add_replay(subcommands)


def _add(actions: Any, name: str, run: Callable[[argparse.Namespace], int], help: str) -> Any:
    parser = actions.add_parser(name, help=help)
    parser.set_defaults(run=_told(run), operation=name)
    return parser


def _add_replay(subcommands: Any) -> None:
    replay = subcommands.add_parser(
        "replay",
        help="replay runs (.cambio) or notebooks (.ipynb) and say whether they come out the same",
        description="Exit status 0 only if everything matches. Nothing is asked of the network.",
    )
    replay.add_argument("files", type=Path, nargs="+", metavar="FILE")
    replay.add_argument("--desktop", action="store_true", help="also perform the actions on a fresh desktop")
    replay.add_argument("--kind", choices=("docker", "local", "auto"), default="auto", help="which desktop")
    replay.add_argument("--mask", action="append", default=[], metavar="X0,Y0,X1,Y1", help="pixels that do not count")
    replay.add_argument("--tolerance", type=float, default=0.0, help="share of pixels that may differ, 0 to 1")
    replay.add_argument("--pace", type=float, default=0.0, help="0: at once, 1: as slowly as it went")
    replay.add_argument("--record", action="store_true", help="a notebook: run it live and record it anew")
    replay.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    replay.add_argument("--output", type=Path, help="a notebook: where to write it as it was executed")
    replay.set_defaults(run=_told(_replay))


def _told(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    def with_errors(arguments: argparse.Namespace) -> int:
        try:
            return run(arguments)
        except CambioError as error:
            print(f"cambio-lab: {error.describe()}", file=sys.stderr)
            return 1

    return with_errors


# The store


def _settings() -> Settings:
    from .configuration import resolve_settings  # Jupyter's files take a moment: not for `--help`

    return resolve_settings()


def _directory(arguments: argparse.Namespace) -> Path:
    if arguments.data_dir is not None:
        return Path(arguments.data_dir)
    found = _settings().data_dir
    if found:
        return Path(found)
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir()) / "cambio_lab"


def _with_store(arguments: argparse.Namespace, work: Callable[[Store], Awaitable[int]]) -> int:
    directory = _directory(arguments)
    if not (directory / "cambio.db").exists():
        raise ConfigurationError("There are no recorded runs here.", hint="Name the server's folder with --data-dir.")

    async def run() -> int:
        from ..store import Store

        store = await Store.open(directory)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def _imported(arguments: argparse.Namespace) -> Path:
    return _directory(arguments) / "runs"


def _list(arguments: argparse.Namespace) -> int:
    async def work(store: Store) -> int:
        from ..store import SessionQuery

        page = await store.sessions.page(SessionQuery(limit=arguments.limit))
        for row in page.rows:
            cost = row.usage.get("cost_usd", 0.0)
            print(f"{row.id}  {_when(row.created_at)}  {row.status:8}  {row.steps:4} steps  ${cost:.4f}  {row.name}")
        return 0

    status = _with_store(arguments, work)
    for path in sorted(_imported(arguments).glob("*.cambio")):
        print(f"{path.name:36}  {_when(path.stat().st_mtime)}  imported  {path.stat().st_size} bytes")
    return status


def _load(arguments: argparse.Namespace, work: Callable[[Any], int]) -> int:
    """Do ``work`` with the run that is named: a file, an imported file's name, or a session's id."""
    from .run import Run

    for path in (Path(arguments.name), _imported(arguments) / arguments.name):
        if path.suffix == ".cambio" and path.is_file():
            return work(Run.load(path))

    async def from_store(store: Store) -> int:
        return work(await Run.from_store(store, arguments.name))

    return _with_store(arguments, from_store)


def _show(arguments: argparse.Namespace) -> int:
    def show(run: Any) -> int:
        from ..recording.rows import describe

        print(run)
        for prompt in run.prompts:
            print(f"> {prompt}")
        for row in run.rows:
            words = describe(row["action"], row["arguments"])
            print(
                f"{row['step']:4}  {row['status']:9}  {row['model_ms']:7.0f}  {row['total_ms']:7.0f} ms  {words[:100]}"
            )
        for answer in run.answers:
            print(f"< {answer}")
        return 0

    return _load(arguments, show)


def _export(arguments: argparse.Namespace) -> int:
    def export(run: Any) -> int:
        writers = {
            "cambio": run.save,
            "html": run.to_html,
            "markdown": run.to_markdown,
            "inspect": run.to_inspect,
            "trajectory": run.to_trajectory,
        }
        writers[arguments.format](arguments.target)
        print(arguments.target)
        return 0

    return _load(arguments, export)


def _import(arguments: argparse.Namespace) -> int:
    from .run import Run

    run = Run.load(arguments.file)
    target = _imported(arguments) / arguments.file.name
    if target.exists():
        raise RunError(f"There is a run {target.name} already.", hint="Rename the file, or remove the other one.")
    run.save(target)
    print(f"{target.name}: {run}")
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    path = _imported(arguments) / arguments.name
    if path.suffix == ".cambio" and path.parent == _imported(arguments) and path.is_file():
        path.unlink()
        return 0

    async def work(store: Store) -> int:
        row = await store.sessions.get(arguments.name)
        if row is None:
            raise RunError(f"There is no run {arguments.name}.", hint="See `cambio-lab runs list`.")
        if row.status == "active":
            raise RunError("The session is going on.", hint="End it first.")
        from ..recording.pruning import sweep

        await store.sessions.remove(arguments.name)
        if await sweep(store) is None:
            print(_kept_pictures(store))
        return 0

    return _with_store(arguments, work)


def _prune(arguments: argparse.Namespace) -> int:
    settings = _settings()
    days = settings.runs_max_age_days if arguments.max_age_days is None else arguments.max_age_days
    most = settings.runs_max_bytes if arguments.max_bytes is None else arguments.max_bytes

    async def work(store: Store) -> int:
        from ..recording.pruning import prune, sweep

        forgotten = await prune(store, days=days, most=most)
        pictures = await sweep(store)
        print(f"{forgotten} runs forgotten, {pictures or 0} bytes of pictures freed")
        if pictures is None:
            print(_kept_pictures(store))
        try:
            print(f"{await store.database.compact()} bytes of the database given back")
        except StoreError as error:
            print(f"The database was not made smaller: {error.describe()} Then prune again; its room is used anyway.")
        return 0

    return _with_store(arguments, work)


def _kept_pictures(store: Store) -> str:
    names = ", ".join(path.name for path in store.damaged())
    return f"No picture was removed: {names} may name it. Move the damaged database away, then prune again."


# Replay


def _replay(arguments: argparse.Namespace) -> int:
    if arguments.output is not None and len(arguments.files) > 1:
        raise ConfigurationError("--output is for one notebook.")
    notebooks = [path for path in arguments.files if path.suffix == ".ipynb"]
    good = True
    if notebooks:
        from .notebooks import replay_notebooks

        good = replay_notebooks(notebooks, arguments)
    for path in arguments.files:
        if path not in notebooks:
            good = asyncio.run(_replay_run(path, arguments)) and good
    return 0 if good else 1


async def _replay_run(path: Path, arguments: argparse.Namespace) -> bool:
    from .run import Run

    run = await asyncio.to_thread(Run.load, path)
    replayed = await run.replay(pace=arguments.pace)
    verdict = "the same to the byte" if replayed.identical else "NOT the same"
    print(f"{run}\nreplayed in {replayed.seconds:.2f} s: the conversation is {verdict}")
    good = replayed.identical
    if arguments.desktop:
        good = await replay_on_fresh(run, path.stem, arguments) and good
    return good


async def replay_on_fresh(run: Any, name: str, arguments: argparse.Namespace) -> bool:
    """Desktop replay on a desktop made for it; prints the outcome and, on a difference, where the pictures are."""
    from ..desktop import make_provider
    from ..desktop.base import DesktopOptions, Region, Size

    size = Size(*run.manifest.get("desktop", {}).get("display", (1280, 800)))
    masks = tuple(Region(*(int(part) for part in mask.split(","))) for mask in arguments.mask)
    settings = _settings()
    provider = await make_provider(settings, server_id=f"replay-{os.getpid()}", kind=arguments.kind)
    try:
        desktop = await provider.acquire(f"replay-{os.getpid()}", DesktopOptions(size=size))
        try:
            found = await run.replay_on(desktop, masks=masks, tolerance=arguments.tolerance)
        finally:
            await desktop.close()
    finally:
        await provider.stop()
    print(found)
    if (look := found.divergence) is not None:
        folder = await asyncio.to_thread(_keep_pictures, look, Path(f"{name}-difference"))
        print(f"pictures in {folder}/")
    return bool(found.matches)


def _keep_pictures(look: Look, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in (("recorded", look.recorded), ("now", look.seen), ("difference", look.difference())):
        (folder / f"step-{look.step}-{name}.png").write_bytes(data)
    return folder


def _when(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
