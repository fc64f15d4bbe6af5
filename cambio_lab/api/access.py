"""Who may call, from where, and how often.

The checks replace those of Jupyter's own ``prepare`` because that one redirects to a login page, answers 403 where the
reference says 401, and 404 where it says 403; what decides is still Jupyter's identity provider, authorizer and
configuration of hosts and origins.

Three documented limits and one for refused requests are counted per client address with the ``limits`` library: in
memory, or shared by several servers through Redis. When Redis fails, requests go on with counts in memory: said once in
the log, on ``/health`` and in a metric, and Redis is asked again every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar, get_args

from jupyter_server.auth.utils import HTTP_METHOD_TO_AUTH_ACTION
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import ensure_async
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import ConfigurationError as MissingDependency
from prometheus_client import Counter
from tornado.web import HTTPError, RequestHandler

from ..errors import ConfigurationError
from ..settings import Settings
from . import Refused

READS = frozenset({"GET", "HEAD", "OPTIONS"})
logger = logging.getLogger(__name__)


class Access(JupyterHandler):
    """Identity, origin, permission and forgery; :class:`~.base.Guarded` asks in the right order."""

    auth_resource = "cambio_lab"
    public: ClassVar[bool] = False
    """Answered without a token."""
    _has_cookie = False

    async def identify(self) -> None:
        """Who calls, from where; a foreign page may not even ask."""
        if not self.check_host():
            raise Refused(403, "This server does not answer to the name in the Host header.")
        user = await ensure_async(self.identity_provider.get_user(self))
        self.current_user = self._jupyter_current_user = user
        if user is None and not self.public and self.request.method != "OPTIONS":
            raise Refused(401, headers={"WWW-Authenticate": 'Bearer realm="cambio_lab"'})
        self._has_cookie = user is not None and (
            not self.token_authenticated or await ensure_async(self.identity_provider.get_user_cookie(self)) is not None
        )
        if not self.public and self.request.method != "OPTIONS":
            # A page of another origin may not call with the user's cookie, nor where no token is asked for.
            if not self.check_origin():
                raise Refused(403, "Pages of this origin may not call this server.")
            changes = self.request.method not in READS or self.upgrading
            if changes and not (self.same_site or self.token_authenticated or self.allowed_origin):
                raise Refused(403, "A page of another site may not do this.")
        self.set_cors_headers()

    @property
    def upgrading(self) -> bool:
        """A WebSocket handshake."""
        return str(self.request.headers.get("Upgrade", "")).lower() == "websocket"

    @property
    def same_site(self) -> bool:
        """The browser says the request came from our own page or from the user; a program says nothing."""
        return self.request.headers.get("Sec-Fetch-Site", "none") in {"same-origin", "none"}

    @property
    def allowed_origin(self) -> bool:
        """The server's configuration of ``allow_origin`` names this request's Origin."""
        configured = bool(self.allow_origin or self.allow_origin_pat)
        return configured and self.get_origin() is not None and bool(self.check_origin())

    async def authorize(self) -> None:
        """The caller may do this, and no page made its browser do it."""
        action = HTTP_METHOD_TO_AUTH_ACTION["WEBSOCKET" if self.upgrading else self.request.method]
        user = self.current_user
        if not await ensure_async(self.authorizer.is_authorized(self, user, action, self.auth_resource)):
            raise Refused(403, f"You may not {action} the resource {self.auth_resource}.")
        if self.request.method not in READS:
            self.check_xsrf_cookie()

    def check_xsrf_cookie(self) -> None:
        """Jupyter's check, except where no token is asked for.

        The reference's clients send neither token nor cookie. With authentication off, a request may pass when no
        page of another site can have sent it: its origin was checked before, and a body that is JSON (or a method
        other than POST) makes a browser ask first, which we never grant.
        """
        if "_jupyter_current_user" not in vars(self) or self.token_authenticated:
            return
        if not self.identity_provider.auth_enabled and self.same_site and self._origin_is_ours():
            if self.request.method != "POST" or self.is_json:
                return
            raise Refused(415)
        try:
            super().check_xsrf_cookie()
        except HTTPError:
            words = "The X-XSRFToken header is missing or wrong; a request with a token needs none."
            raise Refused(403, words) from None

    def _xsrf_matches(self) -> bool:
        """The request repeats the XSRF cookie in a header, as only a page of this server can."""
        if "X-XSRFToken" not in self.request.headers or not self.get_cookie("_xsrf"):
            return False
        try:
            RequestHandler.check_xsrf_cookie(self)  # Jupyter's takes a Referer for it
        except HTTPError:
            return False
        return True

    def _origin_is_ours(self) -> bool:
        origin = self.get_origin()
        return origin is None or bool(self.check_origin())

    @property
    def is_json(self) -> bool:
        """The body says that it is JSON."""
        kind = str(self.request.headers.get("Content-Type", "")).partition(";")[0].strip().lower()
        return kind == "application/json" or kind.endswith("+json")

    @property
    def own_page(self) -> bool:
        """A browser page of this server sent this, with the login's cookie.

        A page elsewhere can forge neither ``Origin`` nor ``Sec-Fetch-Site``, and cannot read the XSRF cookie. A
        handshake with the cookie and no ``Origin`` is no page's; who holds the cookie may do what the page may.
        """
        if self.public or not self._has_cookie or not self._origin_is_ours():
            return False
        site = self.request.headers.get("Sec-Fetch-Site")
        if site is not None:
            return bool(site == "same-origin")
        if self.get_origin() is not None or self._xsrf_matches():
            return True
        return self.upgrading and bool(self.identity_provider.auth_enabled)

    def set_cors_headers(self) -> None:
        """Only what ``allow_origin`` says: a token is for programs, so it opens nothing to pages elsewhere."""
        if self.allow_origin or self.allow_origin_pat:
            super().set_cors_headers()


REDIS_FAILURES = Counter("cambio_lab_redis_failures_total", "Rate-limit requests to Redis that failed")
Answer = TypeVar("Answer")
LimitName = Literal["general", "create", "websocket", "refused"]
REDIS_PATIENCE = 0.5
"""Seconds that one request may wait for Redis before it is counted in memory."""
REDIS_RETRY = 2.0
"""Seconds between attempts to reach a Redis that failed."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The tightest window a request counted in. ``ends`` is when it ends, in epoch seconds."""

    allowed: bool
    limit: int
    remaining: int
    ends: float
    name: str

    @property
    def retry_after(self) -> int:
        """Whole seconds until the window ends, at least 1."""
        return max(1, math.ceil(self.ends - time.time()))

    def headers(self) -> dict[str, str]:
        """The documented headers; ``Retry-After`` only on a refusal."""
        found = {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(math.ceil(self.ends)),
        }
        if not self.allowed:
            found["Retry-After"] = str(self.retry_after)
        return found


