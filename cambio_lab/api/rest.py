"""REST handlers: bodies, read in pieces and refused as a whole; query parameters and lists; unknown addresses."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jinja2 import Environment, PackageLoader, Template
from tornado.http1connection import HTTP1Connection
from tornado.web import HTTPError, stream_request_body

from ..errors import CambioError, DesktopError, InvalidRequest, SessionEnded
from . import BadJson, Refused, parse
from .base import Guarded

if TYPE_CHECKING:
    from .schemas import Asked

Model = TypeVar("Model", bound="Asked")

DISCARDED = 16 * 1024 * 1024
"""Bytes above the limit that are read and thrown away, so that the refusal arrives: closing a connection on bytes that
were not read resets it, and the reset may overtake the answer."""


BODY_SECONDS = 20.0
"""In which a body must have arrived."""
MAX_LIMIT = 200
FARTHEST = 2**53
"""A larger offset is beyond every list, and SQLite would not take it."""
_NUMBER = re.compile(r"[+-]?\d{1,1000}\Z", re.ASCII)
_TIMES = (
    re.compile(r"\d{4}-\d{2}-\d{2}\Z", re.ASCII),
    re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?\Z", re.ASCII),
)


@stream_request_body
class Rest(Guarded):
    """A REST handler. Bodies arrive in pieces, so that a large one is refused before it is in memory."""

    body_seconds = BODY_SECONDS
    max_body: int | None = None
    """Bytes; the setting ``max_body`` unless the handler says otherwise."""
    client_left = False
    _work: asyncio.Future[None] | None = None

    def initialize(self, endpoint: str = "unknown") -> None:
        super().initialize(endpoint)
        self._body = bytearray()
        self._too_large = False

    async def prepare(self) -> None:  # type: ignore[override]
        """The checks; a refusal is answered once the body has been read.

        Tornado drops a connection whose request is answered before its body was read, without telling the client,
        who may be sending the next request on it. Only a body that is much too large is worth that (and said).
        """
        # str.isdigit accepts digits such as a superscript two, and int() refuses numbers of thousands of digits.
        length = self.request.headers.get("Content-Length", "0")
        size = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
        try:
            await super().prepare()
            if size is None:
                raise Refused(400, "The Content-Length header must be given once, as a whole number of bytes.")
            if size > self._limit():
                raise self._refuse_size()
            self._body_within(self.body_seconds)
            if self.request.method in self.methods:
                await self.begin()
        except Exception as error:
            if size is None or size > self._limit() + DISCARDED:
                raise
            refusal = error

            def refuse(*args: str, **kwargs: str) -> None:
                raise refusal

            self._body_within(BODY_SECONDS)
            setattr(self, str(self.request.method).lower(), refuse)

    def _body_within(self, seconds: float) -> None:
        if isinstance(self.request.connection, HTTP1Connection):
            self.request.connection.set_body_timeout(seconds)

    async def begin(self) -> None:
        """What else there is to do or to refuse before the body arrives."""

    def _limit(self) -> int:
        return self.services.settings.max_body if self.max_body is None else self.max_body

    def _refuse_size(self) -> Refused:
        return Refused(413, f"The body may have at most {self._limit()} bytes.")

    def data_received(self, chunk: bytes) -> None:
        """A piece of the body (Tornado calls it)."""
        if self._too_large or len(self._body) + len(chunk) > self._limit():
            self._too_large = True
            self._body.clear()
        else:
            self._body += chunk

    async def while_connected(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work``, which writes the answer; a client that leaves cancels it, and no answer is due."""
        self._work = asyncio.ensure_future(work)
        if self.client_left:
            self._work.cancel()
        await asyncio.wait({self._work})
        if not self._work.cancelled():
            self._work.result()
        elif not self.client_left:  # by what it waited for: an empty 200 would look like an answer
            raise Refused(500)

    def on_connection_close(self) -> None:
        """The client left."""
        self.client_left = True
        if self._work is not None:
            self._work.cancel()
        super().on_connection_close()

    def head(self, *args: str, **kwargs: str) -> Any:
        """GET without its body, where GET is known."""
        return self.get(*args, **kwargs)

    def _handle_request_exception(self, error: BaseException) -> None:
        """A call that raced with the end of its session is a conflict, whatever its closing desktop made of it."""
        deliberate = isinstance(error, HTTPError | CambioError) and not isinstance(error, DesktopError)
        if not deliberate and self.path_args and self.services.session_ended(self.path_args[0]):
            self.log.info("%s %s: the session ended meanwhile: %r", self.request_id, self.endpoint, error)
            error = SessionEnded("The session ended meanwhile.", hint="Start a new one.")
        super()._handle_request_exception(error)

    @property
    def body(self) -> bytes:
        """The body, which was small enough."""
        if self._too_large:
            raise self._refuse_size()
        return bytes(self._body)

    def json_object(self, *, optional: bool = False) -> dict[str, Any]:
        """The body as a JSON object. ``optional``: no body is ``{}``."""
        if optional and not self.body:
            return {}
        if not self.body:
            raise Refused(400, "The body is empty; a JSON object is expected.")
        if not self.is_json:
            raise Refused(415)
        try:
            value = parse(self.body)
        except BadJson as error:
            raise Refused(400, f"The body is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise InvalidRequest("The body must be a JSON object.", details={"body": "must be an object"})
        return value

    def parse(self, model: type[Model], *, optional: bool = False) -> Model:
        """The body as a model of :mod:`.schemas`."""
        from .schemas import parse as checked  # loaded by the start hook, off the loop

        return checked(model, self.json_object(optional=optional))

    # Query parameters

    def page(self, default: int) -> tuple[int, int]:
        """``(limit, offset)``: a larger ``limit`` than 200 is 200, anything below 1 or not a number is 400."""
        limit = self.whole_number("limit", default, least=1)
        return min(limit, MAX_LIMIT), min(self.whole_number("offset", 0, least=0), FARTHEST)

    def whole_number(self, name: str, default: int, least: int) -> int:
        """A whole number, at least ``least``; anything else is 400."""
        text = self.argument(name, str(default))
        if not _NUMBER.match(text) or int(text) < least:
            raise self.bad_query(name, "must be a whole number", f"at least {least}")
        return int(text)

    def one_of(self, name: str, allowed: Sequence[str]) -> str | None:
        """A filter with a fixed set of values; absent is ``None``, another value is 400."""
        value = self.argument(name, "")
        if not value and name not in self.request.query_arguments:
            return None
        if value not in allowed:
            raise self.bad_query(name, "has no such value", f"one of {', '.join(allowed)}")
        return value

    def time_argument(self, name: str) -> float | None:
        """A date (its first second, UTC) or a time, as seconds since the epoch; without a zone it is UTC."""
        text = self.argument(name, "")
        if name not in self.request.query_arguments:
            return None
        try:
            if not any(pattern.match(text) for pattern in _TIMES):
                raise ValueError
            found = datetime.fromisoformat(text)
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            raise self.bad_query(name, "must be a date or a time", "like 2024-01-15T10:30:00Z") from None

    def time_after(self, name: str) -> float | None:
        """A :meth:`time_argument`; rows of that second are out, because times are shown in whole seconds.

        Else who asks for what came after the last row is given that row again.
        """
        found = self.time_argument(name)
        return None if found is None else math.nextafter(math.floor(found) + 1.0, 0.0)

    def sorting(self, keys: Sequence[str]) -> list[tuple[str, bool]]:
        """``sort=created_at:desc,name:asc`` as ``[(key, ascending)]``; ascending unless it says ``desc``."""
        if "sort" not in self.request.query_arguments:
            return []
        found: dict[str, bool] = {}
        for part in self.argument("sort", "").split(","):
            key, _, direction = part.strip().partition(":")
            if key not in keys or direction not in {"", "asc", "desc"} or key in found:
                form = f"key:asc or key:desc, separated by commas, each key once: {', '.join(sorted(keys))}"
                raise self.bad_query("sort", "cannot be used like this", form)
            found[key] = direction != "desc"
        return list(found.items())


def list_body(name: str, rows: list[dict[str, Any]], total: int, limit: int, offset: int) -> dict[str, Any]:
    """Both documented forms in one body: ``name`` + ``total``, and ``data`` + ``pagination``."""
    page = {"limit": limit, "offset": offset, "total": total}
    around = {"has_next": offset + len(rows) < total and bool(rows), "has_prev": offset > 0}
    return {name: rows, **page, "data": rows, "pagination": {**page, **around}}


STATIC = Path(__file__).resolve().parent.parent / "static"
VIEWER_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""``style-src`` has 'unsafe-inline' because views are sized with style attributes."""


@cache
def _viewer() -> Template:
    environment = Environment(loader=PackageLoader("cambio_lab.api"), autoescape=True)
    return environment.get_template("viewer.html.j2")


def viewer_page(handler: Guarded, session_id: str, *, run: bool = False) -> None:
    """Answer with the page that shows one desktop, or its ``run``."""
    if not (STATIC / "viewer.js").exists():
        raise Refused(503, "The front end is not built. Run: npm --prefix labextension install && make setup")
    config = {
        "base_url": handler.url(),
        "session_id": session_id,
        "run": run,
        "ws_path": handler.url("ws", session_id),
        "vnc_path": handler.url("vnc", session_id),
    }
    # The page may be opened without having seen the cookie that its own requests must echo.
    handler.xsrf_token  # noqa: B018
    handler.set_header("Content-Security-Policy", VIEWER_POLICY)
    handler.set_header("Content-Type", "text/html; charset=utf-8")
    handler.finish(_viewer().render(static=handler.url("cambio", "static", ""), config=config))
