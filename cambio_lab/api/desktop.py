"""The desktop of a session: its screen now, its clipboard, and the files of its home.

Files are streamed: neither side of the server ever holds a whole one.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import mimetypes
from collections.abc import AsyncIterator
from urllib.parse import quote

from ..desktop.base import Desktop
from ..desktop.files import Listing
from ..errors import CambioError, InvalidRequest
from ..events import timestamp
from . import Refused, encode
from .rest import Rest

SMALLEST, LARGEST = 16, 4096
"""Pixels of a small screenshot's width."""
MAX_IMAGE = 20 * 1024**2
"""Bytes of an uploaded image."""
MOST_OUTPUT = 10 * 1024 * 1024
"""Bytes of each stream of a program."""
PIECES = 16
"""Pieces of a body (64 KB each) that may wait for the desktop."""


def outside(path: str) -> str | None:
    """Why a path cannot lie below a folder; ``None`` when it can (a link may still lead out: the desktop looks)."""
    if path.startswith("/"):
        return "must be relative: without a slash in front"
    if ".." in path.split("/"):
        return "must not contain .."
    return "must not contain a null character" if "\0" in path else None


def file_time(seconds: float) -> str:
    """As :func:`timestamp`, with four digits for the year whatever a file claims."""
    return timestamp(seconds).rjust(len("2024-01-15T10:30:00Z"), "0")


def _page(path: str, found: Listing) -> bytes:
    """A listing's body; work for a thread when it is long."""
    entries = [
        {
            "path": entry.path,
            "size": entry.size,
            "modified": file_time(entry.modified),
            "type": "folder" if entry.is_dir else "file",
        }
        for entry in found
    ]
    return encode({"path": path, "files": entries, "truncated": found.truncated})


class Images(Rest):
    """``/sessions/{session_id}/images``: an image for a message to name."""

    methods = ("PUT",)
    max_body = MAX_IMAGE

    async def put(self, session_id: str) -> None:
        image = self.body
        self.write_json(await (await self.find(session_id)).uploads.take(image))


class Files(Rest):
    """``/sessions/{session_id}/files/{path}``; a path that is empty or ends in a slash is a folder's listing."""

    methods = ("GET", "HEAD", "PUT")
    body_seconds = 3600.0
    _pieces: asyncio.Queue[bytes | None] | None = None
    _writing: asyncio.Task[int] | None = None

    def _limit(self) -> int:
        return self.services.settings.max_file_bytes

    async def begin(self) -> None:
        """A path that leads out is refused whatever the desktop thinks; a PUT writes while its body arrives."""
        session_id, path = self.path_args
        if problem := outside(path):
            raise Refused(400, "The path must lie in the desktop's home.", {"path": problem})
        if self.request.method == "PUT":
            desktop = (await self.find(session_id)).desktop
            self._pieces = asyncio.Queue(PIECES)
            self._writing = asyncio.create_task(desktop.write_file(path, self._arriving()), name="file upload")

    async def _arriving(self) -> AsyncIterator[bytes]:
        assert self._pieces is not None
        while (piece := await self._pieces.get()) is not None:
            yield piece

    async def data_received(self, chunk: bytes) -> None:  # type: ignore[override]
        """A piece of the body; the next one is read from the socket when there is room for it."""
        if self._pieces is None or self._writing is None or self._writing.done():
            return
        putting = asyncio.ensure_future(self._pieces.put(bytes(chunk)))
        await asyncio.wait({putting, self._writing}, return_when=asyncio.FIRST_COMPLETED)
        putting.cancel()

    async def put(self, session_id: str, path: str) -> None:
        assert self._pieces is not None and self._writing is not None
        if not self._writing.done():
            putting = asyncio.ensure_future(self._pieces.put(None))
            await asyncio.wait({putting, self._writing}, return_when=asyncio.FIRST_COMPLETED)
        size = await self._writing
        self.write_json({"path": path, "size": size})

    async def get(self, session_id: str, path: str) -> None:
        desktop = (await self.find(session_id)).desktop
        listing = not path or path.endswith("/")
        await self.while_connected(self._list(desktop, path) if listing else self._read(desktop, path))

    async def _read(self, desktop: Desktop, path: str) -> None:
        content = desktop.read_file(path)
        first = await anext(content, b"")  # raises if the file cannot be read, before anything is sent
        name = path.rpartition("/")[2]
        self.set_header("Content-Type", mimetypes.guess_type(name)[0] or "application/octet-stream")
        # Never shown by the browser in this origin: the file may be a page that the desktop made up.
        self.set_header("Content-Disposition", f"attachment; filename*=UTF-8''{quote(name)}")
        if content.size is not None:
            self.set_header("Content-Length", str(content.size))
        async with contextlib.aclosing(content):
            await self._send(first, content)

    async def _send(self, first: bytes, content: AsyncIterator[bytes]) -> None:
        """Send the content as the body (HEAD: the headers only); content that breaks off must not look whole."""
        try:
            self.write(first)
            if self.request.method != "HEAD":
                async for piece in content:
                    await self.flush()
                    self.write(piece)
            self.finish()
        except BaseException as error:
            if not self._headers_written:
                raise
            self.request.connection.stream.close()  # type: ignore[union-attr]
            if not isinstance(error, CambioError):
                raise
            self.log.warning("%s %s broke off: %s", self.request_id, self.endpoint, error)

    async def _list(self, desktop: Desktop, path: str) -> None:
        found = await desktop.list_files(path.rstrip("/"))
        self.write_json(await asyncio.to_thread(_page, path, found))

    def on_connection_close(self) -> None:
        """The client left: nothing of its upload appears, and nothing more is read for it."""
        if self._writing is not None:
            self._writing.cancel()
        super().on_connection_close()

    def on_finish(self) -> None:
        if self._writing is not None and not self._writing.done():
            self._writing.cancel()
        super().on_finish()


