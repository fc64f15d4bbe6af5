"""How a desktop without a container is described: to bubblewrap, and to its process 1."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from cambio_lab.settings import Settings

from ..base import Size
from . import build_filter
from .network import Link

HOME = "/home/user"
_IMAGE = Path(__file__).resolve().parent.parent / "image"
"""The container's configuration files: both kinds of desktop look and behave alike."""
_LOADER = """
import sys, types
def load(name):
    module = sys.modules[name] = types.ModuleType(name)
    module.__package__ = "inside"
    exec(compile(SOURCES[name], name, "exec"), module.__dict__)
    return module
try:
    started = load("inside").build(CONFIG)
except OSError as error:
    sys.exit(str(error))
load("inside.init").main(CONFIG, started)
"""
_ETC = (
    *("alternatives", "bash.bashrc", "ca-certificates.conf", "debian_version", "fonts", "gtk-2.0", "gtk-3.0"),
    *("inputrc", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "locale.alias", "localtime", "mailcap", "mime.types"),
    *("nanorc", "os-release", "pki", "profile", "protocols", "python3", "python3.11", "python3.12", "python3.13"),
    *("services", "shells", "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone", "vim", "X11", "xdg"),
)
"""What programs read of the host's /etc. Not in it: users, hosts, keys, mounts, and the configuration of services."""
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/games"
_XKBCOMP = """#!/bin/sh
# In place of xkbcomp, for the X server alone: the keymap that it starts with is the desktop's, not the default one.
for out; do :; done
exec {share}/xkbcomp-real -w0 -xkm {share}/keymap.xkb "$out"
"""
_RUNTIME_BYTES = 16 * 1024**2
_INODES = 100_000


@dataclass(frozen=True)
class Places:
    """Where a desktop's programs find what is theirs."""

    home: str = HOME
    runtime: str = "/run/desktop"
    share: str = "/etc/cambio-lab"
    rfb: str = "/run/rfb/rfb"


def command(root: Path, rfb_folder: Path) -> list[str]:
    """The arguments of ``bwrap``; ``rfb_folder`` is where the X server puts its RFB socket."""
    return [
        *("bwrap", "--unshare-user", "--uid", "0", "--gid", "0", "--unshare-pid", "--as-pid-1", "--unshare-net"),
        *("--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "desktop", "--new-session"),
        # Of its own user namespace only; process 1 gives them up before it starts anything.
        *("--cap-add", "ALL", "--clearenv", *_system(root), "--proc", "/proc", "--dev", "/dev"),
        *("--dir", HOME, "--dir", "/tmp", "--dir", "/run/desktop", "--symlink", "/tmp", "/var/tmp"),
        *("--bind", str(rfb_folder), "/run/rfb", "--chdir", "/", *interpreter("/usr/bin/python3")),
    ]


def interpreter(python: str) -> tuple[str, ...]:
    """The arguments of process 1, before its two descriptors."""
    return python, "-I", "-S", "-"


def program(configuration: dict[str, Any]) -> bytes:
    """Process 1 with what it is told, as one script for its standard input."""
    return f"CONFIG = {configuration!r}\n".encode() + _sources()


@cache
def _sources() -> bytes:
    folder = Path(__file__).with_name("inside")
    files = {"inside": "__init__.py", "inside.init": "init.py"}
    sources = {name: (folder / file).read_text("utf-8") for name, file in files.items()}
    return f"SOURCES = {sources!r}\n{_LOADER}".encode()


def _system(root: Path) -> list[str]:
    """The programs below ``root`` and the part of its configuration that they need, read-only."""
    arguments = ["--ro-bind", str(root / "usr"), "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = root / name
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), f"/{name}"]
        elif path.is_dir():
            arguments += ["--ro-bind", str(path), f"/{name}"]
    for name in (*(f"etc/{name}" for name in _ETC), "var/cache/fontconfig"):
        if (root / name).exists():
            arguments += ["--ro-bind", str(root / name), f"/{name}"]
    return arguments


def common(settings: Settings, places: Places, root: Path = Path("/")) -> dict[str, Any]:
    """What process 1 is told of any desktop, with or without walls."""
    found = partial(has_program, root)
    return {
        "walls": False,
        "files": _files(places.share),
        "home": places.home,
        "runtime": places.runtime,
        "environment": _environment(places, dbus=found("dbus-daemon")),
        "keymap": f"{places.share}/keymap.xkb",
        "programs": [argv for argv in _programs(places, gradient=found("hsetroot")) if found(argv[0])],
        "processes": settings.desktop_pids,
        "memory": settings.desktop_memory,
        "watch_memory": False,
    }


def walled(
    settings: Settings, size: Size, link: Link, root: Path, *, watch_memory: bool, lease: float
) -> dict[str, Any]:
    """What process 1 of a sandbox is told."""
    limit = settings.desktop_tmp
    told = common(settings, places := Places(), root)
    told["files"] |= _etc(link)
    told["environment"] |= link.environment
    return told | {
        "walls": True,
        "folders": [
            [HOME, limit, "0700"],
            ["/tmp", limit, "1777"],
            ["/dev/shm", limit, "1777"],
            [places.runtime, _RUNTIME_BYTES, "0700"],
        ],
        "inodes": _INODES,
        "filter": build_filter().hex(),
        "rules": link.rules,
        "proxy_port": link.proxy_port,
        "x": ["Xvnc", ":1", *x_server(size, places.rfb), "-AllowOverride="],
        "xkbcomp": f"{places.share}/xkbcomp",
        "real_xkbcomp": f"{places.share}/xkbcomp-real",
        "watch_memory": watch_memory,
        "lease": lease,
    }


