"""Files to and from a desktop's home, on both kinds of desktop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cambio_lab.desktop.connected import ConnectedDesktop
from cambio_lab.errors import ActionError

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def read(desktop: ConnectedDesktop, path: str) -> bytes:
    return b"".join([chunk async for chunk in desktop.read_file(path)])


async def test_round_trip(kept: ConnectedDesktop) -> None:
    data = os.urandom(3_000_000)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 100_000):
            yield data[start : start + 100_000]

    assert await kept.write_file("deep/er/data ü.bin", chunks()) == len(data)
    assert await read(kept, "deep/er/data ü.bin") == data
    assert await kept.write_file("deep/er/data ü.bin", b"") == 0
    assert await read(kept, f"{kept.machine.home}/deep/er/data ü.bin") == b""
    (entry,) = await kept.list_files("deep/er")
    assert (entry.path, entry.size, entry.is_dir) == ("deep/er/data ü.bin", 0, False)
    assert ("deep", True) in [(entry.path, entry.is_dir) for entry in await kept.list_files()]


@pytest.mark.parametrize("name", ["漢" * 84 + "abc", "é" * 127, "n" * 255])
async def test_a_name_may_be_as_long_as_the_disk_allows(kept: ConnectedDesktop, name: str) -> None:
    assert await kept.write_file(f"long/{name}", b"x") == 1
    assert await read(kept, f"long/{name}") == b"x"


@pytest.mark.parametrize("path", ["new/", "new/.", "new/sub/", "."])
async def test_a_folders_path_is_not_written_as_a_file(kept: ConnectedDesktop, path: str) -> None:
    with pytest.raises(ActionError, match="folder's path"):
        await kept.write_file(path, b"x")
    assert "new" not in [entry.path for entry in await kept.list_files()]


@pytest.mark.parametrize(("change", "whole"), [("head -c 9999 /dev/zero >> changing", True), (": > changing", False)])
async def test_a_file_that_changes_while_it_is_read(kept: ConnectedDesktop, change: str, whole: bool) -> None:
    await kept.execute(["truncate", "-s", "50000000", "changing"])
    content = kept.read_file("changing")
    got = len(await anext(content))
    assert (await kept.execute(["sh", "-c", change]))[0] == 0
    with nullcontext() if whole else pytest.raises(ActionError, match="broke off"):
        async for piece in content:
            got += len(piece)
    assert (got == 50_000_000) is whole


async def test_a_slow_reader_holds_up_nobody_and_gets_all(kept: ConnectedDesktop) -> None:
    """3.5 MB: the helper has sent all of it when the engine's buffers are full."""
    await kept.execute(["truncate", "-s", "3500000", "slow"])
    content = kept.read_file("slow")
    got = len(await anext(content))
    await asyncio.sleep(0.5)
    assert await kept.execute(["echo", "hi"], timeout=5) == (0, b"hi\n", b"")
    async for piece in content:
        got += len(piece)
    assert got == 3_500_000


@pytest.mark.parametrize(
    "path",
    ["../../etc/passwd", "/etc/passwd", "link", "folder/passwd", "deep/../../../etc/passwd", "/proc/self/environ"],
)
async def test_no_path_leads_out(kept: ConnectedDesktop, path: str) -> None:
    await kept.execute(["sh", "-c", "mkdir deep; ln -s /etc/passwd link; ln -s /etc folder"])
    with pytest.raises(ActionError, match="outside"):
        await read(kept, path)
    with pytest.raises(ActionError, match="outside"):
        await kept.write_file(path, b"x")


async def test_links_inside_home_work(kept: ConnectedDesktop) -> None:
    await kept.write_file("real/file", b"content")
    await kept.execute(["ln", "-s", "real", "alias"])
    assert await read(kept, "alias/file") == b"content"


async def test_what_is_no_file_is_refused(kept: ConnectedDesktop) -> None:
    await kept.execute(["sh", "-c", "mkdir place; mkfifo pipe"])
    for path, why in (("place", "regular"), ("pipe", "regular"), ("absent", "no such file")):
        with pytest.raises(ActionError, match=why):
            await read(kept, path)
    with pytest.raises(ActionError, match="folder of this name"):
        await kept.write_file("place", b"x")
    with pytest.raises(ActionError, match="NUL"):
        await kept.write_file("a\0b", b"x")


async def test_a_large_file_is_refused_before_it_is_sent(kept: ConnectedDesktop) -> None:
    await kept.execute(["mkdir", "-p", "place"])
    async with asyncio.timeout(10):
        with pytest.raises(ActionError, match="folder of this name"):
            await kept.write_file("place", b"\0" * 60_000_000)


