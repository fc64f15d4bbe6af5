"""``cambio-lab runs list | show | export | import | rm | prune``, and where ``cambio-lab replay`` is added."""

from __future__ import annotations

import argparse
import asyncio
import datetime
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, DirectoryInUse, RunError, StoreError
from ..recording.rows import counted, describe, printable
from ..settings import data_directory
from . import available, choose, load, replay_command, write

if TYPE_CHECKING:
    from ..store import Store
    from .run import Run


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
    replay_command.add(subcommands)


def _add(actions: Any, name: str, run: Callable[[argparse.Namespace], int], help: str) -> Any:
    parser = actions.add_parser(name, help=help)
    parser.set_defaults(run=run, operation=name)
    return parser


# The store


def _directory(arguments: argparse.Namespace) -> Path:
    if arguments.data_dir is not None:
        return Path(arguments.data_dir)
    return data_directory(arguments.settings())


def _with_store(
    arguments: argparse.Namespace, work: Callable[[Store], Awaitable[int]], *, read_only: bool = False
) -> int:
    """Do ``work``. With ``read_only`` also while a server uses the directory."""
    directory = _directory(arguments)
    if not (directory / "cambio.db").exists():
        raise ConfigurationError("There are no recorded runs here.", hint="Name the server's folder with --data-dir.")

    async def run() -> int:
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


def _imported(arguments: argparse.Namespace) -> Path:
    return _directory(arguments) / "runs"


def _list(arguments: argparse.Namespace) -> int:
    async def work(store: Store) -> int:
        from ..store import SessionQuery

        page = await store.sessions.page(SessionQuery(limit=arguments.limit))
        for row in page.rows:
            cost, name = row.usage.get("cost_usd", 0.0), printable(row.name)
            steps = counted(row.steps, "step")
            print(f"{row.id}  {_when(row.created_at)}  {row.status:8}  {steps:>10}  ${cost:.4f}  {name}")
        return 0

    status = _with_store(arguments, work, read_only=True)
    for path in sorted(_imported(arguments).glob("*.cambio")):
        size = path.stat().st_size
        print(f"{printable(path.name):36}  {_when(path.stat().st_mtime)}  imported  {size} bytes")
    return status


def _load(arguments: argparse.Namespace, names: Sequence[str], work: Callable[[list[Run]], int]) -> int:
    """Do ``work`` with the runs that are named: a file, an imported file's name, a session's id or its name."""
    from .run import Run

    files = {name: path for name in names if (path := _file(arguments, name)) is not None}

    async def from_store(store: Store | None) -> int:
        found = []
        for name in names:
            if name in files:
                found.append(Run.load(files[name]))
            elif store is not None:
                found.append(await Run.from_store(store, await _named(store, name)))
        return await asyncio.to_thread(work, found)

    if len(files) == len(set(names)):
        return asyncio.run(from_store(None))
    return _with_store(arguments, from_store, read_only=True)


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


def _file(arguments: argparse.Namespace, name: str) -> Path | None:
    if not name.endswith(".cambio"):
        return None
    return next((path for path in (Path(name), _imported(arguments) / name) if path.is_file()), None)


def _show(arguments: argparse.Namespace) -> int:
    return _load(arguments, [arguments.name], _print_steps)


def _print_steps(runs: list[Run]) -> int:
    (run,) = runs
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
        return _print_formats()
    names, target = [*arguments.names], arguments.target
    if target is None and names:
        target = Path(names.pop())
    if target is None or not names:
        raise ConfigurationError("Name at least one run and the file to write.", hint="See runs export --help.")
    choose(target, arguments.format)  # refuse a wrong ending before anything is read

    def export(runs: list[Run]) -> int:
        write(runs, target, arguments.format)
        print(target)
        return 0

    return _load(arguments, names, export)


def _print_formats() -> int:
    for name in sorted(available()):
        try:
            exporter = load(name)
        except ConfigurationError as error:
            print(f"{name:12} {printable(error.message)}")
        else:
            print(f"{name:12} {', '.join(exporter.suffixes) or 'a folder':18} {exporter.summary}")
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
    return _with_store(arguments, partial(_remove_session, arguments.name))


async def _remove_session(name: str, store: Store) -> int:
    from ..recording import sweep

    row = await store.sessions.get(name)
    if row is None:
        raise RunError(f"There is no run {name}.", hint="See `cambio-lab runs list`.")
    if row.status == "active":
        raise RunError("The session is active.", hint="End it first.")
    await store.sessions.remove(name)
    if await sweep(store) is None:
        print(_kept_screenshots(store))
    return 0


def _prune(arguments: argparse.Namespace) -> int:
    settings = arguments.settings()
    days = settings.runs_max_age_days if arguments.max_age_days is None else arguments.max_age_days
    most = settings.runs_max_bytes if arguments.max_bytes is None else arguments.max_bytes
    return _with_store(arguments, partial(_prune_store, days, most))


async def _prune_store(days: float, most: int, store: Store) -> int:
    from ..recording import prune, sweep

    deleted = await prune(store, days=days, most=most)
    freed = await sweep(store)
    print(f"{counted(deleted, 'run')} deleted, {freed or 0} bytes of screenshots freed")
    if freed is None:
        print(_kept_screenshots(store))
    try:
        print(f"{await store.database.compact()} bytes of the database freed")
    except StoreError as error:
        print(f"The database was not compacted: {error.describe()} Prune again then; new runs use the free space.")
    return 0


def _kept_screenshots(store: Store) -> str:
    names = ", ".join(path.name for path in store.damaged())
    return f"No screenshot was removed: {names} may name it. Move the damaged database away, then prune again."


def _when(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
