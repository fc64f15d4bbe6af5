"""Two "hosts" on one machine: network namespaces, each with its own Docker Engine and Dask worker.

``sudo python -m benchmarks.two_hosts``: runs the same small experiment locally and over both hosts, kills a worker
with -9 in mid-run, cuts the scheduler off for 20 s, and says whether every cell was counted once and nothing was left.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from cambio_lab.desktop.docker.image import image_tag
from cambio_lab.experiments import Experiment
from cambio_lab.experiments.suite import TASKS
from cambio_lab.settings import Settings
from tests.experiments.solver import CAREFUL, CARELESS, WRONG, solve
from tests.messages_api import MessagesApi

ROOT = Path(__file__).resolve().parents[1]
BRIDGE, NET = "two-hosts", "10.77.0"  # not cambio-*: what comes from such an interface is a desktop, and refused
SCHEDULER, MODEL = 8786, 8787
CUT_SECONDS = 20
CHOSEN = ("sort files", "press button", "count errors")


def sh(command: str, *, check: bool = True, **options: object) -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if check and done.returncode:
        raise RuntimeError(f"{command}: {done.stderr.strip()}")
    return str(done.stdout).strip()


def wait_for(what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while subprocess.run(what, shell=True, capture_output=True).returncode:
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.3)


@contextmanager
def network() -> Iterator[None]:
    """A bridge with our end of two namespaces."""
    sh(f"ip link add {BRIDGE} type bridge && ip addr add {NET}.1/24 dev {BRIDGE} && ip link set {BRIDGE} up")
    try:
        for host in (1, 2):
            name = f"twohost{host}"
            sh(f"ip netns add {name} && ip link add {name} type veth peer name eth0 netns {name}")
            sh(f"ip link set {name} master {BRIDGE} up && ip -n {name} link set lo up")
            sh(f"ip -n {name} addr add {NET}.1{host}/24 dev eth0 && ip -n {name} link set eth0 up")
            sh(f"ip -n {name} route add default via {NET}.1")
        yield
    finally:
        for host in (1, 2):
            sh(f"ip netns del twohost{host}", check=False)
        sh(f"ip link del {BRIDGE}", check=False)


@contextmanager
def process(command: str, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as file:
        started = subprocess.Popen(
            command.split(), stdout=file, stderr=file, env={**os.environ, **environment}, start_new_session=True
        )
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(30)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@contextmanager
def engine(host: int, folder: Path) -> Iterator[str]:
    """A Docker Engine of the host's own, with the desktop's image."""
    home = folder / f"h{host}"
    home.mkdir()
    address = f"unix://{home}/docker.sock"
    command = (
        f"nsenter --net=/run/netns/twohost{host} dockerd --data-root {home}/data --exec-root {home}/exec"
        f" --pidfile {home}/pid -H {address} --cgroup-parent twohost{host}"
    )
    with process(command, home / "dockerd.log"):
        wait_for(f"docker -H {address} info")
        sh(f"docker save {image_tag(Settings().image)} | docker -H {address} load")
        yield address


async def relay(port: int, target: int) -> asyncio.Server:
    """The stand-in listens on loopback only; the hosts reach it here."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))

    return await asyncio.start_server(serve, f"{NET}.1", port)


def build(folder: Path, name: str, **options: object) -> Experiment:
    tasks = [task for task in TASKS if task.name in CHOSEN]
    values = {"models": [CAREFUL, CARELESS], "repeats": 2, "lab": {"desktop": "docker"}, "directory": folder, **options}
    return Experiment(tasks, name=name, **values)  # type: ignore[arg-type]


def verdicts(experiment: Experiment) -> dict[str, bool]:
    return {cell.cell_id: bool(cell.outcome and cell.outcome.success) for cell in experiment.cells}


def containers(address: str) -> int:
    return len(sh(f"docker -H {address} ps -aq").split())


async def disturbed(folder: Path, name: str, disturb: object, client: object) -> Experiment:
    made = build(folder, name)
    running = asyncio.create_task(made.run(engine=client, progress=False))
    while made.tally.done < 3 and not running.done():  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    await asyncio.to_thread(disturb)  # type: ignore[arg-type]
    tally = await running
    print(f"{name}: {tally.ended}, {tally.done}/{tally.total} done, {tally.failed} failed, {tally.retries} tried again")
    return made