async def test_a_folder_of_odd_names_and_times_is_listed(kept: ConnectedDesktop) -> None:
    make = r"mkdir odd; cd odd; touch $'bad\xffname'; touch -d @999999999999 far; touch -d @-62135596801 old"
    assert (await kept.execute(["bash", "-c", make]))[0] == 0
    found = {entry.path: entry.modified for entry in await kept.list_files("odd")}
    assert set(found) == {"odd/bad\N{REPLACEMENT CHARACTER}name", "odd/far", "odd/old"}
    years = {name: datetime.fromtimestamp(seconds, UTC).year for name, seconds in found.items()}
    assert years["odd/far"] > 2400 and years["odd/old"] < 1902  # the disk may have bounds of its own


async def test_files_that_come_and_go_do_not_fail_a_listing(kept: ConnectedDesktop) -> None:
    churn = """import os, time
for i in range(2000): open(f"churn/f{i}", "w").close()
end = time.time() + 2
while time.time() < end:
    for i in range(300): open(f"churn/z{i}", "w").close()
    for i in range(300): os.unlink(f"churn/z{i}")"""
    await kept.execute(["mkdir", "-p", "churn"])
    churning = asyncio.create_task(kept.execute(["python3", "-c", churn]))
    while not churning.done():
        await kept.list_files("churn")
    assert (await churning)[0] == 0 and len(await kept.list_files("churn")) == 2000


async def endless() -> AsyncIterator[bytes]:
    """3 MB and then silence, as from a client that is slow or gone."""
    for _ in range(50):
        yield b"\0" * 65536
    await asyncio.sleep(3600)


async def test_an_upload_that_is_given_up_leaves_nothing(kept: ConnectedDesktop) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await kept.write_file("given up", endless())
    assert not [entry for entry in await kept.list_files() if entry.path.endswith((".part", "up"))]


@pytest.mark.asyncio(loop_scope="function")
async def test_a_full_disk_is_said_at_once_and_leaves_nothing(docker_desktop: ConnectedDesktop) -> None:
    fill = "fallocate -l $(($(df --output=avail -B1 . | tail -1) - 1000000)) filler"
    assert (await docker_desktop.execute(["sh", "-c", fill]))[0] == 0
    async with asyncio.timeout(10):
        with pytest.raises(ActionError, match="no space left"):
            await docker_desktop.write_file("much", endless())
    assert not [entry for entry in await docker_desktop.list_files() if entry.path.endswith((".part", "much"))]


@pytest.mark.asyncio(loop_scope="function")
async def test_too_large_a_file_leaves_nothing_behind(local_desktop: ConnectedDesktop) -> None:
    local_desktop.settings = replace(local_desktop.settings, max_file_bytes=100_000)
    await local_desktop.write_file("kept", b"old")
    with pytest.raises(ActionError, match="At most 100000"):
        await local_desktop.write_file("kept", b"x" * 200_000)
    await local_desktop.execute(["sh", "-c", "sleep 0.3; head -c 200000 /dev/zero > big"])
    with pytest.raises(ActionError, match="at most 100000"):
        await read(local_desktop, "big")
    assert await read(local_desktop, "kept") == b"old"
    assert not [entry for entry in await local_desktop.list_files() if entry.path.endswith(".part")]


async def shell(desktop: ConnectedDesktop, command: str) -> str:
    code, out, err = await desktop.execute(["bash", "-c", command])
    assert code == 0, err
    return out.decode()


@pytest.mark.parametrize("mode", ["755", "600", "640", "444", "4711", "1777"])
async def test_a_replaced_file_keeps_its_mode(kept: ConnectedDesktop, mode: str) -> None:
    await shell(kept, f"rm -f tool; echo old > tool; chmod {mode} tool")
    writable = (await kept.execute(["test", "-w", "tool"]))[0] == 0  # root may write to a read-only file
    if writable:
        await kept.write_file("tool", b"new\n")
    else:
        with pytest.raises(ActionError, match="read-only"):
            await kept.write_file("tool", b"new\n")
    assert await shell(kept, "stat -c %a tool; cat tool") == f"{mode}\n{'new' if writable else 'old'}\n"


async def test_a_new_file_has_the_mode_that_programs_give(kept: ConnectedDesktop) -> None:
    await kept.write_file("fresh", b"x")
    assert await shell(kept, "touch other; stat -c %a fresh other | uniq | wc -l") == "1\n"


async def test_links_stay_links(kept: ConnectedDesktop) -> None:
    await shell(kept, "rm -f a b c; echo old > a; ln a b; ln -s a c")
    await kept.write_file("b", b"hard\n")
    assert await shell(kept, "cat a; stat -c %h a") == "hard\n2\n"
    await kept.write_file("c", b"soft\n")
    assert await shell(kept, "cat a b; readlink c; ls -A | grep -c part || true") == "soft\nsoft\na\n0\n"


async def test_a_tilde_is_the_home(kept: ConnectedDesktop) -> None:
    await kept.write_file("~/tilde/note.txt", b"x")
    assert await read(kept, "tilde/note.txt") == b"x"
    assert await read(kept, "~/tilde/note.txt") == b"x"
    assert [entry.path for entry in await kept.list_files("~/tilde")] == ["tilde/note.txt"]
    assert await shell(kept, "ls -A | grep -c '~' || true") == "0\n"
