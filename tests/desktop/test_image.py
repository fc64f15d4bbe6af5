"""Where the image comes from: a registry, a build, or a folder that becomes its base where no registry answers."""

from __future__ import annotations

import gzip
import hashlib
import json
import secrets
import tarfile
import threading
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from operator import methodcaller
from pathlib import Path
from typing import ClassVar

import pytest

from cambio_lab.desktop.docker.engine import Engine, EngineError
from cambio_lab.desktop.docker.image import build_image, context_digest, image_exists, import_image

NAME = "cambio-lab-test-base"


@pytest.fixture
async def engine(docker_host: str) -> AsyncIterator[Engine]:
    engine = Engine(docker_host)
    yield engine
    for image in await engine.call(lambda client: client.images(name=NAME)):
        await engine.call(methodcaller("remove_image", image["RepoTags"][0], force=True))
    engine.close()


async def test_a_folder_becomes_an_image(engine: Engine, tmp_path: Path) -> None:
    root, tag = tmp_path / "root", secrets.token_hex(4)
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "debian_version").write_text("12\n" * 100_000)  # more than one piece of any buffer
    with tarfile.open(tmp_path / "root.tar", "w") as archive:
        archive.add(root, ".")
    await import_image(engine, tmp_path / "root.tar", NAME, tag)
    assert await image_exists(engine, f"{NAME}:{tag}")


async def test_what_is_no_archive_is_refused(engine: Engine, tmp_path: Path) -> None:
    archive = tmp_path / "root.tar"
    archive.write_bytes(b"nothing" * 1000)
    with pytest.raises(EngineError, match="tar"):
        await import_image(engine, archive, NAME, secrets.token_hex(4))


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Registry(BaseHTTPRequestHandler):
    """Serves one image of one empty layer, under any name and each tag in ``tags``, as registries do."""

    tags: ClassVar[set[str]] = set()
    layer = gzip.compress(tar := b"\0" * 10240)
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [digest(tar)]}}
    ).encode()
    parts: ClassVar[list[dict[str, object]]] = [
        {"mediaType": f"application/vnd.docker.{kind}", "size": len(data), "digest": digest(data)}
        for kind, data in (("container.image.v1+json", config), ("image.rootfs.diff.tar.gzip", layer))
    ]
    manifest_type = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": parts[0],
            "layers": parts[1:],
        }
    ).encode()

    def do_GET(self) -> None:
        *_, kind, name = self.path.split("/")
        blobs = {digest(data): data for data in (self.layer, self.config)}
        if kind == "manifests" and name in {*self.tags, digest(self.manifest)}:
            self.answer(self.manifest, self.manifest_type)
        elif kind == "blobs" and name in blobs:
            self.answer(blobs[name], "application/octet-stream")
        elif self.path == "/v2/":
            self.answer(b"{}", "application/json")
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        for header, value in (("Content-Type", kind), ("Docker-Content-Digest", digest(body))):
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
async def repository(engine: Engine) -> AsyncIterator[str]:
    """A name in a registry on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        name = f"127.0.0.1:{server.server_port}/cambio-lab-test"
        yield name
        server.shutdown()
    for image in await engine.call(lambda client: client.images(name=name)):
        for tag in image["RepoTags"]:
            await engine.call(methodcaller("remove_image", tag, force=True))


async def test_an_image_that_a_registry_has_is_pulled(engine: Engine, repository: str) -> None:
    Registry.tags = {context_digest()}
    said: list[str] = []
    reference = await build_image(engine, repository, lambda progress: said.append(progress.text))
    assert said[-1] == f"{reference}: pulled"
    config = await engine.call(lambda client: client.inspect_image(reference))
    assert config["Id"] in {digest(Registry.config), digest(Registry.manifest)}


async def test_an_image_that_no_registry_has_is_built(engine: Engine, repository: str) -> None:
    await build_image(engine, "cambio-lab-desktop")  # so that its steps are remembered
    Registry.tags = set()
    said: list[str] = []
    reference = await build_image(engine, repository, lambda progress: said.append(progress.text))
    assert any("no registry to pull it from" in line for line in said)
    assert said[-1] == f"built {reference}"


async def test_a_build_has_the_proxies_of_the_environment(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    lines = ["ARG BASE", "FROM $BASE", f'RUN test "$HTTPS_PROXY" = http://proxy.example:3128 # {secrets.token_hex(4)}']
    (tmp_path / "Dockerfile").write_text("\n".join(lines))
    reference = await build_image(engine, "cambio-lab-desktop", dockerfile=tmp_path / "Dockerfile")
    history = json.dumps(await engine.call(lambda client: client.history(reference)))
    await engine.call(lambda client: client.remove_image(reference, force=True))
    assert "proxy.example:3128 #" in history and "HTTPS_PROXY=http" not in history
