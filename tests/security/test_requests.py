"""Requests that are malformed on purpose, sent as raw bytes: a client library would not send them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from cambio_lab.api import BadJson, parse
from tests.live_server import LiveServer

LENGTHS = {
    "superscript": b"\xb2",
    "negative": b"-1",
    "signed": b"+2",
    "underscore": b"1_0",
    "hexadecimal": b"0x2",
    "fraction": b"2.0",
    "words": b"two",
    "empty": b"",
    "different": b"2, 3",
    "thousands of digits": b"9" * 5000,
}


async def exchange(server: LiveServer, head: bytes, body: bytes = b"{}") -> tuple[int, bytes]:
    """Send one raw request; return the status and the body of the first answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        token = f"Authorization: token {server.token}\r\n".encode()
        kind = b"Content-Type: application/json\r\n"
        writer.write(head + b"Host: localhost\r\n" + token + kind + b"\r\n" + body)
        async with asyncio.timeout(10):
            answer = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in answer.split(b"\r\n")[1:] if b": " in line)
            content = await reader.readexactly(int(fields.get(b"content-length", b"0")))
        return int(answer.split()[1]), content
    finally:
        writer.close()


async def test_a_malformed_content_length_is_a_400_in_the_envelope(start_server: Callable[..., Any]) -> None:
    server: LiveServer = await start_server()
    for name, length in LENGTHS.items():
        status, content = await exchange(server, b"POST /sessions HTTP/1.1\r\nContent-Length: " + length + b"\r\n")
        assert status == 400, f"{name}: {status} {content!r}"
        body = json.loads(content)
        assert body["error"] == "Bad Request" and "Content-Length" in body["message"], name
    assert "Traceback" not in server.log()
    async with server.client() as client:
        assert (await client.get("/sessions")).status_code == 200


@pytest.mark.parametrize(
    "head",
    [
        b"POST /sessions HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n",
        b"POST /sessions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n",
        b"GET /sessions/%ff HTTP/1.1\r\n",
        b"GET /sessions?limit=%ff HTTP/1.1\r\n",
    ],
    ids=["both framings", "bad chunk size", "path not UTF-8", "query not UTF-8"],
)
async def test_bad_framing_and_encoding_are_a_400(start_server: Callable[..., Any], head: bytes) -> None:
    server: LiveServer = await start_server()
    status, content = await exchange(server, head, b"\xb2\r\n{}\r\n0\r\n\r\n" if b"POST" in head else b"")
    assert status == 400, content
    assert "Traceback" not in server.log()


def test_a_duplicate_key_behind_90000_others_is_found_in_one_pass() -> None:
    keys = ",".join(f'"{number}":0' for number in range(90_000))
    began = time.thread_time()
    with pytest.raises(BadJson, match="'89999' appears twice"):
        parse(f'{{{keys},"89999":0}}')
    assert time.thread_time() - began < 2  # minutes, when each key was counted among all
