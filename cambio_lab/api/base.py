"""What every handler of ours has: the services it works with, checks in order, request ids, the error envelope."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
import weakref
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from jupyter_server.base.call_context import CallContext
from prometheus_client import Counter, Gauge, Histogram
from tornado.web import HTTPError

from ..desktop.base import Desktop
from ..errors import CambioError
from ..settings import Settings
from . import Refused, describe, encode
from .access import Access, LimitName, RateLimiter, Verdict

if TYPE_CHECKING:
    from ..recording import Contents
    from ..sessions.registry import Registry
    from ..sessions.session import Session
    from ..store import Store
    from .routes import HealthCheck

REQUESTS = Counter("http_requests_total", "Total HTTP requests", ["method", "endpoint"])
RESPONSES = Counter("http_responses_total", "HTTP responses by status", ["method", "endpoint", "status"])
REQUEST_SECONDS = Histogram(
    "cambio_lab_http_request_seconds",
    "Time from a request's headers to its answer",
    ["method", "endpoint"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
RATE_LIMITED = Counter("cambio_lab_rate_limited_total", "Requests refused with 429", ["limit"])
SESSIONS = Gauge("cambio_lab_sessions_active", "Sessions that are active now")
KEY = "cambio_lab_services"


class Thumbnails:
    """The last small image of each desktop's screen and width, made once for all viewers; it goes with its desktop."""

    def __init__(self) -> None:
        self._last: weakref.WeakKeyDictionary[Any, dict[int, tuple[object, bytes]]] = weakref.WeakKeyDictionary()

    async def get(self, desktop: Desktop, width: int) -> bytes:
        """A JPEG ``width`` pixels wide. Raises what the desktop raises when it is away."""
        revision = desktop.revision
        kept = self._last.setdefault(desktop, {})
        if revision is None or width not in kept or kept[width][0] != revision:
            kept[width] = (revision, (await desktop.thumbnail(width)).data)
        return kept[width][1]


class Services:
    """Settings, rate limiter, and the registry once the start hook has built it.

    Requests that come before that wait for it; when it could not be built they are answered with the reason (503).
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.limiter = RateLimiter(settings)
        self.failure: CambioError | None = None
        self.health: HealthCheck | None = None
        self.thumbnails = Thumbnails()
        self.mcp: Callable[[], Awaitable[Any]] | None = None
        """Returns the ASGI application that ``/mcp`` answers with, running."""
        self.export: Callable[[Contents, str], tuple[str, bytes]]
        """Writes a run in a format by name: the file's ending and content. Blocks."""
        self.formats: Callable[[], list[dict[str, Any]]]
        self.desktop_kind = settings.desktop
        """``docker``, ``sandbox`` or ``local``, once the start hook knows."""
        self._registry: Registry | None = None
        self.settled = asyncio.Event()
        """The start hook is done, well or badly."""

    def ready(self, registry: Registry) -> None:
        """The start hook is done, whatever kept it from that before."""
        self._registry = registry
        self.failure = None
        SESSIONS.set_function(lambda: len(registry.sessions))
        self.settled.set()

    def failed(self, error: CambioError) -> None:
        """The start hook gave up, or tries again; every request that needs a session is answered with ``error``."""
        self.failure = error
        self.settled.set()

    async def registry(self) -> Registry:
        """The registry, once it exists. Raises what kept it from existing."""
        if self.failure is not None:
            raise self.failure
        if self._registry is None:
            await self.settled.wait()
            return await self.registry()
        return self._registry

    def session_ended(self, session_id: str) -> bool:
        """Whether this session was live once and is no longer."""
        return self._registry is not None and self._registry.ended(session_id)

    async def store(self) -> Store:
        """The store, once it is open. Raises what kept it from opening."""
        return (await self.registry()).store


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


