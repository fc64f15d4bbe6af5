"""``cambio-lab experiment``: run, status, results, export and benchmarks without a notebook, for batch systems."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from contextlib import closing, nullcontext
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, load_optional
from ..recording.rows import counted, printable

COMPLETE, FAILED, UNFINISHED = 0, 1, 3
"""Exit status: all cells done; an error; stopped or capped (run it again and it goes on)."""


def add_commands(subcommands: Any) -> None:
    """Add ``experiment`` to the program's commands; each sets ``run``, a function of the arguments."""
    parser = subcommands.add_parser("experiment", help="run an experiment, look at one, print its results")
    commands = parser.add_subparsers(dest="experiment_command", required=True)

    run = commands.add_parser("run", help="run every cell that is not done yet")
    run.add_argument("file", type=Path, nargs="?", help="a Python file that makes a variable `experiment`")
    run.add_argument("--benchmark", metavar="NAME", help="instead of a file: `experiment benchmarks` lists them")
    run.add_argument("--tasks", metavar="A,B", help="only these tasks of the benchmark")
    run.add_argument("--models", metavar="A,B", help="model ids, `random` or `oracle`")
    run.add_argument("--repeats", type=int, default=1)
    run.add_argument("--seed", type=int, default=1)
    run.add_argument("--name", help="of the experiment's folder below `experiments` (default: the benchmark's)")
    run.add_argument("--desktop", metavar="KIND", help="docker, sandbox or local")
    run.add_argument("--max-cost-usd", type=float, metavar="USD", help="for the whole experiment")
    run.add_argument("--dask", metavar="ADDRESS", help="scheduler (tcp://HOST:PORT), or the path of its file")
    run.add_argument("--concurrency", type=int, help="cells at once (default: what memory and cores allow)")
    run.set_defaults(run=lambda arguments: asyncio.run(run_command(arguments)))

    commands.add_parser("benchmarks", help="list the benchmarks").set_defaults(run=benchmarks_command)

    status = commands.add_parser("status", help="how far an experiment is, also while it runs")
    results = commands.add_parser("results", help="one line for each cell")
    export = commands.add_parser("export", help="write every recorded run to one file, such as x.eval or x.parquet")
    for command, function in ((status, status_command), (results, results_command), (export, export_command)):
        command.add_argument("folder", type=Path, help="the experiment's folder, or the file that made it")
        command.set_defaults(run=function)
    results.add_argument("--csv", type=Path, metavar="FILE", help="write all columns there (- for standard output)")
    export.add_argument("target", type=Path, help="the file; its ending says the format")
    export.add_argument("--format", help="the format where the ending does not say it; see runs export --formats")


async def run_command(arguments: argparse.Namespace) -> int:
    """Run the file's experiment; SIGTERM and SIGINT stop it in order, a second one at once."""
    experiment = _asked(arguments)
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(_engine_and_run(experiment, arguments))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: task.cancel() if experiment.stopping else experiment.stop())
    try:
        tally = await task
    except asyncio.CancelledError:
        print("stopped at once; finished cells are kept", file=sys.stderr)
        return UNFINISHED
    print(f"results: cambio-lab experiment results {experiment.directory}", file=sys.stderr)
    return COMPLETE if tally.ended == "complete" and not tally.failed else UNFINISHED


def _asked(arguments: argparse.Namespace) -> Any:
    """The experiment of the file, or of the benchmark that is named."""
    from . import benchmark
    from .experiment import Experiment

    if (arguments.file is None) == (arguments.benchmark is None):
        raise ConfigurationError("Name a file or a benchmark.", hint="cambio-lab experiment run --benchmark miniwob")
    if arguments.file is not None:
        return load(arguments.file)
    if not arguments.models:
        raise ConfigurationError("Which models?", hint="--models claude-sonnet-5-5,random")
    return Experiment(
        benchmark(arguments.benchmark, arguments.tasks.split(",") if arguments.tasks else None),
        models=arguments.models.split(","),
        repeats=arguments.repeats,
        seed=arguments.seed,
        name=arguments.name or arguments.benchmark,
        lab={"desktop": arguments.desktop} if arguments.desktop else None,
        max_cost_usd=arguments.max_cost_usd,
    )


