"""Runs inside the desktop (``python3 -I -S -c``): one bash, given one command at a time.

Nothing of ours can be imported here. Bash reads its script from a FIFO, so the commands are the script: no loop, no
``eval``, no variable, function, trap, option or descriptor of ours is in the shell that the agent uses. Bash itself
keeps the script's descriptor out of the user's way. After each command one more line of script reports ``$?`` and
``PIPESTATUS`` from a subshell, to a pipe that is reached by its path; a second line restores both values.

Frames in: a type byte, four bytes of length, a payload. ``r``: run this command; ``k``: kill what the command started.
Frames out, the same shape. ``o`` and ``e``: output; ``d``: done, JSON with ``code`` and ``dropped`` (bytes that are not
sent); ``x``: bash has ended, JSON with ``code``.
"""

import contextlib
import json
import os
import re
import selectors
import shlex
import signal
import subprocess
import sys
import tempfile

LIMIT = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
"""Bytes of each stream that are sent for one command; the rest of a flood stays in the desktop."""
MOST_INPUT = 16 * 1024 * 1024
HEREDOC = re.compile(r"here-document at line \d+ delimited by end-of-file \(wanted `(.*)'\)")
QUIET = ">/dev/null 2>/dev/null"
"""Around our lines: with `set -T` a DEBUG trap prints in them, with `set -x` bash does."""
OURS = {"OLDPWD", "SHLVL", "_", "CAMBIO_LAB_PROCESS"}
"""Environment of this helper that a fresh bash does not have."""


def check(command: str) -> tuple[str, str, int]:
    """Return the command completed, and what bash says about its syntax with its status (0: it can run).

    An unterminated quote would swallow whatever comes next, and a syntax error would end the shell.
    """
    for _ in range(8):
        try:
            found = subprocess.run(
                ["bash", "--noprofile", "--norc", "-O", "extglob", "-n"],
                input=command.encode("utf-8", "surrogateescape"),
                capture_output=True,
                timeout=5,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
            )
        except (subprocess.TimeoutExpired, OSError):
            return command, "bash: the syntax of the command could not be checked\n", 2
        errors = found.stderr.decode("utf-8", "replace")
        if found.returncode:
            return command, errors, found.returncode
        missing = HEREDOC.findall(errors)
        if not missing:
            break
        command += "\n" + "\n".join(missing[:1]) + "\n"
    return command, "", 0


class Shell:
    def __init__(self) -> None:
        self.report_read, self.report_write = os.pipe()
        folder = tempfile.mkdtemp(prefix=".shell-")
        fifo = os.path.join(folder, "bash")  # bash names its script in error messages: "bash: line 1: ..."
        os.mkfifo(fifo, 0o600)
        self.bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "bash"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            process_group=0,
            env={name: value for name, value in os.environ.items() if name not in OURS},
        )
        self.script = os.open(fifo, os.O_WRONLY)
        os.unlink(fifo)
        os.rmdir(folder)
        self.report = f"/proc/{os.getpid()}/fd/{self.report_write}"
        assert self.bash.stdout is not None and self.bash.stderr is not None
        self.streams = {self.bash.stdout.fileno(): b"o", self.bash.stderr.fileno(): b"e"}
        for descriptor in (*self.streams, self.report_read, self.script):
            os.set_blocking(descriptor, False)
        self.queue = bytearray()
        self.lines: list[bytes] = []
        self.feed(f"builtin cd -- {shlex.quote(os.environ.get('HOME', '/'))}; unset OLDPWD; export OLDPWD\n")

    def feed(self, text: str) -> None:
        self.queue += text.encode("utf-8", "surrogateescape")

    def ask_status(self) -> None:
        """Feed the line that reports the status; its exit status is 0, so neither ``set -e`` nor a trap sees it."""
        line = f'(builtin printf "%s " "$?" "${{PIPESTATUS[@]}}" >|{self.report}) {QUIET} || (builtin :) {QUIET}\n'
        self.lines.append(line.encode())
        self.feed(line)

    def restore_status(self, code: int, pipe: list[int]) -> None:
        """Feed the line after which ``$?`` and ``PIPESTATUS`` are the command's again."""
        pipe = pipe if pipe and len(pipe) <= 64 else [code]
        line = " | ".join(f"(builtin exit {status}) {QUIET}" for status in pipe)
        natural = {pipe[-1], next((status for status in reversed(pipe) if status), 0)}
        if code not in natural and code in (0, 1):
            line = "! " + line
        elif code not in natural:
            line = f"(builtin exit {code}) {QUIET}"
        if code:  # the left side of && neither ends the shell under `set -e` nor runs the ERR trap
            line += f" && (builtin :) {QUIET}"
        self.lines.append(line.encode() + b"\n")
        self.feed(line + "\n")


