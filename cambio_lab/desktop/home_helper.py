"""Runs inside the desktop (``python3 -I -S -c``): reads, writes and lists files without leaving the allowed folders.

Nothing of ours can be imported here. Arguments: verb, home, roots joined by ``:``, path. Answers one JSON line on
standard output. ``read`` sends the content after it: ``size`` bytes, or fewer if the file shrank. ``write`` answers
twice: that it is ready, then how it went. Between the two it takes chunks with a four-byte length; a chunk of length 0
commits, and without it nothing changes.
"""

import json
import os
import stat
import sys
from contextlib import suppress

MOST_ENTRIES, MOST_BYTES = 10_000, 1_000_000
"""What a listing tells at most; it says so when there is more."""
EARLIEST, LATEST = -62135596800, 253402300799
"""The years 1 to 9999, in seconds since 1970: a file may say that it is older or newer, a calendar does not."""


class Refused(Exception):
    pass


def resolve(home: str, roots: list[str], path: str) -> str:
    """The real path, which must lie in home (relative paths) or one of the roots; links are followed first."""
    if path == "~" or path.startswith("~/"):
        path = path[1:].lstrip("/") or "."
    absolute = path.startswith("/")
    allowed = [os.path.realpath(root) for root in (roots if absolute else [home])]
    real = os.path.realpath(path if absolute else os.path.join(home, path))
    if not any(real == root or real.startswith(root.rstrip("/") + "/") for root in allowed):
        raise Refused("the path leads outside the desktop's home")
    return real


def open_parent(real: str, create: bool) -> tuple[int, str]:
    """An open folder above the last name, walked without following links: what was checked is what is opened."""
    parts = [part for part in real.split("/") if part]
    folder = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    for part in parts[:-1]:
        try:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:
            if not create:
                raise
            os.mkdir(part, 0o755, dir_fd=folder)
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
        os.close(folder)
        folder = below
    return folder, parts[-1] if parts else "."


def answer(**fields: object) -> None:
    sys.stdout.buffer.write(json.dumps(fields, ensure_ascii=False).encode() + b"\n")
    sys.stdout.buffer.flush()


def read(real: str) -> None:
    folder, name = open_parent(real, False)
    # O_NONBLOCK: opening a pipe must not hang before we see that it is one.
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        raise Refused("not a regular file")
    answer(size=status.st_size)
    left = status.st_size  # what the file gains meanwhile is not sent; what it loses is missed on the other side
    with suppress(OSError):  # an answer would be taken for content now
        while left and (data := os.read(file, min(left, 1 << 18))):
            sys.stdout.buffer.write(data)
            left -= len(data)
        sys.stdout.buffer.flush()
    if left:
        raise SystemExit("the file shrank or cannot be read")  # leaves at once: the end of the output tells it


def exactly(count: int) -> bytes:
    data = sys.stdin.buffer.read(count)
    if len(data) != count:
        raise Refused("the upload was cut off")
    return data


def write(real: str) -> None:
    folder, name = open_parent(real, True)
    if name in (".", "..") or os.path.isdir(real):
        raise Refused("there is a folder of this name")
    before = existing(name, folder)
    temporary = f".{os.urandom(6).hex()}.part"  # not made from the name, which may have as many bytes as a name can
    # 0600 until it has the mode of the file that it replaces, which may be a private one.
    file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    try:
        answer(ready=True)
        total = receive(file)
        if before is not None and (before.st_nlink > 1 or before.st_uid != os.getuid()):
            overwrite(file, name, folder)  # a new file would not be the one that other names or its owner have
        else:
            os.fchmod(file, 0o666 & ~umask() if before is None else stat.S_IMODE(before.st_mode))
            if before is not None and before.st_gid != os.fstat(file).st_gid:
                with suppress(PermissionError):
                    os.fchown(file, -1, before.st_gid)
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            temporary = ""
    finally:
        os.close(file)
        if temporary:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
    answer(size=total)


def existing(name: str, folder: int) -> os.stat_result | None:
    """The file that will be replaced, if there is one; refused when it may not be written."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise Refused("not a regular file")
    if not os.access(name, os.W_OK, dir_fd=folder, effective_ids=True):
        raise Refused("the file is read-only")
    return status


def umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def overwrite(source: int, name: str, folder: int) -> None:
    """Copy ``source`` into the existing file, which keeps its inode, owner and links."""
    file = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_TRUNC, dir_fd=folder)
    try:
        os.lseek(source, 0, os.SEEK_SET)
        while data := os.read(source, 1 << 18):
            while data:
                data = data[os.write(file, data) :]
    finally:
        os.close(file)


def receive(file: int) -> int:
    """Write what comes until the chunk that commits; how many bytes that were."""
    total = 0
    while length := int.from_bytes(exactly(4), "big"):
        data = exactly(length)
        total += length
        while data:
            data = data[os.write(file, data) :]
    return total


def drain() -> None:
    """Stay until standard input ends, which says that all was received.

    A Docker Engine passes no answer on while it cannot get rid of the input. And once a program has ended, it waits a
    few seconds for a slow reader, in which no other program in the container is seen to end, and drops the rest.
    """
    while sys.stdin.buffer.read(1 << 16):
        pass


def entries(real: str, home: str) -> None:
    folder, name = open_parent(real, False)
    listing = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
    base = os.path.realpath(home).rstrip("/") + "/"
    found: list[list[object]] = []
    room = MOST_BYTES
    names = sorted(os.listdir(listing))
    for entry in names[:MOST_ENTRIES]:
        path = real.rstrip("/") + "/" + entry
        path = shown(path[len(base) :] if path.startswith(base) else path)
        room -= len(json.dumps(path, ensure_ascii=False).encode()) + 64
        if room < 0:
            break
        try:
            status = os.stat(entry, dir_fd=listing, follow_symlinks=False)
        except FileNotFoundError:  # gone since
            continue
        modified = min(max(status.st_mtime, EARLIEST), LATEST)
        found.append([path, status.st_size, modified, stat.S_ISDIR(status.st_mode)])
    answer(entries=found, truncated=room < 0 or len(names) > MOST_ENTRIES)


def shown(path: str) -> str:
    """The path with replacement characters for what is not UTF-8: JSON has no other bytes."""
    return os.fsencode(path).decode("utf-8", "replace")


def main() -> None:
    verb, home, roots, path = sys.argv[1:5]
    try:
        real = resolve(home, roots.split(":"), path)
        if verb == "read":
            read(real)
        elif verb == "write":
            write(real)
        else:
            entries(real, home)
    except Refused as error:
        answer(error=str(error))
    except OSError as error:
        answer(error=(error.strerror or "failed").lower())
    drain()


if __name__ == "__main__":
    main()
