"""``cambio-lab runs list | show | export | import | rm | prune`` and ``cambio-lab replay``."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..desktop import KINDS, make_provider
from ..desktop.base import Region, Size
from ..desktop.provider import DesktopOptions
from ..errors import ConfigurationError, DirectoryInUse, RunError, StoreError
from ..recording import prune, sweep
from ..recording.rows import counted, describe, printable
from ..settings import data_directory
from . import available, choose, load, write

if TYPE_CHECKING:
    from ..replay.desktop_replay import Look
    from ..store import Store
    from .run import Run

T = TypeVar("T")


def add_commands(subcommands: Any) -> None:
    """Add ``runs`` and ``replay``."""
    runs = subcommands.add_parser("runs", help="recorded runs of this machine's server, and .cambio files")
    runs.add_argument("--data-dir", type=Path, help="the server's data directory; default: Jupyter's")
    actions = runs.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add(actions, "list", _list, "the recorded runs, newest first").add_argument("--limit", type=int, default=50)
    show = _add(actions, "show", _show, "one run step by step")
    show.add_argument("name", metavar="RUN", help="a session's id (or how it begins) or name, or a file")
    export = _add(actions, "export", _export, "write runs to a file in the format of its ending")
    export.add_argument("names", metavar="RUN", nargs="*", help="a session's id or name, or a file")
    export.add_argument("target", type=Path, nargs="?", help="file (or folder) to write")
    export.add_argument("--format", help="the format where the ending does not say it; --formats lists them")
    export.add_argument("--formats", action="store_true", help="list the formats and their endings")
    _add(actions, "import", _import, "check a .cambio file and keep it with the others").add_argument("file", type=Path)
    remove = _add(actions, "rm", _remove, "delete a run")
    remove.add_argument("name", metavar="RUN", help="a session's id, or an imported file's name")
    prune = _add(actions, "prune", _prune, "delete old runs, and screenshots that no run names")
    prune.add_argument("--max-age-days", type=float, help="default: the setting runs_max_age_days")
    prune.add_argument("--max-bytes", type=int, help="default: the setting runs_max_bytes")
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


def _add(actions: Any, name: str, run: Callable[[argparse.Namespace], int], help: str) -> Any:
    parser = actions.add_parser(name, help=help)
    parser.set_defaults(run=run, operation=name)
    return parser


def _directory(arguments: argparse.Namespace) -> Path:
    return arguments.data_dir or data_directory(arguments.settings())


def _with_store(arguments: argparse.Namespace, work: Callable[[Store], Awaitable[T]], *, read_only: bool = False) -> T:
    """Do ``work``. With ``read_only`` also while a server uses the directory."""
    directory = _directory(arguments)
    if not (directory / "cambio.db").exists():
        raise ConfigurationError("There are no recorded runs here.", hint="Name the server's folder with --data-dir.")

    async def run() -> T:
        from ..store import Store

        try:
            store = await Store.open(directory)
        except DirectoryInUse:
            if not read_only:
                raise
            store = Store.open_read_only(directory)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


def _imported(arguments: argparse.Namespace) -> Path:
    return _directory(arguments) / "runs"


def _list(arguments: argparse.Namespace) -> int:
    from ..store import SessionQuery

    page = _with_store(
        arguments, lambda store: store.sessions.page(SessionQuery(limit=arguments.limit)), read_only=True
    )
    for row in page.rows:
        cost, name = row.usage.get("cost_usd", 0.0), printable(row.name)
        steps = counted(row.steps, "step")
        print(f"{row.id}  {_when(row.created_at)}  {row.status:8}  {steps:>10}  ${cost:.4f}  {name}")
    for path in sorted(_imported(arguments).glob("*.cambio")):
        print(f"{printable(path.name):36}  {_when(path.stat().st_mtime)}  imported  {path.stat().st_size} bytes")
    return 0


def _load(arguments: argparse.Namespace, names: Sequence[str]) -> list[Run]:
    """Return the runs that are named: a file, an imported file's name, a session's id or its name."""
    from .run import Run

    found = {}
    for name in names:
        places = (Path(name), _imported(arguments) / name) if name.endswith(".cambio") else ()
        if file := next((path for path in places if path.is_file()), None):
            found[name] = Run.load(file)

    async def read(store: Store) -> None:
        for name in names:
            if name not in found:
                found[name] = await Run.from_store(store, await _named(store, name))

    if len(found) < len(set(names)):
        _with_store(arguments, read, read_only=True)
    return [found[name] for name in names]


async def _named(store: Store, name: str) -> str:
    """Return the id of the session with this id, with an id that begins so, or else the newest with this name."""
    from ..store import SessionQuery

    if await store.sessions.get(name) is not None:
        return name
    rows = (await store.sessions.page(SessionQuery(limit=10_000))).rows
    begun = [row.id for row in rows if len(name) >= 4 and row.id.startswith(name)]
    called = begun if len(begun) == 1 else [row.id for row in rows if row.name == name]
    if not called:
        many = f"{len(begun)} ids begin with it." if begun else "See `cambio-lab runs list`."
        raise RunError(f"There is no run or file {printable(name)}.", hint=many)
    return called[0]


def _show(arguments: argparse.Namespace) -> int:
    (run,) = _load(arguments, [arguments.name])
    print(printable(str(run)))
    for prompt in run.prompts:
        print(f"> {printable(prompt)}")
    for row in run.rows:
        words = printable(describe(row["action"], row["arguments"], row["status"])[:100])
        print(f"{row['step']:4}  {row['status']:9}  {row['model_ms']:7.0f}  {row['total_ms']:7.0f} ms  {words}")
    for answer in run.answers:
        print(f"< {printable(answer)}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    if arguments.formats:
        for name in sorted(available()):
            try:
                exporter = load(name)
            except ConfigurationError as error:
                print(f"{name:12} {printable(error.message)}")
            else:
                print(f"{name:12} {', '.join(exporter.suffixes) or 'a folder':18} {exporter.summary}")
        return 0
    names, target = [*arguments.names], arguments.target
    if target is None and names:
        target = Path(names.pop())
    if target is None or not names:
        raise ConfigurationError("Name at least one run and the file to write.", hint="See runs export --help.")
    choose(target, arguments.format)  # refuse a wrong ending before anything is read
    write(_load(arguments, names), target, arguments.format)
    print(target)
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from .run import Run

    run = Run.load(arguments.file)
    target = _imported(arguments) / arguments.file.name
    if target.exists():
        raise RunError(f"There is a run {target.name} already.", hint="Rename the file, or remove the other one.")
    run.save(target)
    print(printable(f"{target.name}: {run}"))
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    path = _imported(arguments) / arguments.name
    if path.suffix == ".cambio" and path.parent == _imported(arguments) and path.is_file():
        path.unlink()
        return 0

    async def remove(store: Store) -> None:
        row = await store.sessions.get(arguments.name)
        if row is None:
            raise RunError(f"There is no run {arguments.name}.", hint="See `cambio-lab runs list`.")
        if row.status == "active":
            raise RunError("The session is active.", hint="End it first.")
        await store.sessions.remove(arguments.name)
        await _sweep(store)

    _with_store(arguments, remove)
    return 0


def _prune(arguments: argparse.Namespace) -> int:
    settings = arguments.settings()
    days = settings.runs_max_age_days if arguments.max_age_days is None else arguments.max_age_days
    most = settings.runs_max_bytes if arguments.max_bytes is None else arguments.max_bytes

    async def delete(store: Store) -> None:
        deleted = await prune(store, days=days, most=most)
        print(f"{counted(deleted, 'run')} deleted, {await _sweep(store)} bytes of screenshots freed")
        try:
            print(f"{await store.database.compact()} bytes of the database freed")
        except StoreError as error:
            print(f"The database was not compacted: {error.describe()} Prune again then; new runs use the free space.")

    _with_store(arguments, delete)
    return 0


async def _sweep(store: Store) -> int:
    """Remove the screenshots that no run names, unless a damaged database may name them; return the bytes freed."""
    freed = await sweep(store)
    if freed is None:
        names = ", ".join(path.name for path in store.damaged())
        print(f"No screenshot was removed: {names} may name it. Move the damaged database away, then prune again.")
    return freed or 0


def _replay(arguments: argparse.Namespace) -> int:
    from .notebooks import recorded, replay_notebooks
    from .run import Run

    if arguments.output is not None and len(arguments.files) > 1:
        raise ConfigurationError("--output is for one notebook.")
    notebooks = [path for path in arguments.files if path.suffix == ".ipynb"]
    good = not notebooks or replay_notebooks(notebooks, record=arguments.record, output=arguments.output)
    for file in (file for path in notebooks for file in recorded(path) if arguments.desktop):
        print(file.name, end=": ")
        good = asyncio.run(replay_on_fresh(Run.load(file), file.stem, arguments)) and good
    for path in arguments.files:
        if path not in notebooks:
            good = asyncio.run(_replay_run(path, arguments)) and good
    return 0 if good else 1


async def _replay_run(path: Path, arguments: argparse.Namespace) -> bool:
    from .run import Run

    run = await asyncio.to_thread(Run.load, path)
    replayed = await run.replay(pace=arguments.pace)
    verdict = "the same to the byte" if replayed.identical else "NOT the same"
    print(f"{printable(str(run))}\nreplayed in {replayed.seconds:.2f} s: the conversation is {verdict}")
    same = not arguments.desktop or await replay_on_fresh(run, path.stem, arguments)
    return replayed.identical and same


async def replay_on_fresh(run: Run, name: str, arguments: argparse.Namespace) -> bool:
    """Replay on a new desktop; print the outcome and, on a difference, where the screenshots are."""
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
        await asyncio.to_thread(_save_difference, look, Path(f"{name}-difference"))
    return bool(found.matches)


def _save_difference(look: Look, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in (("recorded", look.recorded), ("now", look.seen), ("difference", look.difference())):
        (folder / f"step-{look.step}-{name}.png").write_bytes(data)
    print(f"screenshots in {folder}/")
