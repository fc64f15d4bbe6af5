"""An RFB server that a hostile program of the desktop could be: ``python hostile_rfb.py SOCKET ATTACK``.

``SOCKET`` is a path or a port. It greets every client like Xvnc, answers the first update request with one small
update, and then attacks.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator

WIDTH, HEIGHT = 1280, 800
UPDATE = struct.pack(">BxH4Hi4x", 0, 1, 0, 0, 1, 1, 0)
BOMB = zlib.compress(struct.pack(">I", 16 << 20) + bytes(16 << 20))


def update(*rects: bytes) -> bytes:
    return struct.pack(">BxH", 0, len(rects)) + b"".join(rects)


def rect(width: int, height: int, encoding: int, body: bytes = b"", x: int = 0, y: int = 0) -> bytes:
    return struct.pack(">4Hi", x, y, width, height, encoding) + body


def provided(data: bytes) -> bytes:
    return struct.pack(">BxxxiI", 3, -len(data) - 4, 1 << 28 | 1) + data


def forever(data: bytes, least: int = 65536) -> Callable[[], Iterator[bytes]]:
    block = data * max(1, least // len(data))

    def send() -> Iterator[bytes]:
        while True:
            yield block

    return send


def resizes() -> Iterator[bytes]:
    for number in range(1_000_000_000):
        yield update(rect(1000 + number % 1000, 1000, -308, b"\1" + bytes(19)))


def drip() -> Iterator[bytes]:
    yield struct.pack(">BxH", 0, 1)
    while True:
        time.sleep(0.05)
        yield b""


ATTACKS: dict[str, Callable[[], Iterator[bytes]]] = {
    "copy_rects": forever(update(*[rect(WIDTH, HEIGHT, 1, bytes(4))] * 60_000)),
    "small_copy_rects": forever(update(*[rect(9, 9, 1, bytes(4))] * 60_000)),
    "oversized_rectangle": forever(update(rect(65535, 65535, 0))),
    "full_screen_floods": forever(update(rect(WIDTH, HEIGHT, 0, bytes(WIDTH * HEIGHT * 4)))),
    "many_full_screens": forever(update(*[rect(WIDTH, HEIGHT, 0, bytes(WIDTH * HEIGHT * 4))] * 8)),
    "clipboard_bombs": forever(provided(BOMB)),
    "clipboard_announcements": forever(struct.pack(">BxxxiI", 3, -4, 1 << 27 | 1)),
    "clipboard_requests": forever(struct.pack(">BxxxiI", 3, -4, 1 << 25 | 1)),
    "endless_cut_text": forever(struct.pack(">Bxxxi", 3, 0x7FFFFFFF) + bytes(65536)),
    "zero_size_updates": forever(update(*[rect(0, 0, 0)] * 1000)),
    "empty_updates": forever(update()),
    "bells": forever(b"\2"),
    "fences": forever(struct.pack(">BxxxIB", 248, 1 << 31, 64) + bytes(64)),
    "colour_maps": forever(struct.pack(">BxHH", 1, 0, 65535) + bytes(6 * 65535)),
    "endless_names": forever(update(rect(0, 0, -307, struct.pack(">I", 1 << 30)))),
    "resizes": resizes,
    "drip": drip,
    "unknown": forever(b"\x77"),
}


def exactly(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        if not (piece := client.recv(count - len(data))):
            raise ConnectionError
        data += piece
    return data


def serve(client: socket.socket, attack: str) -> None:
    with contextlib.suppress(OSError), client:
        if attack == "endless_handshake":
            client.sendall(b"RFB 003.008\n\xff")
            while True:
                time.sleep(0.1)
                client.sendall(b"\1" if attack == "never" else b"")
        client.sendall(b"RFB 003.008\n\1\1")
        exactly(client, 13)
        client.sendall(bytes(4))
        exactly(client, 1)
        client.sendall(struct.pack(">HH4B3H3B3xI", WIDTH, HEIGHT, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0, 4) + b"evil")
        exactly(client, 20)
        time.sleep(0.1)
        client.sendall(UPDATE)
        for block in ATTACKS[attack]():
            client.sendall(block)


if __name__ == "__main__":
    if sys.argv[1].isdigit():
        listening = socket.create_server(("", int(sys.argv[1])))
        print("listening\nready", flush=True)  # as start-desktop says it
    else:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(sys.argv[1])
        listening.listen()
    while True:
        threading.Thread(target=serve, args=(listening.accept()[0], sys.argv[2]), daemon=True).start()
