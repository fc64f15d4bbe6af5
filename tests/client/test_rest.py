"""Which of address, certificate, token and proxy is wrong: through real sockets, TLS and proxies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import ssl
import subprocess
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cambio_lab.client.workbench import Workbench
from cambio_lab.errors import AccessDenied, CambioError, ServerError, ServerUnreachable

from .environment import find_server
from .small_server import TOKEN, SmallServer

Pump = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handle: Pump, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A TCP server on loopback; its port."""
    handlers: list[asyncio.Task[object]] = []

    async def owned(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        handlers.append(task)
        await handle(reader, writer)

    found = await asyncio.start_server(owned, "127.0.0.1", 0, ssl=tls)
    async with found:
        yield found.sockets[0].getsockname()[1]
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


def passes_on(server: SmallServer, drop: str = "") -> Pump:
    """A proxy in front of ``server``; header lines that begin with ``drop`` do not get through."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_server = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))

        async def requests() -> None:
            while piece := await reader.read(65_536):
                to_server.write(re.sub(rb"(?im)^%s[^\r]*\r\n" % drop.encode(), b"", piece) if drop else piece)
            to_server.close()

        task = asyncio.create_task(requests())
        try:
            while piece := await there.read(65_536):
                writer.write(piece)
        finally:
            task.cancel()
            await asyncio.wait([task])
            for end in (writer, to_server):
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    return pump


def answers(text: bytes) -> Pump:
    """Whatever is asked, this is the answer."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.write(text)
        await writer.drain()
        writer.close()

    return handle


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's own certificate, for the name ``localhost``, with its key in the same file."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    key = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(path), "-days", "2")
    about = ("-out", f"{path}.crt", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    subprocess.run([*key, *about], check=True, capture_output=True)
    with path.open("a") as file:
        file.write(Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
async def secure(server: SmallServer, certificate: Path) -> AsyncIterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with listening(passes_on(server), context) as port:
        yield port


async def test_a_jupyter_with_its_own_certificate(
    secure: int, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    async with Workbench(f"https://localhost:{secure}", TOKEN) as lab:
        session = await lab.create_session("TLS")
        assert (await session.send("over TLS")).text == "I typed over TLS."


async def test_an_unknown_certificate_is_named_on_rest_and_socket(secure: int) -> None:
    async with Workbench(f"https://localhost:{secure}", TOKEN) as lab:
        with pytest.raises(ServerUnreachable, match=r"certificate.*not trusted.*self-signed") as caught:
            await lab.sessions()
        assert "SSL_CERT_FILE" in caught.value.hint
        session = lab._adopt({"id": "0"})
        with pytest.raises(ServerUnreachable, match=r"certificate.*not trusted"):
            await session.send("hello")


async def test_a_certificate_for_another_name_is_named(
    secure: int, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    async with Workbench(f"https://127.0.0.1:{secure}", TOKEN) as lab:
        with pytest.raises(ServerUnreachable, match=r"certificate.*another name"):
            await lab.sessions()


def test_a_running_server_with_a_certificate_keeps_its_name(tmp_path: Path) -> None:
    known = {"pid": os.getpid(), "url": "https://localhost:8888/", "base_url": "/", "token": "t", "sock": ""}
    (tmp_path / "jpserver-1.json").write_text(json.dumps(known))
    assert find_server(environment={"JUPYTER_RUNTIME_DIR": str(tmp_path)}).url == "https://localhost:8888"


async def test_http_and_https_confused(server: SmallServer, secure: int) -> None:
    async with Workbench(server.url.replace("http:", "https:"), TOKEN) as lab:
        with pytest.raises(ServerUnreachable, match=r"does not speak TLS") as caught:
            await lab.sessions()
        assert "http://" in caught.value.hint
    async with Workbench(f"http://localhost:{secure}", TOKEN) as lab:
        with pytest.raises(ServerUnreachable, match=r"without an HTTP answer") as caught:
            await lab.sessions()
        assert "https://" in caught.value.hint


@pytest.mark.parametrize("header", ["upgrade:", "connection:"])
async def test_a_proxy_that_strips_the_upgrade(server: SmallServer, header: str) -> None:
    async with listening(passes_on(server, drop=header)) as port, Workbench(f"http://127.0.0.1:{port}", TOKEN) as lab:
        session = await lab.create_session("Stripped")
        with pytest.raises(ServerError, match=r"proxy.*does not let WebSockets through") as caught:
            await session.send("hello")
        assert "Upgrade" in caught.value.hint


async def test_a_proxy_whose_server_is_down() -> None:
    page = b"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 3\r\n\r\nbad"
    async with listening(answers(page)) as port, Workbench(f"http://127.0.0.1:{port}", TOKEN) as lab:
        with pytest.raises(ServerError, match=r"proxy in front of .* answered 502"):
            await lab.sessions()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 5\r\n\r\nlogin", "text/html"),
        (
            b"HTTP/1.1 302 Found\r\nlocation: /hub/login?next=%2F\r\ncontent-length: 0\r\n\r\n",
            "redirects to .*/hub/login",
        ),
    ],
)
async def test_a_login_page_is_not_the_api(answer: bytes, words: str) -> None:
    async with listening(answers(answer)) as port, Workbench(f"http://127.0.0.1:{port}", TOKEN) as lab:
        with pytest.raises(ServerError, match=rf"is not cambio_lab's API.*{words}"):
            await lab.sessions()


async def test_a_proxy_variable_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(answers(b"")) as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://ann:hush@127.0.0.1:{port}")
        async with Workbench("http://lab.example", TOKEN) as lab:
            with pytest.raises(ServerUnreachable) as caught:
                await lab.sessions()
    assert "127.0.0.1" in caught.value.describe() and "hush" not in caught.value.describe()


async def test_an_unknown_host_and_a_wrong_token_are_told_apart(server: SmallServer) -> None:
    async with Workbench("http://no-such-host.invalid", TOKEN) as lab:
        with pytest.raises(ServerUnreachable, match=r"host name 'no-such-host\.invalid' is not known"):
            await lab.sessions()
    async with Workbench(server.url, "wrong") as lab:
        with pytest.raises(AccessDenied, match=r"token"):
            await lab.sessions()


async def test_a_forgotten_await_says_so(lab: Workbench) -> None:
    session = lab.create_session("Later")
    with pytest.raises(AttributeError, match=r"workbench\.create_session\(\.\.\.\) was not awaited: write `await`"):
        await session.send("hello")
    with pytest.raises(AttributeError, match=r"was not awaited"):
        print(session.name)  # type: ignore[attr-defined]
    found = await session
    turn = found.send("hello")
    with pytest.raises(AttributeError, match=r"session\.send\(\.\.\.\) was not awaited"):
        print(turn.text)  # type: ignore[attr-defined]
    assert "not awaited" in repr(turn)
    with pytest.warns(RuntimeWarning, match=r"session\.send\(\.\.\.\) was not awaited"):
        del turn
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (await asyncio.create_task(found.send("as a task"))).done


async def test_a_notebook_sees_its_own_line_and_the_error_only(lab: Workbench) -> None:
    try:
        await lab.session("Missing")
    except CambioError as error:
        shown = "".join(error._render_traceback_())
    assert 'await lab.session("Missing")' in shown and "There is no session 'Missing'." in shown
    assert "lab.sessions() lists" in shown, "the hint"
    assert "portal" not in shown and len(shown.splitlines()) <= 4