def has_program(root: Path, name: str) -> bool:
    """Whether a program is installed below ``root``."""
    if root == Path("/"):
        return shutil.which(name) is not None
    # Of another system: a link there may lead to a file of this one, so that nothing is followed.
    folders = [""] if name.startswith("/") else _PATH.split(":")
    return any(os.path.lexists(f"{root}{folder}/{name}") for folder in folders)


def _environment(places: Places, *, dbus: bool) -> dict[str, str]:
    """Nothing of the server's own. The display is known when the X server runs."""
    variables = {
        "HOME": places.home,
        "PATH": _PATH,
        "LANG": "C.UTF-8",
        "SHELL": "/bin/bash",
        "USER": "user",
        "LOGNAME": "user",
        "XDG_RUNTIME_DIR": places.runtime,
        "XDG_CONFIG_DIRS": f"{places.share}/xdg:/etc/xdg",
        "XDG_DATA_DIRS": f"{places.share}/share:/usr/local/share:/usr/share",
        "XENVIRONMENT": f"{places.share}/Xresources",
        "MOZ_DISABLE_CONTENT_SANDBOX_NOTICE": "1",
        "NO_AT_BRIDGE": "1",
        "LIBGL_ALWAYS_SOFTWARE": "1",
    }
    if dbus:
        variables["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={places.runtime}/bus"
    return variables


def x_server(size: Size, rfb_socket: str) -> list[str]:
    """Arguments of an X server that listens on ``rfb_socket`` alone, for this user alone."""
    return [
        *("-geometry", str(size), "-depth", "24", "-nolisten", "tcp", "-rfbport", "-1", "-SecurityTypes", "None"),
        *("-rfbunixpath", rfb_socket, "-rfbunixmode", "0600", "-AlwaysShared", "-AcceptSetDesktopSize=1"),
        *("-FrameRate=60", "-CompareFB=1", "-SendPrimary=0", "-SetPrimary=0", "-MaxCutText=16777216"),
        *("-desktop", "cambio_lab", "-dpi", "96", "-br"),
    ]


def _programs(places: Places, *, gradient: bool) -> list[list[str]]:
    """The container's programs. The window manager says through a FIFO that it has the screen."""
    managed = f"sh -c 'echo >{shlex.quote(places.runtime + '/managed')}'"
    background = [["hsetroot", "-add", "#16324f", "-add", "#4a7ba6", "-gradient", "155"]] if gradient else []
    color = [] if gradient else ["2f5d86"]  # a black desktop looks broken
    return [
        ["openbox", "--config-file", f"{places.share}/xdg/openbox/rc.xml", "--startup", managed],
        ["dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address=unix:path={places.runtime}/bus"],
        ["xrdb", "-merge", f"{places.share}/Xresources"],
        *background,
        ["tint2"],
        ["python3", "-IS", f"{places.share}/clipboard-keeper", *color],
    ]


def _files(share: str) -> dict[str, str]:
    """The desktop's own configuration and scripts."""
    files = {
        f"{share}/xdg/gtk-3.0/settings.ini": _read("gtk-settings.ini"),
        f"{share}/clipboard-keeper": _read("clipboard-keeper"),
        f"{share}/keymap.xkb": _read("keymap.xkb"),
        f"{share}/Xresources": _read("Xresources"),
        f"{share}/xdg/openbox/rc.xml": _read("openbox/rc.xml"),
        f"{share}/xdg/openbox/menu.xml": _read("openbox/menu.xml"),
        f"{share}/xdg/tint2/tint2rc": _read("tint2rc"),
        f"{share}/xkbcomp": _XKBCOMP.format(share=share),
        f"{share}/xkbcomp-real": "",
    }
    for path in sorted((_IMAGE / "applications").iterdir()):
        files[f"{share}/share/applications/{path.name}"] = _read(f"applications/{path.name}")
    return files


def _etc(link: Link) -> dict[str, str]:
    """What a sandbox has in place of the machine's own /etc."""
    return {
        "/etc/passwd": "root:x:0:0::/:/usr/sbin/nologin\nuser:x:1000:1000::/home/user:/bin/bash\n",
        "/etc/group": "root:x:0:\nuser:x:1000:\n",
        "/etc/hosts": "127.0.0.1 localhost desktop\n::1 localhost\n",
        "/etc/hostname": "desktop\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
        "/etc/machine-id": "0" * 32 + "\n",
        "/etc/resolv.conf": f"nameserver {link.resolver}\n" if link.resolver else "",
        "/etc/chromium.d/cambio-lab": _read("chromium-flags"),
        "/etc/chromium/policies/managed/cambio-lab.json": _read("chromium-policies.json"),
        "/etc/firefox/policies/policies.json": _read("firefox-policies.json"),
        # Where Debian's Firefox looks, without the file that only its own folder may hold.
        "/etc/firefox-esr/cambio-lab.js": _read("firefox.cfg").replace("defaultPref(", "pref("),
    }


@cache
def _read(name: str) -> str:
    return (_IMAGE / name).read_text("utf-8")
