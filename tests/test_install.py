"""What a new machine meets: ``scripts/setup`` without apt-get or an engine, and the wheel in a clean environment."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = "bash cat cut curl date dirname docker env find git grep head id python3 sed sha256sum sort timeout tr uname"
SILENT = "unix:///nonexistent/docker.sock"


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH has the usual tools, but no apt-get, sudo, X server or window manager."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in TOOLS.split():
        if found := shutil.which(name):
            (programs / name).symlink_to(found)
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "DOCKER_HOST")}
    return {**kept, "PATH": str(programs)}


def _setup(purpose: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(ROOT / "scripts/setup"), purpose, "system_packages"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.docker
def test_run_beside_an_engine_needs_no_x_server(bare: dict[str, str], docker_host: str) -> None:
    done = _setup("run", {**bare, "DOCKER_HOST": docker_host})
    assert done.returncode == 0, done.stderr
    assert "desktops are containers" in done.stderr


def test_without_apt_get_setup_names_what_is_missing(bare: dict[str, str]) -> None:
    done = _setup("run", {**bare, "DOCKER_HOST": SILENT})
    assert done.returncode == 1
    assert "missing here:" in done.stderr
    assert "tigervnc-standalone-server" in done.stderr
    assert "no apt-get" in done.stderr


def test_elsewhere_than_on_linux_setup_asks_for_docker(bare: dict[str, str]) -> None:
    uname = Path(bare["PATH"]) / "uname"
    uname.unlink()
    uname.write_text("#!/bin/sh\necho Darwin\n", encoding="utf-8")
    uname.chmod(0o755)
    done = _setup("run", {**bare, "DOCKER_HOST": SILENT})
    assert done.returncode == 1
    assert "start Docker Desktop" in done.stderr


def test_the_front_end_sources_are_found_without_git(bare: dict[str, str], tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(ROOT / "scripts", archive / "scripts")
    (archive / "labextension/src").mkdir(parents=True)
    (archive / "labextension/src/index.ts").touch()
    (archive / "labextension/node_modules").mkdir()
    (archive / "labextension/node_modules/ignored.js").touch()
    command = ["bash", str(archive / "scripts/setup"), "run", "front_end_sources"]
    done = subprocess.run(command, env=bare, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["labextension/src/index.ts"], done.stderr


HIDDEN = ("apt", "dpkg", "sudo", "Xvnc", "Xtigervnc", "openbox", "bwrap", "xterm", "debootstrap", "node", "npm", "npx")


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder that another user can enter: pytest's own are this user's."""
    with tempfile.TemporaryDirectory(prefix="cambio-elsewhere-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "programs").mkdir()
        for program in Path("/usr/bin").iterdir():
            if not program.name.startswith(HIDDEN):
                (folder / "programs" / program.name).symlink_to(program)
        yield folder


@pytest.mark.slow
@pytest.mark.docker
@pytest.mark.timeout(1500)
def test_make_run_of_a_source_archive_by_an_ordinary_user_of_another_system(elsewhere: Path, docker_host: str) -> None:
    """As on macOS or Fedora beside an engine: no apt-get, X server, Node, root or .git; another venv is active."""
    source, home, active = (elsewhere / name for name in ("source", "home", "active"))
    source.mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", source], input=archive, check=True)
    home.mkdir()
    subprocess.run(["/usr/bin/python3", "-m", "venv", active], check=True)
    before = sorted(path.name for path in active.rglob("*"))
    socket = Path(docker_host.removeprefix("unix://"))
    options: dict[str, Any] = {}
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "65534:65534", source, home, active], check=True)
        options = {"user": 65534, "group": 65534, "extra_groups": [socket.stat().st_gid]}
    network = {name: value for name, value in os.environ.items() if re.search("_CERT|_CA_|CERT_|(?i:_proxy)", name)}
    environment = {
        **network,
        "PATH": f"{active}/bin:{elsewhere}/programs",
        "VIRTUAL_ENV": str(active),
        "PIP_USER": "1",
        "HOME": str(home),
        "DOCKER_HOST": docker_host,
    }
    log = elsewhere / "log"
    with log.open("wb") as file:
        make = subprocess.Popen(
            ["make", "run"], cwd=source, env=environment, stdout=file, stderr=file, start_new_session=True, **options
        )
    try:
        end = time.monotonic() + 1200
        while not (found := re.search(r"http://localhost:\d+/lab\S*\?token=(\w+)", log.read_text(errors="replace"))):
            assert make.poll() is None and time.monotonic() < end, log.read_text(errors="replace")[-3000:]
            time.sleep(0.5)
        base = found[0].partition("/lab")[0]
        headers = {"Authorization": f"token {found[1]}"}
        while (answer := httpx2.get(f"{base}/health")).status_code != 200:
            assert time.monotonic() < end, answer.text
            time.sleep(0.5)
        answer = httpx2.post(f"{base}/sessions", json={}, headers=headers, timeout=60).raise_for_status()
        session = httpx2.get(f"{base}/sessions/{answer.json()['id']}", headers=headers).json()
        assert session["container_id"]
    finally:
        if make.poll() is None:
            os.killpg(make.pid, signal.SIGTERM)
        make.wait(60)
        print(log.read_text(errors="replace")[-3000:])
    assert sorted(path.name for path in active.rglob("*")) == before


@pytest.mark.slow
def test_the_wheel_works_in_a_clean_environment(tmp_path: Path) -> None:
    """Needs neither Node nor apt: what they make is in the wheel."""

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == 0, done.stdout
        return re.sub(r"\x1b\[\d*m", "", done.stdout)

    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["CAMBIO_LAB_MODEL"] = "demo"
    run(sys.executable, "-m", "build", "--outdir", tmp_path / "dist", ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (archive,) = (tmp_path / "dist").glob("*.tar.gz")
    assert archive.stat().st_size > 100_000
    run(sys.executable, "-m", "venv", tmp_path / "clean")
    environment["PATH"] = f"{tmp_path / 'clean/bin'}:{environment['PATH']}"
    environment["JUPYTER_CONFIG_DIR"] = environment["JUPYTER_DATA_DIR"] = str(tmp_path / "jupyter")
    run("pip", "install", "-q", f"{wheel}[lab]")
    assert "cambio_lab enabled" in run("jupyter", "server", "extension", "list")
    assert re.search(r"cambio-lab v\S+ enabled OK", run("jupyter", "labextension", "list"))
    assert "cambio_lab" in run("python", "-c", "import cambio_lab; print(cambio_lab.Workbench.__module__)")
    assert "demo" in run("cambio-lab", "doctor")


def test_where_chromium_is_a_snap_setup_says_what_to_install(bare: dict[str, str], tmp_path: Path) -> None:
    """As on Ubuntu, whose apt knows ``chromium-browser``, a package that installs the snap."""
    programs = Path(bare["PATH"])
    asked = tmp_path / "asked"
    for name, script in {
        "id": "echo 0",
        "apt-get": f'echo "$@" >>{asked}',
        "apt-cache": '[ "$2" = chromium-browser ] && echo "Package: $2"',
    }.items():
        (programs / name).unlink(missing_ok=True)
        (programs / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    done = _setup("run", {**bare, "DOCKER_HOST": SILENT})
    assert done.returncode == 0, done.stderr
    assert "Chromium is a snap here" in done.stderr
    assert "openbox" in asked.read_text() and "chromium" not in asked.read_text()