class RateLimiter:
    """Counts requests. Windows begin with a client's first request in them and last as long as the setting says."""

    def __init__(self, settings: Settings) -> None:
        self._items: dict[LimitName, RateLimitItem | None] = {
            name: _item(f"rate_{name}", getattr(settings, f"rate_{name}")) for name in get_args(LimitName)
        }
        self._redis_url = settings.redis_url
        self._memory = FixedWindowRateLimiter(MemoryStorage())
        self._redis: FixedWindowRateLimiter | None = None
        self._redis_failed_at: float | None = None

    async def start(self) -> None:
        """Make the storages; the Redis client is imported in a thread because that takes a while."""
        if self._redis_url:
            self._redis = await asyncio.to_thread(_redis_limiter, self._redis_url)
            await self.ping()

    async def stop(self) -> None:
        """Close the connections to Redis."""
        if self._redis is not None:
            storage: Any = self._redis.storage
            await storage.bridge.get_connection().aclose()

    async def hit(self, names: tuple[LimitName, ...], address: str) -> Verdict | None:
        """Count one request of ``address`` in each window; ``None`` when none of the limits is set."""
        items = [(name, item) for name in names if (item := self._items[name]) is not None]
        if not items:
            return None
        shared = names != ("refused",)  # what is refused must be cheap
        due = self._redis_failed_at is None or time.monotonic() - self._redis_failed_at > REDIS_RETRY
        redis = self._redis if shared and due else None
        if redis is not None and (verdict := await self._ask_redis(_tightest(redis, items, address))) is not None:
            return verdict
        return await _tightest(self._memory, items, address)

    async def ping(self) -> Literal["up", "down", "disabled"]:
        """Whether Redis answers now; a failure is logged when it is news."""
        if self._redis is None:
            return "disabled"
        return "up" if await self._ask_redis(self._redis.storage.check()) else "down"

    async def _ask_redis(self, question: Awaitable[Answer]) -> Answer | None:
        """The answer of Redis, or ``None``: whatever its client or server does, requests must go on."""
        try:
            async with asyncio.timeout(REDIS_PATIENCE):
                if (answer := await question) is False:
                    raise ConnectionError("no answer to PING")
        except Exception as error:
            if self._redis_failed_at is None:
                reason = str(error) or type(error).__name__
                logger.error("Redis failed (%s): rate limits are counted in memory until it answers.", reason)
            REDIS_FAILURES.inc()
            self._redis_failed_at = time.monotonic()
            return None
        if self._redis_failed_at is not None:
            logger.warning("Redis answers again: rate limits are shared again.")
            self._redis_failed_at = None
        return answer


async def _tightest(
    limiter: FixedWindowRateLimiter, items: list[tuple[LimitName, RateLimitItem]], address: str
) -> Verdict:
    verdicts = []
    for name, item in items:
        allowed = await limiter.hit(item, name, address)
        reset, remaining = await limiter.get_window_stats(item, name, address)
        verdicts.append(Verdict(allowed, item.amount, int(remaining), reset, name))
    if refused := [verdict for verdict in verdicts if not verdict.allowed]:
        return max(refused, key=lambda verdict: verdict.ends)
    return min(verdicts, key=lambda verdict: (verdict.remaining, verdict.limit))


def _item(name: str, text: str) -> RateLimitItem | None:
    if not text.strip():
        return None
    try:
        return parse(text)
    except ValueError:
        raise ConfigurationError(
            f"The setting {name} is {text!r}.", hint="Write it like 100/minute, or leave it empty for no limit."
        ) from None


def _redis_limiter(url: str) -> FixedWindowRateLimiter:
    try:
        patience: Any = {"socket_timeout": REDIS_PATIENCE, "socket_connect_timeout": REDIS_PATIENCE}
        storage = RedisStorage(url, implementation="redispy", key_prefix="cambio-lab", **patience)
    except MissingDependency:
        raise ConfigurationError(
            "redis_url is set, but the Redis client is missing.", hint="Run: pip install 'cambio-lab[redis]'"
        ) from None
    except ValueError:
        raise ConfigurationError(
            "redis_url is not an address of a Redis server.", hint="Write it like redis://localhost:6379/0"
        ) from None
    return FixedWindowRateLimiter(storage)