class Screenshot(Rest):
    """``/sessions/{session_id}/screenshot``"""

    async def get(self, session_id: str) -> None:
        """PNG of the settled screen; with ``?width=`` a small JPEG of this moment."""
        wanted = "width" in self.request.query_arguments
        width = self.argument("width", "")
        if wanted and not (width.isascii() and width.isdigit() and SMALLEST <= int(width[:6]) <= LARGEST):
            raise self.bad_query("width", "must be a number of pixels", f"{SMALLEST} to {LARGEST}")
        desktop = (await self.find(session_id)).desktop
        image = await (desktop.thumbnail(int(width)) if wanted else desktop.screenshot())
        self.set_header("Content-Type", image.media_type)
        # An unchanged screen costs a viewer who asks again nothing but the question.
        self.set_header("ETag", f'"{image.sha256}"')
        self.set_header("Cache-Control", "private, no-cache")
        if self.check_etag_header():
            self.set_status(304)
            self.finish()
            return
        self.finish(image.data)


class Exec(Rest):
    """``/sessions/{session_id}/exec``"""

    methods = ("POST",)
    max_body = 8 * 1024 * 1024

    async def post(self, session_id: str) -> None:
        """Run a program as the desktop's user; a client that leaves ends it."""
        desktop = (await self.find(session_id)).desktop
        from . import schemas  # loaded by the start hook, off the loop

        program = self.parse(schemas.Program)
        env = program.env or {}
        try:
            stdin = base64.b64decode(program.stdin or "", validate=True)
        except ValueError:
            raise InvalidRequest("stdin is not Base64.", details={"stdin": "must be Base64"}) from None
        if any("\0" in word for word in (*program.argv, program.cwd or "", *env.values())):
            raise InvalidRequest("A program's words have no NUL.", details={"argv": "must not contain NUL"})
        folder = ["-C", program.cwd] if program.cwd else []
        variables = [f"{name}={value}" for name, value in env.items()]
        # env and sh by their own paths: what runs before the program must not come from the desktop's PATH.
        argv = ["/usr/bin/env", *folder, *variables, "/bin/sh", "-c", 'exec "$@"', "sh", *program.argv]
        await self.while_connected(self._run(desktop, argv, stdin, program.timeout))

    async def _run(self, desktop: Desktop, argv: list[str], stdin: bytes, timeout: float) -> None:
        try:
            code, out, err = await desktop.execute(argv, stdin=stdin, timeout=timeout, limit=MOST_OUTPUT + 1)
        except TimeoutError:
            self.write_json({"exit_code": None, "stdout": "", "stderr": "", "truncated": False})
            return
        told = {
            name: base64.b64encode(data[:MOST_OUTPUT]).decode() for name, data in (("stdout", out), ("stderr", err))
        }
        truncated = max(len(out), len(err)) > MOST_OUTPUT
        self.write_json({"exit_code": 128 - code if code < 0 else code, **told, "truncated": truncated})


class Clipboard(Rest):
    """``/sessions/{session_id}/clipboard``"""

    methods = ("GET", "HEAD", "PUT")

    async def get(self, session_id: str) -> None:
        session = await self.find(session_id)
        self.write_json({"text": await session.desktop.get_clipboard()})

    async def put(self, session_id: str) -> None:
        session = await self.find(session_id)
        from . import schemas  # loaded by the start hook, off the loop

        text = self.parse(schemas.Clipboard).text
        await session.desktop.set_clipboard(text)
        self.write_json({"text": text})
