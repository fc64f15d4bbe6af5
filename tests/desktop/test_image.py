"""The base image where no registry answers: a folder, as a tar file, becomes an image of the engine."""

from __future__ import annotations

import secrets
import tarfile
from collections.abc import AsyncIterator
from operator import methodcaller
from pathlib import Path

import pytest

from cambio_lab.desktop.docker.engine import Engine, EngineError
from cambio_lab.desktop.docker.image import image_exists, import_image

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
