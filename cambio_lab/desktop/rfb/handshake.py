"""RFB 3.8 up to the point where both sides are authenticated (RFC 6143, sections 7.1 and 7.2)."""

from __future__ import annotations

import struct

from cambio_lab.errors import DesktopLost

from .stream import ByteStream
from .vncauth import answer

VERSION = b"RFB 003.008\n"
NONE, VNC_AUTH = 1, 2


async def authenticate(stream: ByteStream, password: str | None) -> None:
    """Agree on 3.8, pick VncAuth if a password is known (else None), and read the verdict.

    Raises :class:`~cambio_lab.errors.DesktopLost` with the server's reason when it refuses.
    """
    greeting = await stream.read(12)
    if not greeting.startswith(b"RFB "):
        raise DesktopLost("What listens on the desktop's port is not a VNC server.")
    stream.write(VERSION)
    count = (await stream.read(1))[0]
    if count == 0:
        raise DesktopLost(f"The VNC server refused: {await _reason(stream)}")
    offered = await stream.read(count)
    if password is not None and VNC_AUTH in offered:
        stream.write(bytes([VNC_AUTH]))
        stream.write(answer(await stream.read(16), password))
    elif NONE in offered:
        stream.write(bytes([NONE]))
    else:
        raise DesktopLost("The VNC server wants a way of authentication that we do not have.")
    (result,) = struct.unpack(">I", await stream.read(4))
    if result != 0:
        raise DesktopLost(f"The VNC server refused: {await _reason(stream)}")


async def _reason(stream: ByteStream) -> str:
    (length,) = struct.unpack(">I", await stream.read(4))
    return (await stream.read(min(length, 4096))).decode("utf-8", "replace")