class Guarded(Access):
    """Checks, headers and envelope. Handlers inherit it through :class:`Rest` or the socket handlers."""

    limits: ClassVar[tuple[LimitName, ...]] = ("general",)
    """The windows a request counts in."""
    post_limits: ClassVar[tuple[LimitName, ...]] = ()
    """Those that a POST counts in besides."""
    unlimited: ClassVar[frozenset[str]] = frozenset()
    """Methods that stop or end something: counted, and never refused by a rate limit for a known caller."""
    methods: ClassVar[tuple[str, ...]] = ("GET", "HEAD")
    """What the route knows besides OPTIONS."""
    endpoint = "unknown"
    _verdict: Verdict | None = None
    _id = ""
    _bad_path = False

    def initialize(self, endpoint: str = "unknown") -> None:
        """``endpoint`` is the route's template, for metrics."""
        self.endpoint = endpoint

    # What handlers use

    @property
    def services(self) -> Services:
        found: Services = self.settings[KEY]
        return found

    @property
    def request_id(self) -> str:
        """The caller's ``X-Request-ID`` where it is a plain word, else one of ours."""
        if not self._id:
            given = self.request.headers.get("X-Request-ID", "")
            self._id = given if _REQUEST_ID.match(given) else f"req-{uuid.uuid4().hex[:12]}"
        return self._id

    async def find(self, session_id: str) -> Session:
        """Return the live session. Raises what speaks against it, or what keeps the server from serving any."""
        registry = await self.services.registry()
        return await registry.find(session_id)

    def url(self, *parts: str) -> str:
        """A path on this server, with its base URL."""
        return str(self.base_url) + "/".join(parts)

    def argument(self, name: str, default: str) -> str:
        """A query parameter; given twice it is a 400."""
        values = self.request.query_arguments.get(name, [])
        if len(values) > 1:
            raise self.bad_query(name, f"is given {len(values)} times", "give it once")
        return str(self.get_query_argument(name, default, strip=False))

    def bad_query(self, name: str, problem: str, needed: str) -> Refused:
        """Return what refuses a query parameter."""
        return Refused(400, f"The query parameter {name} {problem}.", {name: needed})

    # Checks

    async def prepare(self) -> None:  # type: ignore[override]
        """Host, identity, origin, permission, forgery, rate limit, method: the first that fails answers.

        The rate limit comes after everything that a page elsewhere can fail at: what is refused there counts in a
        window of its own, so no page can use up what the user may ask.
        """
        CallContext.set(CallContext.JUPYTER_HANDLER, self)
        self.current_user = self._jupyter_current_user = None
        try:
            await self.identify()
            if not self.public and self.request.method != "OPTIONS":
                await self.authorize()
        except HTTPError:
            await self._count(("refused",))
            raise
        await self._count(self._windows())
        if self.request.method == "OPTIONS":
            return
        if self.request.method not in self.methods:
            raise Refused(405, headers={"Allow": self.allow})
        if self._bad_path:
            raise Refused(400, "The path is not UTF-8.")

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        """Tornado decodes the path before anything is checked; what is wrong with it is said in its turn."""
        try:
            return str(super().decode_argument(value, name))
        except HTTPError:
            if name is not None:
                raise
            self._bad_path = True
            return ""

    def _windows(self) -> tuple[LimitName, ...]:
        """None for the product's own page; the window of refused requests for pages elsewhere and unknown callers."""
        windows = self.limits + (self.post_limits if self.request.method == "POST" else ())
        if not windows or self.own_page:
            return ()
        elsewhere = self.request.method == "OPTIONS" or not self.same_site
        if self.current_user is None or (elsewhere and not self.allowed_origin):
            return ("refused",)
        return windows

    async def _count(self, windows: tuple[LimitName, ...]) -> None:
        if not windows:
            return
        self._verdict = await self.services.limiter.hit(windows, self.request.remote_ip or "")
        if self._verdict is None:
            return
        self.set_rate_headers()
        if not self._verdict.allowed and not (self.request.method in self.unlimited and self.current_user):
            RATE_LIMITED.labels(self._verdict.name).inc()
            seconds = self._verdict.retry_after
            raise Refused(429, f"Too many requests from this address: try again in {seconds} s.")

    # Headers and failures

    @property
    def allow(self) -> str:
        return ", ".join((*self.methods, "OPTIONS"))

    def set_default_headers(self) -> None:
        """Also after ``send_error`` has cleared what was set: request id and rate limit stay on every answer."""
        super().set_default_headers()
        self.set_header("X-Request-ID", self.request_id)
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        self.set_header("Cache-Control", "no-store")
        self.set_rate_headers()

    def set_rate_headers(self) -> None:
        if self._verdict is not None:
            for name, value in self._verdict.headers().items():
                self.set_header(name, value)

    @property
    def content_security_policy(self) -> str:
        return f"{super().content_security_policy}; default-src 'none'"

    def options(self, *args: str, **kwargs: str) -> None:
        """A browser's question before a cross-origin request; without ``allow_origin`` nothing is granted."""
        self.set_header("Allow", self.allow)
        if self.allow_origin or self.allow_origin_pat:
            self.set_header("Access-Control-Allow-Methods", self.allow)
            self.set_header("Access-Control-Allow-Headers", "accept, content-type, authorization, x-xsrftoken")
        self.set_status(204)
        self.finish()

    def _handle_request_exception(self, error: BaseException) -> None:
        """Deliberate errors are answers, not accidents: no traceback in the log for them."""
        failure = describe(error, error.status_code if isinstance(error, HTTPError) else 500)
        if failure.status_code == 500 or self._finished or self._headers_written:
            super()._handle_request_exception(error)
            return
        self.send_error(failure.status_code, failure=failure)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer a failure with the documented envelope, also one that Tornado or Jupyter raised."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        failure = kwargs.get("failure") or describe(error, status_code)
        if failure.status_code == 405:
            self.set_header("Allow", self.allow)
        for name, value in failure.headers.items():
            self.set_header(name, value)
        unread = vars(self.request).get("_body_future")
        if unread is not None and not unread.done():
            self.set_header("Connection", "close")  # Tornado will; the client should know
        level = self.log.error if failure.status_code >= 500 else self.log.info
        level("%s %s %s: %s", self.request_id, failure.status_code, self.endpoint, failure.message)
        self.set_status(failure.status_code)
        self.write_json(failure.envelope(self.request_id))

    def write_json(self, body: Mapping[str, Any] | bytes) -> None:
        """Finish with JSON."""
        self.set_header("Content-Type", "application/json")
        self.finish(body if isinstance(body, bytes) else encode(body))

    def compute_etag(self) -> str | None:
        """Return None: an answer that differs each time need not be hashed."""
        return None

    def on_finish(self) -> None:
        method = self.request.method if self.request.method in METHODS else "OTHER"
        REQUESTS.labels(method, self.endpoint).inc()
        RESPONSES.labels(method, self.endpoint, str(self.get_status())).inc()
        seconds = time.time() - self.request._start_time
        REQUEST_SECONDS.labels(method, self.endpoint).observe(max(0.0, seconds))
        super().on_finish()