def kill_worker(nanny: int) -> None:
    """-9 to one worker process, not to the nanny that watches it."""
    children = [int(pid) for pid in sh(f"pgrep -P {nanny}").split()]
    victim = next(pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text())
    print(f"killing worker process {victim} of host 2")
    os.kill(victim, signal.SIGKILL)


def cut() -> None:
    """Drop every packet between the scheduler and both hosts."""
    rules = [
        f"INPUT -i {BRIDGE} -p tcp --dport {SCHEDULER} -j DROP",
        f"OUTPUT -o {BRIDGE} -p tcp --sport {SCHEDULER} -j DROP",
    ]
    for rule in rules:
        sh(f"iptables -I {rule}")
    print(f"the scheduler is cut off for {CUT_SECONDS} s")
    time.sleep(CUT_SECONDS)
    for rule in rules:
        sh(f"iptables -D {rule}")


async def main() -> None:
    from distributed import Client

    folder = Path(tempfile.mkdtemp(prefix="cambio-two-hosts-"))
    python = sys.executable
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        api = stack.enter_context(MessagesApi(policy=solve, delay=0.3))
        os.environ.update(api.environment)
        alone = build(folder, "local")
        await alone.run(concurrency=2, progress=False)
        stack.enter_context(network())
        server = await relay(MODEL, int(api.base_url.rsplit(":", 1)[1]))
        engines = [asyncio.to_thread(stack.enter_context, engine(host, folder)) for host in (1, 2)]
        addresses = await asyncio.gather(*engines)
        environment = {
            "PYTHONPATH": str(ROOT),
            "ANTHROPIC_API_KEY": api.key,
            "ANTHROPIC_BASE_URL": f"http://{NET}.1:{MODEL}",
        }
        nothing = {"ANTHROPIC_API_KEY": "", "PYTHONPATH": str(ROOT)}
        stack.enter_context(
            process(
                f"{python} -m dask scheduler --host {NET}.1 --port {SCHEDULER} --no-dashboard",
                folder / "scheduler.log",
                **nothing,
            )
        )
        for host, address in enumerate(addresses, 1):
            command = (
                f"nsenter --net=/run/netns/twohost{host} {python} -m dask worker tcp://{NET}.1:{SCHEDULER} --nthreads 2"
                f" --no-dashboard --resources desktop=1 --name host{host} --local-directory {folder}/h{host}/dask"
            )
            worker = stack.enter_context(
                process(command, folder / f"worker{host}.log", DOCKER_HOST=address, **environment)
            )
        async with Client(f"tcp://{NET}.1:{SCHEDULER}", asynchronous=True) as client:
            await client.wait_for_workers(2)
            chosen = sys.argv[1:] or ["undisturbed", "killed worker", "cut scheduler"]
            for name, disturb in (
                ("undisturbed", lambda: None),
                ("killed worker", partial(kill_worker, worker.pid)),
                ("cut scheduler", cut),
            ):
                if name not in chosen:
                    continue
                requests = len(api.requests)
                made = await disturbed(folder, name, disturb, client)
                ids = [cell.outcome.run_id for cell in made.cells if cell.outcome]
                print(
                    f"  same verdicts as local: {verdicts(made) == verdicts(alone)};"
                    f" distinct runs: {len(set(ids))} of {len(made)}; requests: {len(api.requests) - requests};"
                    f" hosts: {made.results['worker'].nunique()};"
                    f" containers left: {[containers(address) for address in addresses]}"
                )
        server.close()
        wrong = [
            name
            for name, good in verdicts(alone).items()
            if good != (CAREFUL in name or name.split("/")[0] not in WRONG)
        ]
        print(f"wrong verdicts: {wrong}; refusals of the service: {api.refusals}")
        for log in ("worker1.log", "worker2.log"):
            print(
                log, (folder / log).read_text()[-int(os.environ.get("TAIL", "0")) :] if os.environ.get("TAIL") else ""
            )


if __name__ == "__main__":
    asyncio.run(main())
