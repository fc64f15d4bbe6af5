"""The sandbox's walls, put up from inside while process 1 still has the powers to do so."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_REC, MS_PRIVATE, MS_RELATIME = 1024, 2048, 4096, 16384, 1 << 18, 1 << 21
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 4, 22, 24, 38, 47
MASKED = (
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/latency_stats",
)
_MAX_DESCRIPTORS = 1 << 20
_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> None:
    """Call a function of the C library; ``OSError`` unless it returns 0."""
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())


def make_read_only(path: str) -> None:
    """Keep the other flags: the kernel locks those that came with the mount."""
    kept = os.statvfs(path).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME)
    mount("none", path, "none", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_RELATIME | kept)


def prepare_files(config: Mapping[str, Any]) -> None:
    """Memory-backed folders of limited size, generated files, and nothing else to write to."""
    mount("none", "/", "none", MS_REC | MS_PRIVATE)
    for path, size, mode in config["folders"]:
        options = f"size={size},nr_inodes={config['inodes']},mode={mode}"
        mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, options)
    for path, text in config["files"].items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
    mount("/proc/sys", "/proc/sys", "none", MS_BIND | MS_REC)
    for path in ("/", "/dev", "/proc/sys"):
        make_read_only(path)
    for path in MASKED:
        if os.path.exists(path):
            mount("/dev/null", path, "none", MS_BIND)
    os.mkdir("/tmp/.X11-unix")
    os.chmod("/tmp/.X11-unix", 0o1777)


def start_rules(rules: str) -> int:
    """Begin to load packet rules of the sandbox's own network, which its user will not have the right to change."""
    read, write = os.pipe()
    os.write(write, rules.encode())
    os.close(write)
    pid = os.fork()
    if pid == 0:
        os.dup2(read, 0)
        os.execve("/usr/sbin/nft", ["nft", "-f", "-"], {"PATH": "/usr/sbin:/usr/bin"})
    os.close(read)
    return pid


def finish_rules(pid: int) -> None:
    """Wait until they are loaded; ``OSError`` if they are not."""
    if os.waitpid(pid, 0)[1] != 0:
        raise OSError("nft does not accept the packet rules")


def confine(config: Mapping[str, Any], processes: int) -> None:
    """Become an ordinary user of a user namespace of its own, without any capability, for ever."""
    call("unshare", CLONE_NEWUSER)
    for name, text in (("uid_map", "1000 0 1"), ("setgroups", "deny"), ("gid_map", "1000 0 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    _libc.prctl(PR_CAP_AMBIENT, 4, 0, 0, 0)
    for capability in range(64):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    call("capset", struct.pack("=II", 0x20080522, 0), bytes(24))
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    resource.setrlimit(resource.RLIMIT_DATA, (config["memory"], config["memory"]))
    code = bytes.fromhex(config["filter"])
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    call("prctl", PR_SET_SECCOMP, 2, ctypes.c_char_p(program), 0, 0)


def hide_from_debuggers() -> None:
    """Let no process of the sandbox read or write this one's memory or descriptors through /proc."""
    call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)


def start_x(config: Mapping[str, Any]) -> tuple[int, int]:
    """Start the X server, the only process that ever sees the folder of the RFB socket.

    Returns its process number and the pipe into which it writes its display number when it listens.
    """
    apart_read, apart_write = os.pipe()
    display_read, display_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            call("unshare", CLONE_NEWNS)
            os.write(apart_write, b"x")
            confine(config, config["processes"])
            os.setsid()
            os.umask(0o077)
            os.dup2(display_write, 3)
            os.set_inheritable(3, True)
            run_program([*config["x"], "-displayfd", "3"], config["environment"], quiet=True, descriptors=4)
        finally:
            os._exit(70)
    os.close(apart_write)
    os.close(display_write)
    os.read(apart_read, 1)
    os.close(apart_read)
    call("umount2", b"/run/rfb", MNT_DETACH)
    return pid, display_read


def run_program(
    argv: Sequence[str], environment: Mapping[str, str], *, quiet: bool = False, descriptors: int = 3
) -> NoReturn:
    """Replace this process, a child of process 1, by ``argv``; ``quiet``: without the three streams.

    It gets the first ``descriptors`` and no others: those of process 1 would let it speak in the server's name.
    """
    if quiet:
        nothing = os.open("/dev/null", os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
    os.closerange(descriptors, _MAX_DESCRIPTORS)
    for restored in (signal.SIGPIPE, signal.SIGINT, signal.SIGCHLD, signal.SIGXFSZ):
        signal.signal(restored, signal.SIG_DFL)
    try:
        os.execvpe(argv[0], list(argv), dict(environment))
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)
