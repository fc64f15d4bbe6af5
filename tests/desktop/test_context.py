"""Docker contexts: the engine that is used is the one that the ``docker`` command would use."""

from __future__ import annotations

import hashlib
import json
import subprocess
import uuid
from pathlib import Path

import pytest

from cambio_lab.desktop import make_provider, probe_engine
from cambio_lab.desktop.docker import DEFAULT_HOST, find_endpoint
from cambio_lab.errors import ConfigurationError
from cambio_lab.experiments.site import _root as engine_folder
from cambio_lab.settings import Settings


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty configuration of the CLI, which nothing in the environment overrides."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


def add_context(config: Path, name: str, host: str, *, current: bool = False, skip: bool = False) -> str:
    identity = hashlib.sha256(name.encode()).hexdigest()
    folder = config / "contexts" / "meta" / identity
    folder.mkdir(parents=True)
    meta = {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": skip}}}
    (folder / "meta.json").write_text(json.dumps(meta))
    if current:
        (config / "config.json").write_text(json.dumps({"currentContext": name}))
    return identity


@pytest.mark.parametrize("by_variable", [False, True])
async def test_auto_uses_the_engine_of_a_context(
    docker_host: str, config: Path, by_variable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_context(config, "colima", docker_host, current=not by_variable)
    if by_variable:
        monkeypatch.setenv("DOCKER_CONTEXT", "colima")
    assert docker_host in (await probe_engine()).summary
    provider = await make_provider(Settings(pool_size=0), server_id=uuid.uuid4().hex, kind="auto")
    try:
        assert provider.name == "docker"
        assert (await provider.health()).up
    finally:
        await provider.stop()


def test_the_order_is_that_of_the_command(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_endpoint().host == DEFAULT_HOST
    add_context(config, "current", "unix:///current.sock", current=True)
    add_context(config, "named", "tcp://named:2375")
    assert find_endpoint().host == "unix:///current.sock"
    monkeypatch.setenv("DOCKER_CONTEXT", "named")
    assert find_endpoint().host == "tcp://named:2375"
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert find_endpoint().host == DEFAULT_HOST
    monkeypatch.setenv("DOCKER_HOST", "unix:///host.sock")
    assert find_endpoint().host == "unix:///host.sock"


@pytest.mark.parametrize("skip", [False, True])
def test_certificates_of_a_context_are_used(config: Path, skip: bool) -> None:
    identity = add_context(config, "far", "tcp://far:2376", current=True, skip=skip)
    assert not find_endpoint().secure
    folder = config / "contexts" / "tls" / identity / "docker"
    folder.mkdir(parents=True)
    endpoint = find_endpoint()
    assert (endpoint.secure, endpoint.certificates, endpoint.verify) == (True, folder, not skip)


async def test_an_unknown_context_is_a_clear_error(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "absent")
    with pytest.raises(ConfigurationError, match="context 'absent' is unknown") as caught:
        await make_provider(Settings(), server_id=uuid.uuid4().hex, kind="auto")
    assert "docker context" in caught.value.hint
    health = await probe_engine()
    assert not health.up
    assert "absent" in health.summary


@pytest.mark.parametrize("text", ["{", "[]", '{"currentContext": 3}'])
def test_a_broken_configuration_is_a_clear_error(config: Path, text: str) -> None:
    (config / "config.json").write_text(text)
    with pytest.raises(ConfigurationError, match=r"config\.json"):
        find_endpoint()


def test_the_script_finds_the_engine_of_a_context(docker_host: str, config: Path) -> None:
    script = ["scripts/engine", "host"]
    add_context(config, "colima", docker_host, current=True)
    assert subprocess.run(script, capture_output=True, text=True).stdout.strip() == docker_host
    (config / "config.json").write_text(json.dumps({"currentContext": "dead"}))
    add_context(config, "dead", "unix:///nowhere.sock")
    found = subprocess.run(script, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (1, ""), "the engine that was named is the only candidate"


def test_workers_on_different_engines_share_no_folder(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_context(config, "one", "tcp://one:2375", current=True)
    add_context(config, "other", "tcp://other:2375")
    first = engine_folder("experiment")
    monkeypatch.setenv("DOCKER_CONTEXT", "other")
    assert engine_folder("experiment") != first
    monkeypatch.delenv("DOCKER_CONTEXT")
    monkeypatch.setenv("DOCKER_HOST", "tcp://one:2375")
    assert engine_folder("experiment") == first
