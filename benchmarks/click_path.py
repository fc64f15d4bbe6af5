"""Which of our files execute code for one click turn: from the message on an open ``/ws`` to the answer.

    .venv/bin/python -m benchmarks.click_path [--files] [--connect]

A real server process with a local desktop and the stand-in model service. A first turn loads what is loaded once; of
three later ones (one click, one answer each) that counts what ran in all of them: the server's timers tick in some.
``--files`` lists the files with their functions, ``--connect`` counts what opens the connection, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections import Counter, defaultdict
from contextlib import nullcontext
from pathlib import Path

import websockets

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.live_server import LiveServer
from tests.messages_api import MessagesApi, Reply, View, click, reply

SERVE = """
import json, os, signal, sys, threading
import cambio_lab
package, seen, watching = os.path.dirname(cambio_lab.__file__), {}, False
def profile(frame, event, argument):
    if watching and event == "call" and frame.f_code.co_filename.startswith(package):
        seen[f"{frame.f_code.co_filename[len(package) + 1:]}:{frame.f_code.co_qualname}"] = None
def toggle(number, frame):
    global watching
    watching = not watching
    if watching:
        seen.clear()
    else:
        with open(os.environ["CAMBIO_SEEN"] + ".part", "w") as file:
            json.dump(list(seen), file)
        os.replace(os.environ["CAMBIO_SEEN"] + ".part", os.environ["CAMBIO_SEEN"])
signal.signal(signal.SIGUSR2, toggle)
sys.argv = ["cambio-lab", *sys.argv[1:]]
threading.setprofile(profile)
sys.setprofile(profile)
from cambio_lab.cli import main
main()
"""


class ProfiledServer(LiveServer):
    """A server process that notes which of our functions run between two SIGUSR2."""

    def _command_line(self) -> list[str]:
        return [sys.executable, "-c", SERVE, *super()._command_line()[3:]]


def click_then_answer(view: View) -> Reply:
    return reply("I clicked.") if view.calls else reply("I click.", click(100, 100))


def connected(server: LiveServer, session_id: str) -> websockets.connect:
    return websockets.connect(f"{server.ws_url}/ws/{session_id}", additional_headers=server.headers)


async def turn(socket: websockets.ClientConnection) -> None:
    await socket.send(json.dumps({"content": "Click."}))
    async for message in socket:
        kind = json.loads(message)["type"]
        if kind == "error":
            raise RuntimeError(message)
        if kind == "agent_response":
            return


async def measure(folder: Path, *, connect: bool = False) -> list[str]:
    """Return ``file:function`` of everything of ours that ran in each of the turns after the first."""
    seen, found = folder / "seen.json", list[set[str]]()
    with MessagesApi(policy=click_then_answer) as api:
        environment = {**api.environment, "CAMBIO_SEEN": str(seen)}
        server = ProfiledServer(data_dir=folder, model="claude-sonnet-5-5", env=environment)
        await server.start()
        try:
            async with server.client() as client:
                session_id = (await client.post("/sessions", json={})).raise_for_status().json()["id"]
            assert server.process is not None
            async with connected(server, session_id) as kept:
                await turn(kept)
                for _ in range(3):
                    server.process.send_signal(signal.SIGUSR2)
                    async with connected(server, session_id) if connect else nullcontext(kept) as socket:
                        await turn(socket)
                    server.process.send_signal(signal.SIGUSR2)
                    await _wait_for(seen, server)
                    found.append(set(json.loads(seen.read_text())))
                    seen.unlink()
        finally:
            await server.stop()
    return sorted(set.intersection(*found))


async def _wait_for(path: Path, server: LiveServer) -> None:
    try:
        async with asyncio.timeout(10):
            while not path.exists():  # noqa: ASYNC110, ASYNC240
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise RuntimeError(f"the server wrote no list of files:\n{server.log()[-2000:]}") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", action="store_true", help="list the files and their functions")
    parser.add_argument("--connect", action="store_true", help="count what opens the connection, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(Path(folder), connect=options.connect))
    functions = defaultdict(list)
    for item in found:
        path, _, name = item.partition(":")
        functions[path].append(name)
    if options.files:
        for path, names in sorted(functions.items()):
            print(f"{path}: {', '.join(sorted(names))}")
    packages = Counter(path.split("/")[0] for path in functions)
    spread = ", ".join(f"{count} in {package}" for package, count in packages.most_common())
    print(f"{len(functions)} files, {len(found)} functions: {spread}")


if __name__ == "__main__":
    main()
