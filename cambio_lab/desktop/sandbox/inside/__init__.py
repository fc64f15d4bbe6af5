"""The sandbox's walls, put up from inside while process 1 still has the powers to do so; X server; memory limit.

What is in this folder runs inside a sandbox, as its process 1: standard library only, Python 3.9 or newer, the host's
own. This file imports little: the X server is started before the rest of process 1 is loaded, which takes as long.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, NoReturn

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_REC, MS_PRIVATE, MS_RELATIME = 1024, 2048, 4096, 16384, 1 << 18, 1 << 21
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x10000000, 0x20000000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 22, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 36, 38, 47
SIGKILL, _SIGNALS = 9, 65
XKBCOMP = "/usr/bin/xkbcomp"
Started = tuple[int, int, int, int]
"""Process number of the X server where its end has to be watched, the pipe for its display number, its open status
(-1: not counted), and the process number of ``nft`` (0: no packet rules)."""
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


def build(config: Mapping[str, Any]) -> Started:
    """Put the walls up and start the X server.

    Within walls, what returns is process 1 of a PID namespace in which the X server does not exist: no program of the
    desktop can signal it. The process that was number 1 before waits for the end of either.
    """
    if not config["walls"]:
        write_files(config)
        call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        return *start_x(config), -1, 0
    mount("none", "/", "none", MS_REC | MS_PRIVATE)
    for path, size, mode in config["folders"]:
        options = f"size={size},nr_inodes={config['inodes']},mode={mode}"
        mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, options)
    write_files(config)
    os.mkdir("/tmp/.X11-unix")
    os.chmod("/tmp/.X11-unix", 0o1777)
    x, display = start_x(config)
    status = os.open(f"/proc/{x}/status", os.O_RDONLY)
    call("unshare", CLONE_NEWPID)
    if os.fork() != 0:
        confine(config, config["processes"])
        os.closerange(0, _MAX_DESCRIPTORS)
        os.wait()  # one of the two has ended, and the other ends with this process
        os._exit(0)
    call("unshare", CLONE_NEWNS)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    rules = start_rules(config["rules"]) if config["rules"] else 0
    close_files()
    return 0, display, status, rules


def write_files(config: Mapping[str, Any]) -> None:
    """Write the generated files; those that are scripts can be executed."""
    for path, text in config["files"].items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
        if text.startswith("#!"):
            os.chmod(path, 0o755)


def close_files() -> None:
    """Leave nothing else to write to, and hide what the kernel tells of the whole machine."""
    mount("/proc/sys", "/proc/sys", "none", MS_BIND | MS_REC)
    for path in ("/", "/dev", "/proc/sys"):
        # With the other flags: the kernel locks those that came with the mount.
        kept = os.statvfs(path).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME)
        mount("none", path, "none", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_RELATIME | kept)
    for path in MASKED:
        if os.path.exists(path):
            mount("/dev/null", path, "none", MS_BIND)


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
    """Start the X server; its process number, and the pipe into which it writes its display number when it listens.

    Within walls it is the only process that ever sees the folder of the RFB socket, and it finds another ``xkbcomp``,
    which compiles the desktop's keymap in place of the default one.
    """
    apart_read, apart_write = os.pipe()
    display_read, display_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if config["walls"]:
                call("unshare", CLONE_NEWNS)
                mount(XKBCOMP, config["real_xkbcomp"], "none", MS_BIND)
                mount(config["xkbcomp"], XKBCOMP, "none", MS_BIND)
                os.write(apart_write, b"x")
                close_files()
                confine(config, config["processes"])
            os.setsid()
            os.umask(0o077)
            os.dup2(display_write, 3)
            os.set_inheritable(3, True)
            run_program(config, [*config["x"], "-displayfd", "3"], config["environment"], quiet=True, descriptors=4)
        finally:
            os._exit(70)
    os.close(apart_write)
    os.close(display_write)
    if config["walls"]:
        os.read(apart_read, 1)
        call("umount2", b"/run/rfb", MNT_DETACH)
    os.close(apart_read)
    return pid, display_read


def run_program(
    config: Mapping[str, Any],
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    quiet: bool = False,
    descriptors: int = 3,
) -> NoReturn:
    """Replace this process, a child of process 1, by ``argv``; ``quiet``: without the three streams.

    It gets the first ``descriptors`` and no others: those of process 1 would let it speak in the server's name.
    """
    if quiet:
        nothing = os.open("/dev/null", os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
    os.closerange(descriptors, _MAX_DESCRIPTORS)
    for number in range(1, _SIGNALS):  # nohup and background jobs start a server with signals ignored
        _libc.signal(number, None)
    if not config["walls"]:
        _libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)  # within walls the kernel ends all with process 1
    try:
        os.execvpe(argv[0], list(argv), dict(environment))
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def processes() -> list[int]:
    """Every process that can be seen but this one: those of the sandbox, or of the machine where there are no walls."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def descendants(ancestor: int) -> list[int]:
    """The living children of ``ancestor``, and theirs."""
    children: dict[int, list[int]] = {}
    for pid in processes():
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except OSError:
            continue  # it ended meanwhile
        if state not in b"ZX":
            children.setdefault(int(parent), []).append(pid)
    found = children.get(ancestor, [])
    for pid in found:  # it grows meanwhile
        found += children.get(pid, [])
    return found


def limit_memory(limit: int, folders: Iterable[str], x_status: int) -> bool:
    """Kill the largest programs while all together hold more than ``limit`` bytes; folders in memory count, too.

    So does the X server, whose status ``x_status`` is: what it holds, it holds for programs. Called several times a
    second where no control group limits the sandbox.
    Returns whether more than half of the limit is held: then it is time to look more often.
    """
    with open("/proc/sysvipc/shm") as file:  # System V segments, which no process need have attached
        held = sum(int(line.split()[14]) for line in file.readlines()[1:])
    held += _sum(os.pread(x_status, 1 << 14, 0).splitlines(), (b"RssAnon:",))
    for path in folders:
        found = os.statvfs(path)
        held += (found.f_blocks - found.f_bfree) * found.f_frsize
    sizes = {pid: _bytes(pid, "status", (b"RssAnon:", b"RssShmem:")) for pid in processes()}
    total = held + sum(sizes.values())
    if total <= limit:
        return total > limit / 2
    # Memory that processes share was counted for each of them: ask for the proportional sizes, which takes longer.
    exact = {pid: _bytes(pid, "smaps_rollup", (b"Pss_Anon:", b"Pss_Shmem:")) for pid in sizes}
    excess = held + sum(exact.values()) - limit
    for pid in sorted(exact, key=lambda pid: exact[pid], reverse=True):
        if excess <= 0:
            break
        excess -= exact[pid]
        try:
            os.kill(pid, SIGKILL)
        except ProcessLookupError:
            continue
    return True


def _bytes(pid: int, name: str, fields: tuple[bytes, ...]) -> int:
    """The sum of the lines of a file of /proc that begin with one of ``fields``."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return _sum(file, fields)
    except (OSError, ValueError, IndexError):
        return 0  # it ended meanwhile


def _sum(lines: Iterable[bytes], fields: tuple[bytes, ...]) -> int:
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(fields))
