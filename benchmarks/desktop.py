"""From an action to the settled, encoded screenshot: our way and three others, side by side on one X server.

    python -m benchmarks.desktop [--repeat 20] [--reference 5]

* ours: RFB input, settling on damage, numpy and zlib-ng;
* reference: what Anthropic's computer-use demo does inside the container: `xdotool`, two seconds of sleep, `scrot`;
* docker exec: `docker exec ... xdotool` from outside, then our picture;
* floor: XTest and a shared-memory capture by one process inside the container, plus our encoding, no waiting at all.

The quiet period (80 ms) is part of ours and told apart. Then a page with a turning wheel, and how fast a desktop comes.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from cambio_lab.desktop.base import Point
from cambio_lab.desktop.docker.desktop import DockerDesktop
from cambio_lab.desktop.docker.network import OPEN
from cambio_lab.desktop.docker.provider import DockerProvider
from cambio_lab.desktop.machine import STDOUT, Process
from cambio_lab.desktop.provider import DesktopOptions
from cambio_lab.desktop.screen import encode
from cambio_lab.settings import Settings
from tests.desktop.programs import launch, launch_window, wait_for_window

TEXT = "The quick brown fox jumps over 13 dogs. "
DOCKERFILE = """ARG BASE
FROM $BASE
USER root
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends xdotool scrot && rm -rf /var/lib/apt/lists/*
USER user
"""
FLOOR = r"""
import ctypes, sys, time
X, T, E, C = (ctypes.CDLL(n) for n in ("libX11.so.6", "libXtst.so.6", "libXext.so.6", "libc.so.6"))
class Seg(ctypes.Structure):
    _fields_ = [("seg", ctypes.c_ulong), ("id", ctypes.c_int), ("addr", ctypes.c_void_p), ("ro", ctypes.c_int)]
X.XOpenDisplay.restype = E.XShmCreateImage.restype = C.shmat.restype = ctypes.c_void_p
d = ctypes.c_void_p(X.XOpenDisplay(None))
X.XDefaultRootWindow.restype = ctypes.c_ulong
X.XDefaultVisual.restype = ctypes.c_void_p
root, seg, W, H = ctypes.c_ulong(X.XDefaultRootWindow(d)), Seg(), 1280, 800
E.XShmCreateImage.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p,
                              ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
seg.id = C.shmget(0, W * H * 4, 0o1777)
seg.addr = C.shmat(seg.id, None, 0)
image = E.XShmCreateImage(d, X.XDefaultVisual(d, 0), 24, 2, seg.addr, ctypes.byref(seg), W, H)
E.XShmAttach(d, ctypes.byref(seg)); X.XSync(d, 0)
def key(sym):
    code = X.XKeysymToKeycode(d, ctypes.c_ulong(sym))
    T.XTestFakeKeyEvent(d, code, 1, 0); T.XTestFakeKeyEvent(d, code, 0, 0)
for line in sys.stdin:
    words = line.rstrip("\n").split(" ", 1)
    begin = time.perf_counter()
    if words[0] == "click":
        T.XTestFakeMotionEvent(d, 0, *map(int, words[1].split()), 0)
        T.XTestFakeButtonEvent(d, 1, 1, 0); T.XTestFakeButtonEvent(d, 1, 0, 0)
    else:
        for char in words[1]: key(ord(char))
    X.XSync(d, 0)
    E.XShmGetImage(d, root, ctypes.c_void_p(image), 0, 0, ctypes.c_ulong(0xFFFFFFFF))
    print((time.perf_counter() - begin) * 1000, flush=True)
"""

Action = tuple[str, Callable[[int], Awaitable[object]], Callable[[int], list[str]], Callable[[int], str]]


def actions(desktop: DockerDesktop) -> list[Action]:
    """Each action our way, as xdotool arguments, and as a line for the floor."""

    def place(n: int) -> Point:
        return Point(400 + n % 40 * 5, 300 + n % 7 * 9)

    return [
        (
            "click",
            lambda n: desktop.click("left", place(n)),
            lambda n: ["mousemove", *map(str, place(n)), "click", "1"],
            lambda n: f"click {place(n).x} {place(n).y}",
        ),
        ("key", lambda n: desktop.key("a"), lambda n: ["key", "a"], lambda n: "type a"),
        ("40 characters", lambda n: desktop.type_text(TEXT), lambda n: ["type", TEXT], lambda n: f"type {TEXT}"),
    ]


async def timed(count: int, once: Callable[[int], Awaitable[object]]) -> list[float]:
    """Milliseconds of each of ``count`` calls."""
    found = []
    for number in range(count):
        begin = time.perf_counter()
        await once(number)
        found.append((time.perf_counter() - begin) * 1000)
    return found


async def ask(process: Process, line: str) -> float:
    await process.write(line.encode() + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        piece = await process.read()
        assert piece is not None
        assert piece[0] == STDOUT, piece[1].decode()
        answer += piece[1]
    return float(answer)


def row(name: str, values: list[float], note: str = "") -> None:
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    print(f"  {name:28}{statistics.median(values):9.1f}{p95:9.1f}  {note}")


async def compare(desktop: DockerDesktop, repeat: int, reference: int, quiet: float) -> None:
    await launch(desktop, "xterm", "-T", "bench")
    await wait_for_window(desktop, "bench")
    floor = await desktop.machine.spawn(["python3", "-u", "-c", FLOOR])
    print(f"{'ms':30}{'p50':>9}{'p95':>9}")
    for name, ours, arguments, line in actions(desktop):

        async def our_way(number: int, act: Callable[[int], Awaitable[object]] = ours) -> None:
            await act(number)
            await desktop.screenshot()

        async def their_way(number: int, make: Callable[[int], list[str]] = arguments) -> None:
            await desktop.execute(["xdotool", *make(number)])
            await asyncio.sleep(2.0)
            await desktop.execute(["scrot", "-o", "/tmp/shot.png"])

        async def outside(number: int, make: Callable[[int], list[str]] = arguments) -> None:
            await desktop.execute(["xdotool", *make(number)])
            await desktop.screenshot()

        await our_way(0)
        mine = await timed(repeat, our_way)
        encoding = statistics.median([encode(desktop.frame()).encode_ms for _ in range(5)])
        theirs = await timed(reference, their_way)
        exec_way = await timed(reference, outside)
        least = [await ask(floor, line(number)) + encoding for number in range(repeat)]
        beyond = statistics.median(mine) - quiet
        print(name)
        row("ours", mine, f"{statistics.median(theirs) / statistics.median(mine):.0f} x faster than the reference")
        ratio = beyond / statistics.median(least)
        row("ours, without quiet period", [value - quiet for value in mine], f"{ratio:.1f} x floor")
        row("reference (xdotool, 2 s, scrot)", theirs)
        row("docker exec xdotool", exec_way)
        row("floor (XTest, shm) + encoding", least, f"encoding alone {encoding:.1f}")
    floor.abandon()


async def spinner(desktop: DockerDesktop, repeat: int) -> None:
    await launch_window(desktop, "spinner")
    await wait_for_window(desktop, "spinner")

    async def click(number: int) -> None:
        # Far from the last one: a click beside it would wait until the two are no double click.
        await desktop.click("left", Point(230 + 440 * (number % 2), 400))
        await desktop.screenshot()

    print("a turning wheel on the screen")
    row("click", await timed(repeat, click))


async def starting(settings: Settings, repeat: int) -> None:
    cold = DockerProvider(replace(settings, dockerfile="", pool_size=0), server_id="bench-cold")
    warm = DockerProvider(replace(settings, dockerfile="", pool_size=1), server_id="bench-warm")
    image = await cold.build()
    bare, limited, ours, pooled = [], [], [], []
    try:
        await (await cold.acquire("first", DesktopOptions())).close()
        for _ in range(repeat):
            bare.append(await bare_run(image))
            limited.append(await bare_run(image, limits(settings)))
            begin = time.perf_counter()
            desktop = await cold.acquire("bench", DesktopOptions())
            ours.append((time.perf_counter() - begin) * 1000)
            await desktop.close()
        await warm.start()
        for _ in range(repeat):
            while "1 ready" not in (await warm.health()).summary:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            begin = time.perf_counter()
            desktop = await warm.acquire("bench", DesktopOptions())
            pooled.append((time.perf_counter() - begin) * 1000)
            await desktop.close()
    finally:
        await cold.stop()
        await warm.stop()
    print("a desktop comes")
    row("docker run to first RFB byte", bare)
    row("the same with our limits", limited)
    ratios = [statistics.median(ours) / statistics.median(other) for other in (bare, limited)]
    row("cold", ours, f"{ratios[0]:.2f} x docker run, {ratios[1]:.2f} x docker run with our limits")
    row("warm", pooled)


def limits(settings: Settings) -> str:
    """The flags of `docker run` that a session's container is made with."""
    return (
        f"--network {OPEN} --init --read-only --cap-drop ALL --security-opt no-new-privileges --oom-score-adj 500 "
        f"--memory {settings.desktop_memory} --memory-swap {settings.desktop_memory} --cpus {settings.desktop_cpus} "
        f"--cpu-shares 512 --pids-limit {settings.desktop_pids} --shm-size {settings.desktop_tmp}"
    )


async def bare_run(image: str, flags: str = "") -> float:
    """`docker run` of the same image and the first byte of RFB, as a person would start it by hand."""
    begin = time.perf_counter()
    folders = "--tmpfs /run/desktop:uid=1000 --tmpfs /home/user:uid=1000 --tmpfs /tmp"
    command = f"echo AAAAAAAAAAA= | docker run -i --rm {flags} {folders} -p 127.0.0.1:5999:5900 {image}"
    process = await asyncio.create_subprocess_shell(
        command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    await process.stdout.readline()
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", 5999)
            if await reader.read(1):
                took = (time.perf_counter() - begin) * 1000
                writer.close()
                break
        except OSError:
            await asyncio.sleep(0.002)
    stop = await asyncio.create_subprocess_shell(
        "docker rm -f $(docker ps -q --filter publish=5999)", stdout=asyncio.subprocess.DEVNULL
    )
    await stop.wait()
    await process.wait()
    return took


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dockerfile = Path(folder, "Dockerfile")
        await asyncio.to_thread(dockerfile.write_text, DOCKERFILE)
        settings = replace(Settings(), pool_size=0, dockerfile=str(dockerfile))
        provider = DockerProvider(settings, server_id="bench-desktop")
        try:
            desktop = await provider.acquire("bench", DesktopOptions())
            await compare(desktop, options.repeat, options.reference, settings.settle_quiet * 1000)
            await spinner(desktop, options.repeat)
            await desktop.close()
        finally:
            await provider.stop()
        await starting(settings, options.starts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--reference", type=int, default=5)
    parser.add_argument("--starts", type=int, default=5)
    asyncio.run(main(parser.parse_args()))