def processes(session: int) -> dict[int, str]:
    """Return the processes of a session with their start times: a number alone may be used again."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    fields = file.read().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    found[int(name)] = fields[19]
    return found


class Helper:
    def __init__(self) -> None:
        self.shell = Shell()
        self.selector = selectors.DefaultSelector()
        self.ended = os.pidfd_open(self.shell.bash.pid)
        for descriptor in (*self.shell.streams, self.shell.report_read, self.ended, 0):
            self.selector.register(descriptor, selectors.EVENT_READ)
        self.writing = False
        self.running = False
        self.input = bytearray()
        self.statuses = bytearray()
        self.sent = {b"o": 0, b"e": 0}
        self.dropped = 0
        self.spare: dict[int, str] = {}

    def send(self, kind: bytes, payload: bytes) -> None:
        data = memoryview(kind + len(payload).to_bytes(4, "big") + payload)
        while data:
            data = data[os.write(1, data) :]

    def tell(self, kind: bytes, **fields: object) -> None:
        self.send(kind, json.dumps(fields).encode())

    def loop(self) -> None:
        while True:
            self.watch_script()
            for key, _ in self.selector.select():
                if key.fd == 0:
                    if not self.read_frames():
                        return
                elif key.fd in self.shell.streams:
                    self.read_stream(key.fd)
                elif key.fd == self.shell.report_read:
                    self.statuses += os.read(key.fd, 4096)
                elif key.fd == self.shell.script:
                    self.write_script()
            if self.running and b" " in self.statuses:
                self.finish()
            if self.shell.bash.poll() is not None:
                self.drain()
                self.tell(b"x", code=self.shell.bash.returncode, ran=self.running, dropped=self.dropped)
                return

    # The script

    def watch_script(self) -> None:
        if bool(self.shell.queue) != self.writing:
            self.writing = not self.writing
            if self.writing:
                self.selector.register(self.shell.script, selectors.EVENT_WRITE)
            else:
                self.selector.unregister(self.shell.script)

    def write_script(self) -> None:
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            del self.shell.queue[: os.write(self.shell.script, self.shell.queue[:65536])]

    def run(self, command: str) -> None:
        self.sent = {b"o": 0, b"e": 0}
        self.dropped = 0
        command, errors, status = check(command)
        self.statuses.clear()
        if status:
            self.shell.restore_status(status, [status])
            self.send(b"e", errors.encode("utf-8", "replace"))
            self.tell(b"d", code=status, dropped=0)
            return
        self.running = True
        # A backslash at the end would continue into the next line.
        self.shell.feed(command + ("\n\n" if command.endswith("\\") else "\n"))
        self.shell.ask_status()

    def finish(self) -> None:
        """The command is over: what it printed is in the pipes."""
        words = self.statuses.decode("ascii", "replace").split()
        self.statuses.clear()
        statuses = [int(word) for word in words if word.isdigit()] or [0]
        self.drain()
        self.running = False
        self.shell.restore_status(statuses[0], statuses[1:])
        self.tell(b"d", code=statuses[0], dropped=self.dropped)
        self.spare = processes(os.getsid(0))

    # Output

    def drain(self) -> None:
        for descriptor in self.shell.streams:
            while self.read_stream(descriptor):
                pass

    def read_stream(self, descriptor: int) -> bool:
        try:
            data = os.read(descriptor, 1 << 18)
        except BlockingIOError:
            return False
        if not data:
            with contextlib.suppress(KeyError):
                self.selector.unregister(descriptor)
            return False
        kind = self.shell.streams[descriptor]
        if kind == b"e":  # `set -v` prints every line that bash reads, ours too
            for line in self.shell.lines:
                data = data.replace(line, b"")
            del self.shell.lines[:-4]
        room = max(0, LIMIT - self.sent[kind]) if self.running else 0
        kept = data[:room]
        self.sent[kind] += len(kept)
        if self.running:
            self.dropped += len(data) - len(kept)
        if kept:
            self.send(kind, kept)
        return True

    # Requests

    def read_frames(self) -> bool:
        data = os.read(0, 1 << 16)
        if not data:
            self.kill({})
            return False
        self.input += data
        while len(self.input) >= 5:
            length = int.from_bytes(self.input[1:5], "big")
            if length > MOST_INPUT:
                return False
            if len(self.input) < 5 + length:
                break
            kind, payload = self.input[:1], bytes(self.input[5 : 5 + length])
            del self.input[: 5 + length]
            if kind == b"r":
                self.run(payload.decode("utf-8", "surrogateescape"))
            else:
                self.kill(self.spare)
        return True

    def kill(self, spare: dict[int, str]) -> None:
        """Kill bash and all that runs in this session, except this helper and ``spare``."""
        for _ in range(20):
            found = {
                pid
                for pid, started in processes(os.getsid(0)).items()
                if pid != os.getpid() and (spare.get(pid) != started or pid == self.shell.bash.pid)
            }
            if not found:
                return
            for pid in found:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            self.shell.bash.poll()


if __name__ == "__main__":
    if os.getsid(0) != os.getpid():
        with contextlib.suppress(OSError):
            os.setsid()
    Helper().loop()
