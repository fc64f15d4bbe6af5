"""Which server a kernel takes for its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cambio_lab.errors import ConfigurationError

from .environment import find_server


def running(directory: Path, pid: int, port: int, **more: Any) -> None:
    server = {"pid": pid, "port": port, "url": f"http://localhost:{port}/", "base_url": "/", "token": f"token-{port}"}
    (directory / f"jpserver-{pid}.json").write_text(json.dumps({**server, "sock": "", "hostname": "localhost", **more}))


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"JUPYTER_RUNTIME_DIR": str(tmp_path)}


@pytest.fixture
def other_pid() -> int:
    """A live process that is not ours: our parent."""
    return os.getppid()


def test_arguments_come_first(tmp_path: Path, environment: dict[str, str]) -> None:
    running(tmp_path, os.getpid(), 8888)
    found = find_server(
        "http://example.org/base/", "secret", environment={**environment, "CAMBIO_LAB_URL": "http://no"}
    )
    assert (found.url, found.token, found.found_by) == ("http://example.org/base", "secret", "arguments")
    assert found.base_path == "/base/" and found.ws_url == "ws://example.org/base"


def test_environment_variables(environment: dict[str, str]) -> None:
    given = {**environment, "CAMBIO_LAB_URL": "https://lab.example/u/", "CAMBIO_LAB_TOKEN": "t1"}
    found = find_server(environment=given)
    assert (found.url, found.token) == ("https://lab.example/u", "t1")
    assert not found.parent and "t1" not in repr(found)


def test_a_token_in_the_address_is_taken_out_of_it(environment: dict[str, str]) -> None:
    found = find_server("http://127.0.0.1:8888/lab?token=abc", environment=environment)
    assert found.token == "abc" and "abc" not in found.url


def test_a_running_server_lends_its_token_to_its_address(tmp_path: Path, environment: dict[str, str]) -> None:
    running(tmp_path, os.getpid(), 8888)
    found = find_server("http://127.0.0.1:8888", environment=environment)
    assert found.token == "token-8888"


def test_jupyterhub(environment: dict[str, str]) -> None:
    hub = {
        "JUPYTERHUB_SERVICE_URL": "http://0.0.0.0:45678/user/ana/",
        "JUPYTERHUB_SERVICE_PREFIX": "/user/ana/",
        "JUPYTERHUB_API_TOKEN": "hub-token",
    }
    found = find_server(environment={**environment, **hub})
    assert (found.url, found.token, found.base_path) == ("http://127.0.0.1:45678/user/ana", "hub-token", "/user/ana/")


def test_the_server_that_started_the_kernel(tmp_path: Path, environment: dict[str, str], other_pid: int) -> None:
    running(tmp_path, os.getpid(), 8888)
    running(tmp_path, other_pid, 8890, base_url="/b/", url="http://localhost:8890/b/")
    found = find_server(environment={**environment, "JPY_PARENT_PID": str(other_pid)})
    assert (found.url, found.token, found.parent) == ("http://127.0.0.1:8890/b", "token-8890", True)


def test_the_only_running_server(tmp_path: Path, environment: dict[str, str]) -> None:
    running(tmp_path, os.getpid(), 8888)
    found = find_server(environment={**environment, "JPY_PARENT_PID": "1"})
    assert (found.url, found.parent) == ("http://127.0.0.1:8888", False)


def test_dead_servers_and_broken_files_do_not_count(tmp_path: Path, environment: dict[str, str]) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    running(tmp_path, int(gone.stdout), 8889)
    (tmp_path / "jpserver-77.json").write_text("{half")
    running(tmp_path, os.getpid(), 8888)
    assert find_server(environment=environment).url == "http://127.0.0.1:8888"


def test_none_says_what_to_set(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="No Jupyter server") as caught:
        find_server(environment=environment)
    assert "CAMBIO_LAB_URL" in caught.value.hint and "cambio-lab serve" in caught.value.hint


def test_several_are_named_without_their_tokens(tmp_path: Path, environment: dict[str, str], other_pid: int) -> None:
    running(tmp_path, os.getpid(), 8888)
    running(tmp_path, other_pid, 8890)
    with pytest.raises(ConfigurationError) as caught:
        find_server(environment=environment)
    assert "http://127.0.0.1:8888" in caught.value.message and "http://127.0.0.1:8890" in caught.value.message
    assert "token-8" not in caught.value.describe()


@pytest.mark.parametrize("url", ["ftp://x/", "http://", "http:///path?token=hush"])
def test_an_impossible_address_is_refused_without_its_token(url: str, environment: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_server(url, environment=environment)
    assert "hush" not in caught.value.describe()
