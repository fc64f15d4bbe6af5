"""VNC's password scheme: DES with each key byte's bits reversed. Eight characters count, no more."""

from __future__ import annotations

import secrets
import string

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
