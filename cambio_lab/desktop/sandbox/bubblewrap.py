"""How a sandbox is described to bubblewrap, and the configuration that its process 1 gets."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

from cambio_lab.settings import Settings

from ..base import Size
from .network import Link
from .seccomp import build_filter

HOME = "/home/user"
_IMAGE = Path(__file__).resolve().parent.parent / "image"
"""The container's configuration files: both kinds of desktop look and behave alike."""
_INSIDE = ("walls", "memory", "init")
_LOADER = """
import sys, types
package = sys.modules["inside"] = types.ModuleType("inside")
package.__path__ = []
for name, source in SOURCES.items():
    module = sys.modules["inside." + name] = types.ModuleType("inside." + name)
    module.__package__ = "inside"
    exec(compile(source, name + ".py", "exec"), module.__dict__)
    setattr(package, name, module)
package.init.main()
"""
_ETC = (
    *("alternatives", "bash.bashrc", "ca-certificates.conf", "debian_version", "fonts", "gtk-2.0", "gtk-3.0"),
    *("inputrc", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "locale.alias", "localtime", "mailcap", "mime.types"),
    *("nanorc", "os-release", "pki", "profile", "protocols", "python3", "python3.11", "python3.12", "python3.13"),
    *("services", "shells", "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone", "vim", "X11", "xdg"),
)
"""What programs read of the host's /etc. Not in it: users, hosts, keys, mounts, and the configuration of services."""
_RUNTIME_BYTES = 16 * 1024**2
_INODES = 100_000
_SHARE = "/etc/cambio-lab"


