"""RFB 3.8 up to the point where both sides are authenticated (RFC 6143, sections 7.1 and 7.2), to either side.

VNC's password scheme is DES with each key byte's bits reversed; only the first eight characters count.
"""

from __future__ import annotations

import secrets
import string
import struct

from cambio_lab.errors import DesktopLost

from .stream import ByteStream

VERSION = b"RFB 003.008\n"
NONE, VNC_AUTH = 1, 2
LONGEST_TEXT = 4096
"""Bytes of a reason or a name that a server may send."""

_FILE_KEY = bytes([23, 82, 107, 6, 35, 78, 88, 7])
"""The fixed key under which ``vncpasswd`` files are obfuscated (it hides nothing, it is a format)."""


def new_password() -> str:
    """Eight random letters and digits: all that VncAuth can use (47 bits)."""
    alphabet = string.ascii_letters + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(8))


def answer(challenge: bytes, password: str) -> bytes:
    """The 16-byte answer to a server's 16-byte ``challenge``."""
    return _des(password.encode("latin-1")[:8].ljust(8, b"\0"), challenge)


def obfuscate(password: str) -> bytes:
    """The eight bytes of a ``vncpasswd`` file."""
    return _des(_FILE_KEY, password.encode("latin-1")[:8].ljust(8, b"\0"))


def reveal(obfuscated: bytes) -> str:
    """The password in the eight bytes of a ``vncpasswd`` file."""
    from Crypto.Cipher import DES

    plain: bytes = DES.new(_reverse_bits(_FILE_KEY), DES.MODE_ECB).decrypt(obfuscated[:8])
    return plain.rstrip(b"\0").decode("latin-1")


def load() -> None:
    """Import what answering a challenge needs: 25 ms, for a thread."""
    import Crypto.Cipher.DES  # noqa: F401


def _reverse_bits(key: bytes) -> bytes:
    return bytes(int(f"{byte:08b}"[::-1], 2) for byte in key)


def _des(key: bytes, data: bytes) -> bytes:
    from Crypto.Cipher import DES  # imported on first use: a third of this package's import time

    # The protocol fixes cipher and mode; the password is random and the port is on loopback.
    encrypted: bytes = DES.new(_reverse_bits(key), DES.MODE_ECB).encrypt(data)
    return encrypted


async def authenticate(stream: ByteStream, password: str | None) -> None:
    """Agree on 3.8, answer VncAuth if a password is known (else None), and read the result.

    Raises :class:`~cambio_lab.errors.DesktopLost` with the server's reason when it refuses. The caller bounds the time.
    """
    if not (await stream.read(12)).startswith(b"RFB "):
        raise DesktopLost("What listens on the desktop's port is not a VNC server.")
    stream.write(VERSION)
    offered = await stream.read((await stream.read(1))[0])
    if not offered:
        raise DesktopLost(f"The VNC server refused: {await read_text(stream)}")
    if password and VNC_AUTH in offered:
        stream.write(bytes([VNC_AUTH]))
        stream.write(answer(await stream.read(16), password))
    elif NONE in offered:
        stream.write(bytes([NONE]))
    elif VNC_AUTH in offered:
        raise DesktopLost("VNC authentication is required but no password is set.")
    else:
        raise DesktopLost(f"Unsupported VNC security types {sorted(set(offered))}.")
    (result,) = struct.unpack(">I", await stream.read(4))
    if result != 0:
        raise DesktopLost(f"The VNC server refused the session's password: {await read_text(stream)}")


async def read_text(stream: ByteStream) -> str:
    """Read a length and so many bytes of text. :class:`~cambio_lab.errors.DesktopLost` when it is too long."""
    (length,) = struct.unpack(">I", await stream.read(4))
    if length > LONGEST_TEXT:
        raise DesktopLost(f"The VNC server sent a text of {length} bytes.")
    return (await stream.read(length)).decode("utf-8", "replace")


class Greeting:
    """Answer a viewer in place of the desktop: RFB 3.8, no authentication, accepted.

    Send :attr:`first`, then :meth:`feed` the viewer's bytes; when :attr:`done`, the rest belongs to the desktop.
    """

    first = VERSION

    def __init__(self) -> None:
        self.done = False
        self._received = bytearray()
        self._agreed = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return what the viewer and what the desktop gets. ``ValueError`` when the viewer does not speak RFB 3.8."""
        if self.done:
            return b"", data
        self._received += data
        reply = b""
        if not self._agreed and len(self._received) >= len(VERSION):
            if not self._received.startswith(VERSION):
                raise ValueError("the viewer does not speak RFB 3.8")
            del self._received[: len(VERSION)]
            self._agreed, reply = True, bytes([1, NONE])
        if self._agreed and self._received:
            if self._received.pop(0) != NONE:
                raise ValueError("the viewer chose a security type that was not offered")
            self.done = True
            rest = bytes(self._received)
            self._received.clear()
            return reply + bytes(4), rest
        return reply, b""
