"""REST handlers: bodies, read in pieces and refused as a whole; addresses that nothing answers to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

from tornado.http1connection import HTTP1Connection
from tornado.web import HTTPError, stream_request_body

from ..errors import CambioError, DesktopError, InvalidRequest, SessionEnded
from .base import METHODS, Guarded
from .failure import MESSAGES, Refused
from .strict_json import BadJson, parse

if TYPE_CHECKING:
    from .schemas.requests import Asked

Model = TypeVar("Model", bound="Asked")

DISCARDED = 16 * 1024 * 1024
"""Bytes above the limit that are read and thrown away, so that the refusal arrives: closing a connection on bytes that
were not read resets it, and the reset may overtake the answer."""


BODY_SECONDS = 20.0
"""In which a body must have arrived."""


@stream_request_body
class Rest(Guarded):
    """A REST handler. Bodies arrive in pieces, so that a large one is refused before it is in memory."""

    refusal: Exception | None = None
    """What :meth:`prepare` found; the method is not called then."""
    body_seconds = BODY_SECONDS
    max_body: int | None = None
    """Bytes; the setting ``max_body`` unless the handler says otherwise."""

    def initialize(self, endpoint: str = "unknown") -> None:
        super().initialize(endpoint)
        self._body = bytearray()
        self._too_large = False

    async def prepare(self) -> None:  # type: ignore[override]
        """The checks; a refusal is answered once the body has been read.

        Tornado drops a connection whose request is answered before its body was read, without telling the client,
        who may be sending the next request on it. Only a body that is much too large is worth that (and said).
        """
        size = self._announced_size()
        try:
            await super().prepare()
            if size is None:
                raise Refused(400, "The Content-Length header must be given once, as a whole number of bytes.")
            if size > self._limit():
                raise self._refuse_size()
            self._body_within(self.body_seconds)
            if self.request.method in self.methods:
                await self.begin()
        except Exception as refusal:
            if size is None or size > self._limit() + DISCARDED:
                raise
            self.refusal = refusal
            self._body_within(BODY_SECONDS)
            setattr(self, str(self.request.method).lower(), self._refuse)

    def _body_within(self, seconds: float) -> None:
        if isinstance(self.request.connection, HTTP1Connection):
            self.request.connection.set_body_timeout(seconds)

    def _announced_size(self) -> int | None:
        """Return the Content-Length in bytes; ``None`` where it is no plain number: such a body cannot be read."""
        length = self.request.headers.get("Content-Length", "0")
        # str.isdigit accepts digits such as a superscript two, and int() refuses numbers of thousands of digits.
        return int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None

    async def begin(self) -> None:
        """What else there is to do or to refuse before the body arrives."""

    def _refuse(self, *args: str, **kwargs: str) -> None:
        assert self.refusal is not None
        raise self.refusal

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

    def json_object(self, *, optional: bool = False) -> dict[str, Any]:
        """The body as a JSON object. ``optional``: no body is ``{}``."""
        if self._too_large:
            raise self._refuse_size()
        if not self._body:
            if optional:
                return {}
            raise Refused(400, "The body is empty; a JSON object is expected.")
        if not self.is_json:
            raise Refused(415)
        try:
            value = parse(bytes(self._body))
        except BadJson as error:
            raise Refused(400, f"The body is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise InvalidRequest("The body must be a JSON object.", details={"body": "must be an object"})
        return value

    def parse(self, model: type[Model], *, optional: bool = False) -> Model:
        """The body as a model of :mod:`.schemas.requests`."""
        from .schemas.requests import parse as checked  # loaded by the start hook, off the loop

        return checked(model, self.json_object(optional=optional))


class NotFound(Rest):
    """Every address below ours that nothing answers to."""

    methods = METHODS[:-1]

    def _answer(self, *args: str, **kwargs: str) -> None:
        raise Refused(404, MESSAGES[404])

    get = post = put = patch = delete = _answer

    def check_xsrf_cookie(self) -> None:
        """Nothing happens here that could be forged."""
