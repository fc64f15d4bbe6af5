"""What the handlers work with: made by the extension, found by every handler in Tornado's settings; the rate limits.

Three documented limits and one for refused requests are counted per client address with the ``limits`` library: in
memory, or shared by several servers through Redis. When Redis fails, requests go on with counts in memory: said once in
the log, on ``/health`` and in a metric, and Redis is asked again every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, get_args

from ..desktop.base import Desktop
from ..errors import CambioError, ConfigurationError, StoreUnavailable
from ..settings import Settings
from . import metrics

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.aio.strategies import FixedWindowRateLimiter

    from ..recording import Contents
    from ..sessions.registry import Registry
    from ..store import Store
    from .system import HealthCheck

KEY = "cambio_lab_services"


class McpEndpoint(Protocol):
    """What ``/mcp`` answers with."""

    async def application(self) -> Any:
        """Return the ASGI application, running."""


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
        self.mcp: McpEndpoint | None = None
        self.export: Callable[[Contents, str], tuple[str, bytes]] | None = None
        """Writes a run in a format by name: the file's ending and content. Blocks."""
        self.formats: Callable[[], list[dict[str, Any]]] | None = None
        self.desktop_kind = settings.desktop
        """``docker``, ``sandbox`` or ``local``, once the start hook knows."""
        self._registry: Registry | None = None
        self._store: Store | None = None
        self._settled = asyncio.Event()

    def ready(self, registry: Registry, store: Store) -> None:
        """The start hook is done, whatever kept it from that before."""
        self._registry, self._store = registry, store
        self.failure = None
        metrics.SESSIONS.set_function(lambda: len(registry.sessions))
        self._settled.set()

    def failed(self, error: CambioError) -> None:
        """The start hook gave up, or tries again; every request that needs a session is answered with ``error``."""
        self.failure = error
        self._settled.set()

    def stopping(self) -> None:
        """The server goes down; nothing new is begun."""
        self.failed(StoreUnavailable("The server is shutting down."))

    async def settled(self) -> None:
        """Wait until the start hook is done, well or badly."""
        await self._settled.wait()

    async def registry(self) -> Registry:
        """The registry, once it exists. Raises what kept it from existing."""
        if self.failure is not None:
            raise self.failure
        if self._registry is None:
            await self._settled.wait()
            return await self.registry()
        return self._registry

    def session_ended(self, session_id: str) -> bool:
        """Whether this session was live once and is no longer."""
        return self._registry is not None and self._registry.ended(session_id)

    async def store(self) -> Store:
        """The store, once it is open. Raises what kept it from opening."""
        await self.registry()
        assert self._store is not None
        return self._store


logger = logging.getLogger(__name__)
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
        self._memory: FixedWindowRateLimiter | None = None
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
        redis = self._redis if shared and self._redis_is_due() else None
        if redis is not None and (verdict := await self._ask_redis(_tightest(redis, items, address))) is not None:
            return verdict
        if self._memory is None:
            self._memory = _memory_limiter()
        return await _tightest(self._memory, items, address)

    async def ping(self) -> Literal["up", "down", "disabled"]:
        """Whether Redis answers now; a failure is logged when it is news."""
        if self._redis is None:
            return "disabled"
        return "up" if await self._ask_redis(_check(self._redis)) else "down"

    def _redis_is_due(self) -> bool:
        return self._redis_failed_at is None or time.monotonic() - self._redis_failed_at > REDIS_RETRY

    async def _ask_redis(self, question: Awaitable[Answer]) -> Answer | None:
        """The answer of Redis, or ``None``: whatever its client or server does, requests must go on."""
        try:
            async with asyncio.timeout(REDIS_PATIENCE):
                answer = await question
        except Exception as error:
            if self._redis_failed_at is None:
                reason = str(error) or type(error).__name__
                logger.error("Redis failed (%s): rate limits are counted in memory until it answers.", reason)
            metrics.REDIS_FAILURES.inc()
            self._redis_failed_at = time.monotonic()
            return None
        if self._redis_failed_at is not None:
            logger.warning("Redis answers again: rate limits are shared again.")
            self._redis_failed_at = None
        return answer


async def _check(redis: FixedWindowRateLimiter) -> bool:
    if not await redis.storage.check():
        raise ConnectionError("no answer to PING")
    return True


async def _tightest(
    limiter: FixedWindowRateLimiter, items: list[tuple[LimitName, RateLimitItem]], address: str
) -> Verdict:
    verdicts = []
    for name, item in items:
        allowed = await limiter.hit(item, name, address)
        reset, remaining = await limiter.get_window_stats(item, name, address)
        verdicts.append(Verdict(allowed, item.amount, int(remaining), reset, name))
    refused = [verdict for verdict in verdicts if not verdict.allowed]
    if refused:
        return max(refused, key=lambda verdict: verdict.ends)
    return min(verdicts, key=lambda verdict: (verdict.remaining, verdict.limit))


def _item(name: str, text: str) -> RateLimitItem | None:
    if not text.strip():
        return None
    from limits import parse

    try:
        return parse(text)
    except ValueError:
        raise ConfigurationError(
            f"The setting {name} is {text!r}.", hint="Write it like 100/minute, or leave it empty for no limit."
        ) from None


def _memory_limiter() -> FixedWindowRateLimiter:
    from limits.aio.storage import MemoryStorage
    from limits.aio.strategies import FixedWindowRateLimiter

    return FixedWindowRateLimiter(MemoryStorage())


def _redis_limiter(url: str) -> FixedWindowRateLimiter:
    from limits.aio.storage import RedisStorage
    from limits.aio.strategies import FixedWindowRateLimiter
    from limits.errors import ConfigurationError as MissingDependency

    try:
        storage = RedisStorage(
            url,
            implementation="redispy",
            key_prefix="cambio-lab",
            socket_timeout=REDIS_PATIENCE,
            socket_connect_timeout=REDIS_PATIENCE,
        )
    except MissingDependency:
        raise ConfigurationError(
            "redis_url is set, but the Redis client is missing.", hint="Run: pip install 'cambio-lab[redis]'"
        ) from None
    except ValueError:
        raise ConfigurationError(
            "redis_url is not an address of a Redis server.", hint="Write it like redis://localhost:6379/0"
        ) from None
    return FixedWindowRateLimiter(storage)
