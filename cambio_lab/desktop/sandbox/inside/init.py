"""Process 1 of a sandbox: gives its powers up for good, then starts and watches the desktop's programs.

It runs inside bubblewrap, as root of a user namespace that maps nothing but the server's own user, with two
descriptors. ``CONTROL`` is a Unix socket whose path only the server can open. ``LIFELINE`` closes when this process
ends, and with it go the helpers outside (network, proxy).

Each connection carries frames: four bytes of length, then a JSON object. ``watch`` is told what happened so far and
from then on. A ``spawn`` brings three descriptors and is told how the program ended. All processes of the sandbox end
with this one, and this one ends with the X server, or when no server has watched it for ``lease`` seconds.

A desktop without walls is the same without bubblewrap: programs of the server's user, which this one ends itself.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from . import Started, confine, descendants, hide_from_debuggers, limit_memory, processes, run_program

TOKEN = "CAMBIO_LAB_PROCESS"
_TICK, _SHORT_TICK = 0.25, 0.05
"""Seconds between looks at the memory, and while more than half of the limit is held."""
_START_SECONDS = 15.0
"""The server has this long to connect for the first time."""
_MAX_FRAME = 64 * 1024 * 1024
_SPARE_PROCESSES = 32
"""Processes that only this one may start, so that a fork bomb does not keep the server from killing it."""
Frame = dict[str, Any]


class Connection:
    """One connection of the server; ``pid`` and ``token`` are those of the program that it spawned."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fds: list[int] = []
        self.pid = 0
        self.token = ""
        self._buffer = bytearray()

    def receive(self) -> list[Frame] | None:
        """Frames that are complete; ``None`` at the end."""
        data, fds, _, _ = socket.recv_fds(self.sock, 1 << 18, 3)
        self.fds += fds
        self._buffer += data
        if not data:
            return None
        frames = []
        while len(self._buffer) >= 4:
            size = int.from_bytes(self._buffer[:4], "big")
            if size > _MAX_FRAME:
                return None
            if len(self._buffer) < 4 + size:
                break
            frames.append(json.loads(self._buffer[4 : 4 + size]))
            del self._buffer[: 4 + size]
        return frames

    def send(self, frame: Frame) -> None:
        data = json.dumps(frame).encode()
        with suppress(OSError):  # the server went away; another one may come
            self.sock.sendall(len(data).to_bytes(4, "big") + data)

    def close(self) -> None:
        self.drop_descriptors()
        self.sock.close()

    def drop_descriptors(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds = []


class Init:
    """The event loop of process 1."""

    def __init__(self, config: Frame, control: socket.socket, started: Started) -> None:
        self._config = config
        self._control = control
        self._x, self._display, self._x_status, self._rules = started
        self._environment: dict[str, str] = config["environment"]
        self._selector = selectors.DefaultSelector()
        self._events: list[Frame] = []
        self._watchers: set[Connection] = set()
        self._programs: dict[int, Connection] = {}
        self._keymap = self._fifo = -1

    def connect(self, lifeline: socket.socket) -> None:
        """Give the helpers outside what they need, and give the powers up."""
        # Not the server: who connects sees the credentials of the process that listens, and may have to kill it.
        self._control.listen(64)
        lifeline.sendall(b"\n")
        if not self._config["walls"]:
            return
        if self._config["proxy_port"]:
            with socket.create_server(("127.0.0.1", self._config["proxy_port"]), backlog=64) as listener:
                socket.send_fds(lifeline, [b"\n"], [listener.fileno()])
        if self._rules:  # before there is a link, and before any program of the desktop's user
            if os.waitpid(self._rules, 0)[1] != 0:
                raise OSError("nft does not accept the packet rules")
            spaces = [os.open(f"/proc/self/ns/{name}", os.O_RDONLY) for name in ("user", "net")]
            socket.send_fds(lifeline, [b"\n"], spaces)
            for fd in spaces:
                os.close(fd)
        confine(self._config, self._config["processes"] + _SPARE_PROCESSES)
        hide_from_debuggers()

    def serve(self) -> None:
        """Serve connections until the end."""
        os.chdir(self._config["home"])
        wake_read, wake_write = socket.socketpair()
        wake_read.setblocking(False)
        wake_write.setblocking(False)
        signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if not self._config["walls"]:
            signal.signal(signal.SIGTERM, lambda *_: self._end())
        self._control.setblocking(False)
        self._register(self._control, lambda: self._add(Connection(self._control.accept()[0])))
        self._register(wake_read, lambda: wake_read.recv(4096))
        self._register(self._display, self._listening)
        checked = time.monotonic()
        watched = checked + _START_SECONDS
        tick = _TICK
        while True:
            for key, _ in self._selector.select(tick):
                key.data()
            self._reap()
            now = time.monotonic()
            if self._watchers:
                watched = now
            elif now - watched > self._config["lease"]:
                self._end()
            if self._config["watch_memory"] and now - checked >= tick:
                folders = [path for path, _, _ in self._config["folders"]]
                tick = _SHORT_TICK if limit_memory(self._config["memory"], folders, self._x_status) else _TICK
                checked = time.monotonic()

    def _register(self, source: Any, handler: Callable[[], Any]) -> None:
        self._selector.register(source, selectors.EVENT_READ, handler)

    def _tell(self, event: str) -> None:
        self._events.append({"event": event})
        for watcher in self._watchers:
            watcher.send(self._events[-1])

    def _end(self) -> None:
        """The kernel ends the rest with this process; without walls this one has to, and adopts what it orphans."""
        while not self._config["walls"] and (left := descendants(os.getpid())):
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                while os.waitpid(-1, 0):
                    pass
        os._exit(0)

    # What the start consists of
    def _listening(self) -> None:
        self._selector.unregister(self._display)
        display = os.read(self._display, 64).decode().strip()
        if not display:
            self._end()
        # The pipe stays open: the X server writes the end of the line separately, and ends itself if it cannot.
        self._environment["DISPLAY"] = f":{display}"
        self._tell("listening")
        if self._config["walls"]:
            self._ready()
        else:
            self._keymap = self._start(["xkbcomp", "-w0", self._config["keymap"], f":{display}"])

    def _ready(self) -> None:
        self._keymap = -1
        self._tell("ready")
        fifo = self._config["runtime"] + "/managed"
        os.mkfifo(fifo, 0o600)
        self._fifo = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
        self._register(self._fifo, self._managed)
        for argv in self._config["programs"]:
            self._start(argv)

    def _managed(self) -> None:
        self._selector.unregister(self._fifo)
        os.close(self._fifo)
        self._tell("managed")

    def _start(self, argv: Sequence[str]) -> int:
        pid = os.fork()
        if pid == 0:
            self._become(argv, self._environment, self._config["home"], quiet=True)
        return pid

    def _become(self, argv: Sequence[str], environment: Mapping[str, str], folder: str, *, quiet: bool = False) -> None:
        """In a child: run ``argv`` in a session of its own."""
        try:
            os.setsid()
            if self._config["walls"]:
                resource.setrlimit(resource.RLIMIT_NPROC, (self._config["processes"],) * 2)
            os.umask(0o022)
            with suppress(OSError):
                os.chdir(folder)
            run_program(self._config, argv, environment, quiet=quiet)
        finally:
            os._exit(126)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._x:
                self._end()
            if pid == self._keymap:
                self._ready()
            if (program := self._programs.pop(pid, None)) is not None:
                program.send({"code": -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)})

    # Connections
    def _add(self, connection: Connection) -> None:
        connection.sock.setblocking(False)
        self._register(connection.sock, lambda: self._heed(connection))

    def _heed(self, connection: Connection) -> None:
        try:
            frames = connection.receive()
        except (OSError, ValueError):
            frames = None
        if frames is None:
            self._selector.unregister(connection.sock)
            self._watchers.discard(connection)
            if self._programs.get(connection.pid) is connection:
                del self._programs[connection.pid]
            connection.close()
            return
        for frame in frames:
            {"watch": self._watch, "spawn": self._spawn, "kill": self._kill}[frame["op"]](connection, frame)

    def _watch(self, connection: Connection, frame: Frame) -> None:
        self._watchers.add(connection)
        for event in self._events:
            connection.send(event)

    def _spawn(self, connection: Connection, frame: Frame) -> None:
        environment = {**self._environment, TOKEN: frame["token"]}
        try:
            pid = os.fork()
        except OSError:
            os.write(connection.fds[2], b"the desktop has too many processes\n")
            connection.send({"code": 126})
        else:
            if pid == 0:
                for number, fd in enumerate(connection.fds):
                    os.dup2(fd, number)
                self._become(frame["argv"], environment, self._config["home"])
            connection.pid, connection.token = pid, frame["token"]
            self._programs[pid] = connection
        connection.drop_descriptors()

    def _kill(self, connection: Connection, frame: Frame) -> None:
        """Kill what descends from a program, wherever it hid since, except some process groups."""
        mark = f"{TOKEN}={connection.token}".encode()
        for pid in processes():
            try:
                with open(f"/proc/{pid}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
                with open(f"/proc/{pid}/environ", "rb") as file:
                    marked = mark in file.read().split(b"\0")
                if int(fields[2]) not in frame["spare"] and (marked or int(fields[3]) == connection.pid):
                    os.kill(pid, signal.SIGKILL)
            except (OSError, ValueError, IndexError):
                continue  # it ended meanwhile
        connection.send({"killed": True})


def main(config: Frame, started: Started) -> None:
    """Be process 1, after the walls were put up and the X server was started."""
    control, lifeline = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    init = Init(config, control, started)
    init.connect(lifeline)
    init.serve()