def benchmarks_command(arguments: argparse.Namespace) -> int:
    """Name, version, size and title of each."""
    from . import benchmarks

    print(benchmarks())
    return COMPLETE


async def _engine_and_run(experiment: Any, arguments: argparse.Namespace) -> Any:
    if not arguments.dask:
        return await experiment.run(concurrency=arguments.concurrency)
    distributed = load_optional("distributed", "Dask is not installed.", 'pip install "cambio-lab[dask]"')
    is_file = not arguments.dask.startswith(("tcp://", "tls://", "ws://", "wss://", "ucx://"))
    given = {"scheduler_file": arguments.dask} if is_file else {"address": arguments.dask}
    try:
        client = await distributed.Client(**given, asynchronous=True)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"No Dask scheduler answers at {arguments.dask}: {error}") from error
    async with client:
        return await experiment.run(engine=client, concurrency=arguments.concurrency)


def status_command(arguments: argparse.Namespace) -> int:
    """Counts and spend; reads only, so it may be asked at any time."""
    from ..store import FILE_NAME
    from .ledger import open_for_reading, read_counts, read_spent

    folder = _folder(arguments.folder)
    with closing(open_for_reading(folder / FILE_NAME)) as connection:
        counts, (dollars, steps) = read_counts(connection), read_spent(connection)
    total = counts["open"] + counts["done"] + counts["failed"]
    print(f"{counts['done']}/{total} done, {counts['failed']} failed, {counts['running']} running")
    print(f"${dollars:.2f}, {counted(steps, 'step')}")
    return COMPLETE if counts["done"] == total else UNFINISHED


def results_command(arguments: argparse.Namespace) -> int:
    """A short table, or every column as CSV; needs no pandas."""
    from .ledger import load_cells
    from .results import rows, write_csv

    folder = _folder(arguments.folder)
    table = rows(load_cells(folder), folder / "runs")
    if arguments.csv is None:
        for row in table:
            verdict = row["state"] if row["success"] is None else ("yes" if row["success"] else "no")
            name = printable(" / ".join(str(row[column]) for column in ("task", "model", "setting", "repeat")))
            words = printable((row["error"] or row["reason"] or "")[:80])
            print(f"{verdict:6} {row['steps'] or 0:4} steps ${row['cost_usd'] or 0:.4f}  {name}  {words}")
        return COMPLETE
    with nullcontext(sys.stdout) if str(arguments.csv) == "-" else arguments.csv.open("w", newline="") as file:
        write_csv(file, table)
    return COMPLETE


def export_command(arguments: argparse.Namespace) -> int:
    """Write the runs in the format of another tool."""
    from .ledger import load_cells
    from .results import export

    folder = _folder(arguments.folder)
    export(folder.name, load_cells(folder), folder / "runs", arguments.target, arguments.format)
    print(arguments.target)
    return COMPLETE


def load(path: Path) -> Any:
    """The ``experiment`` of a Python file. Workers get its functions by value: the file need not be there.

    Raises :class:`ConfigurationError` when there is no such file or variable; what the file itself raises passes.
    """
    from .experiment import Experiment

    if not path.is_file():
        raise ConfigurationError(f"There is no file {path}.")
    spec = spec_from_file_location(f"cambio_lab_experiment_{path.stem}", path.resolve())
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.resolve().parent))
    spec.loader.exec_module(module)
    if find_spec("cloudpickle"):  # else there is no Dask here, and nothing travels
        import cloudpickle

        cloudpickle.register_pickle_by_value(module)
    experiment = vars(module).get("experiment")
    if not isinstance(experiment, Experiment):
        raise ConfigurationError(f"{path.name} makes no experiment.", hint="It needs: experiment = Experiment(...)")
    return experiment


def _folder(path: Path) -> Path:
    return Path(load(path).directory) if path.suffix == ".py" else path
