"""What the desktop's user can do to the X server and its supervisor, which serve that user's screen: nothing."""

from __future__ import annotations

import asyncio
import io
import secrets
import tarfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from cambio_lab.desktop import make_provider
from cambio_lab.desktop.connected import ConnectedDesktop
from cambio_lab.desktop.docker.image import image_tag
from cambio_lab.desktop.provider import DesktopOptions
from cambio_lab.settings import Settings
from tests.live_server import LiveServer

HOSTILE = Path(__file__).with_name("hostile_rfb.py")

# Each line says what was reached; nothing may be.
ATTACK = r"""
for pid in $(pgrep -u xvnc); do
  for signal in KILL STOP TERM SEGV; do kill -$signal $pid && echo "sent $signal to $pid"; done
  head -c1 /proc/$pid/environ && echo "read the environment of $pid"
  head -c1 /proc/$pid/mem && echo "read the memory of $pid"
  ls /proc/$pid/fd && echo "listed the files of $pid"
done
cat /run/xvnc/password && echo "read the password"
ls /run/xvnc && echo "listed the folder of the password"
mv /run/xvnc /run/x && echo "moved the folder of the password"
rm -f /tmp/.X11-unix/X1 && echo "removed the socket of X"
mv /tmp/.X11-unix /tmp/x && echo "moved the socket of X"
vncconfig -set AcceptPointerEvents=0
[ "$(vncconfig -get AcceptPointerEvents)" = 1 ] || echo "turned the pointer off"
vncconfig -set SecurityTypes=None
[ "$(vncconfig -get SecurityTypes)" = VncAuth ] || echo "turned the password off"
python3 - <<'EOF' && echo "took the port"
import socket
for address in "0.0.0.0", "127.0.0.1":
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.bind((address, 5900))
EOF
python3 - <<'EOF' && echo "traced it"
import ctypes, subprocess, sys
libc = ctypes.CDLL(None)
pids = subprocess.run(["pgrep", "-u", "xvnc"], capture_output=True, text=True, check=True).stdout.split()
sys.exit(all(libc.ptrace(16, int(pid), None, None) for pid in pids))
EOF
pgrep -u xvnc -x Xvnc >xvnc.pid
"""

VIDEO = """
import os, tkinter
root = tkinter.Tk()
root.attributes("-fullscreen", True)
size = root.winfo_screenwidth(), root.winfo_screenheight()
noise = [tkinter.PhotoImage(data=b"P6 %d %d 255 " % size + os.urandom(3 * size[0] * size[1])) for _ in range(6)]
label = tkinter.Label(root, borderwidth=0)
label.pack()
count = 0
def paint():
    global count
    label["image"] = noise[count % len(noise)]
    count += 1
    root.title(f"video {count}")
    root.after_idle(root.after, 1, paint)
paint()
root.mainloop()
"""


@pytest.fixture
async def desktop(docker_host: str) -> AsyncIterator[ConnectedDesktop]:
    provider = await make_provider(Settings(pool_size=0), server_id=f"test-{secrets.token_hex(4)}", kind="docker")
    found = await provider.acquire("test", DesktopOptions())
    assert isinstance(found, ConnectedDesktop)
    yield found
    await provider.stop()


async def test_the_shell_reaches_neither_xvnc_nor_its_password(desktop: ConnectedDesktop) -> None:
    result = await desktop.run_command(ATTACK, 60)
    print(result.stderr)
    assert result.stdout == ""
    assert (await desktop.execute(["cat", "xvnc.pid"]))[1].strip().isdigit(), "the attack looked for the real Xvnc"
    assert (await desktop.screenshot()).width == 1280
    await desktop.key("shift")
    assert desktop._connection.reconnects == 0


@pytest.mark.slow
async def test_video_that_fills_the_screen_is_no_attack(desktop: ConnectedDesktop) -> None:
    await desktop.write_file("video.py", VIDEO.encode())
    await desktop.execute(["sh", "-c", "setsid python3 video.py >video.log 2>&1 </dev/null &"])
    lost = asyncio.create_task(desktop.lost())
    ends = time.monotonic() + 20
    screenshots = set()
    while time.monotonic() < ends:
        screenshots.add((await desktop.screenshot()).sha256)
        await asyncio.wait([lost], timeout=0.2)
        assert not lost.done(), lost.result()
    lost.cancel()
    assert len(screenshots) >= 5, (await desktop.execute(["cat", "video.log"]))[1]
    assert desktop._connection.reconnects == 0


@pytest.fixture
def hostile_image(docker_host: str) -> Iterator[str]:
    """The desktop's image with :mod:`.hostile_rfb` in place of Xvnc; ``ATTACK`` is its build argument."""
    client = docker.APIClient(base_url=docker_host)
    tags: list[str] = []

    def build(attack: str) -> str:
        tag = f"cambio-lab-test-hostile:{attack.replace('_', '-')}-{secrets.token_hex(3)}"
        start = f"#!/bin/sh\nread -r _\nexec python3 /hostile_rfb.py 5900 {attack}\n"
        base = image_tag(Settings().image)
        recipe = f"FROM {base}\nCOPY hostile_rfb.py /\nCOPY start-desktop /usr/local/bin/start-desktop\n"
        files = {"hostile_rfb.py": HOSTILE.read_bytes(), "start-desktop": start.encode(), "Dockerfile": recipe.encode()}
        list(client.build(fileobj=_context(files), custom_context=True, tag=tag, rm=True, decode=True))
        tags.append(tag)
        return tag

    yield build  # type: ignore[misc]
    for tag in tags:
        client.remove_image(tag, force=True)
    client.close()


def _context(files: dict[str, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize("attack", ["full_screen_floods", "clipboard_bombs", "fences"])
async def test_sigterm_ends_the_server_while_a_desktop_attacks(attack: str, hostile_image: Any, tmp_path: Path) -> None:
    server = LiveServer("--no-token", data_dir=tmp_path, desktop="docker", env={"CAMBIO_LAB_POOL_SIZE": "0"})
    image = await asyncio.to_thread(hostile_image, attack)
    await server.start()
    try:
        async with server.client() as client:
            answer = await client.post("/sessions", json={"config": {"image": image}})
            print(answer.status_code, answer.text[:300])
            assert answer.status_code in (200, 503)
            began = time.monotonic()
            assert (await client.get("/health")).status_code in (200, 503)
            assert time.monotonic() - began < 1
        began = time.monotonic()
        await server.stop(10)
        print(f"{attack}: ended after {time.monotonic() - began:.1f} s")
    finally:
        await server.stop()