def command(rfb_folder: Path, control: int, lifeline: int) -> list[str]:
    """The arguments of ``bwrap``; ``rfb_folder`` is where the X server puts its RFB socket."""
    return [
        *("bwrap", "--unshare-user", "--uid", "0", "--gid", "0", "--unshare-pid", "--as-pid-1", "--unshare-net"),
        *("--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "desktop", "--new-session"),
        # Of its own user namespace only; process 1 gives them up before it starts anything.
        *("--cap-add", "ALL", "--clearenv", *_system(), "--proc", "/proc", "--dev", "/dev"),
        *("--dir", HOME, "--dir", "/tmp", "--dir", "/run/desktop", "--symlink", "/tmp", "/var/tmp"),
        *("--bind", str(rfb_folder), "/run/rfb", "--chdir", "/"),
        *("/usr/bin/python3", "-I", "-S", "-", str(control), str(lifeline)),
    ]


@cache
def program() -> bytes:
    """Process 1, as one script for its standard input."""
    folder = Path(__file__).with_name("inside")
    sources = {name: (folder / f"{name}.py").read_text("utf-8") for name in _INSIDE}
    return f"SOURCES = {sources!r}\n{_LOADER}".encode()


def _system() -> list[str]:
    """The host's programs and the part of its configuration that they need, read-only."""
    arguments = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            arguments += ["--ro-bind", str(path), str(path)]
    for name in (*(f"/etc/{name}" for name in _ETC), "/var/cache/fontconfig"):
        if Path(name).exists():
            arguments += ["--ro-bind", name, name]
    return arguments


def configuration(settings: Settings, size: Size, link: Link, *, watch_memory: bool, lease: float) -> dict[str, Any]:
    """What process 1 is told."""
    limit = settings.desktop_tmp
    return {
        "folders": [
            [HOME, limit, "0700"],
            ["/tmp", limit, "1777"],
            ["/dev/shm", limit, "1777"],
            ["/run/desktop", _RUNTIME_BYTES, "0700"],
        ],
        "inodes": _INODES,
        "files": _files(link),
        "filter": build_filter().hex(),
        "rules": link.rules,
        "proxy_port": link.proxy_port,
        "environment": _environment() | link.environment,
        "x": ["Xvnc", ":1", *x_server(size, "/run/rfb/rfb"), "-AllowOverride="],
        "keymap": f"{_SHARE}/keymap.xkb",
        "programs": _programs(),
        "processes": settings.desktop_pids,
        "memory": settings.desktop_memory,
        "watch_memory": watch_memory,
        "lease": lease,
    }


def _environment() -> dict[str, str]:
    """Nothing of the server's own."""
    variables = {
        "HOME": HOME,
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/games",
        "LANG": "C.UTF-8",
        "SHELL": "/bin/bash",
        "USER": "user",
        "LOGNAME": "user",
        "DISPLAY": ":1",
        "XDG_RUNTIME_DIR": "/run/desktop",
        "XDG_CONFIG_DIRS": f"{_SHARE}/xdg:/etc/xdg",
        "XDG_DATA_DIRS": f"{_SHARE}/share:/usr/local/share:/usr/share",
        "XENVIRONMENT": f"{_SHARE}/Xresources",
        "MOZ_DISABLE_CONTENT_SANDBOX_NOTICE": "1",
        "NO_AT_BRIDGE": "1",
        "LIBGL_ALWAYS_SOFTWARE": "1",
    }
    if shutil.which("dbus-daemon"):
        variables["DBUS_SESSION_BUS_ADDRESS"] = "unix:path=/run/desktop/bus"
    return variables


def x_server(size: Size, rfb_socket: str) -> list[str]:
    """Arguments of an X server that listens on ``rfb_socket`` alone, for this user alone."""
    return [
        *("-geometry", str(size), "-depth", "24", "-nolisten", "tcp", "-rfbport", "-1", "-SecurityTypes", "None"),
        *("-rfbunixpath", rfb_socket, "-rfbunixmode", "0600", "-AlwaysShared", "-AcceptSetDesktopSize=1"),
        *("-FrameRate=60", "-CompareFB=1", "-SendPrimary=0", "-SetPrimary=0", "-MaxCutText=16777216"),
        *("-desktop", "cambio_lab", "-dpi", "96", "-br"),
    ]


def _programs() -> list[list[str]]:
    """The container's programs as far as this machine has them."""
    managed = "sh -c 'echo >/run/desktop/managed'"
    background = ["hsetroot", "-add", "#16324f", "-add", "#4a7ba6", "-gradient", "155"]
    found: list[list[str]] = [
        ["openbox", "--config-file", f"{_SHARE}/xdg/openbox/rc.xml", "--startup", managed],
        ["dbus-daemon", "--session", "--nofork", "--nopidfile", "--address=unix:path=/run/desktop/bus"],
        ["xrdb", "-merge", f"{_SHARE}/Xresources"],
        background if shutil.which("hsetroot") else ["xsetroot", "-solid", "#2f5d86"],
        ["tint2"],
        ["/usr/bin/python3", "-IS", f"{_SHARE}/clipboard-keeper"],
    ]
    return [argv for argv in found if shutil.which(argv[0])]


def _files(link: Link) -> dict[str, str]:
    """Files of the sandbox's own."""
    proxied = f"nameserver {link.resolver}\n" if link.resolver else ""
    return _fixed_files() | {"/etc/resolv.conf": proxied}


@cache
def _fixed_files() -> dict[str, str]:
    files = {
        "/etc/passwd": "root:x:0:0::/:/usr/sbin/nologin\nuser:x:1000:1000::/home/user:/bin/bash\n",
        "/etc/group": "root:x:0:\nuser:x:1000:\n",
        "/etc/hosts": "127.0.0.1 localhost desktop\n::1 localhost\n",
        "/etc/hostname": "desktop\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
        "/etc/machine-id": "0" * 32 + "\n",
        "/etc/chromium.d/cambio-lab": _read("chromium-flags"),
        "/etc/chromium/policies/managed/cambio-lab.json": _read("chromium-policies.json"),
        "/etc/firefox/policies/policies.json": _read("firefox-policies.json"),
        # Where Debian's Firefox looks, without the file that only its own folder may hold.
        "/etc/firefox-esr/cambio-lab.js": _read("firefox.cfg").replace("defaultPref(", "pref("),
        f"{_SHARE}/xdg/gtk-3.0/settings.ini": _read("gtk-settings.ini"),
        f"{_SHARE}/clipboard-keeper": _read("clipboard-keeper"),
        f"{_SHARE}/keymap.xkb": _read("keymap.xkb"),
        f"{_SHARE}/Xresources": _read("Xresources"),
        f"{_SHARE}/xdg/openbox/rc.xml": _read("openbox/rc.xml"),
        f"{_SHARE}/xdg/openbox/menu.xml": _read("openbox/menu.xml"),
        f"{_SHARE}/xdg/tint2/tint2rc": _read("tint2rc"),
    }
    for path in sorted((_IMAGE / "applications").iterdir()):
        files[f"{_SHARE}/share/applications/{path.name}"] = path.read_text("utf-8")
    return files


def _read(name: str) -> str:
    return (_IMAGE / name).read_text("utf-8")
