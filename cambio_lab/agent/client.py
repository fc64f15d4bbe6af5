"""The model service: the only importer of ``anthropic``, loaded on first use and off the event loop (it takes 1-2 s).

A :class:`ModelClient` sends one request and yields what comes back as small pieces. It never retries by itself: it
says :class:`Transient` when another try may help and how long to wait, and the loop decides, cancellably and in the
open. Requests leave as prepared bytes: the SDK builds everything but the messages, which are spliced in as they were
serialised when they joined the history, so that a picture is turned into JSON once and not once in every request.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
import secrets
import time
import warnings
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import ConfigurationError, MissingKey
from . import models
from .options import AgentOptions
from .reply import Announced, Piece, Reader, Reply, Sent, Started, Text, Thought, too_long
from .service_errors import Transient, classify, not_messages
from .splice import PIECES, Body, Chunks

if TYPE_CHECKING:
    import httpx2

    from ..settings import Settings
    from .tools.call import Call

__all__ = ["Announced", "ModelClient", "ModelRequest", "Reply", "Sent", "Started", "Text", "Thought", "Transient"]

KEY_VARIABLES = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
MAX_REPLY_BYTES = 40_000_000
MAX_EVENT_BYTES = 6_500_000
PLACEHOLDER = re.compile(rb'\[\{"role":"user","content":"cambio-lab-messages-([0-9a-f]{32})"\}\]')


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What to send. ``parameters`` are the SDK's keyword arguments of ``create``, without ``messages``."""

    parameters: dict[str, Any]
    body: Body


@dataclass(frozen=True)
class ToolsetParts:
    """What the computer tool needs of the SDK, fetched here so that nothing else imports it."""

    base: Any
    screenshot: Any
    position: Any
    error: Any
    tool_use: Callable[[Call], Any]


@dataclass
class ModelClient:
    """Talks to one platform. May be shared by sessions; ``transport`` replaces the network (records, replays, demo).

    ``stall`` is how many seconds may pass without a byte of a reply.
    """

    platform: str = "anthropic"
    base_url: str = ""
    stall: float = 120.0
    transport: httpx2.AsyncBaseTransport | None = None
    api_key: str | None = None
    wrap: Callable[[httpx2.AsyncBaseTransport], httpx2.AsyncBaseTransport] | None = None
    """Puts something between the SDK and whatever transport it uses, proxies included: a recorder."""
    _client: Any = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    _bodies: dict[str, tuple[Body, Callable[[Sent], None]]] = field(default_factory=dict)

    async def parts(self) -> ToolsetParts:
        """The SDK's classes for the computer toolset; loads the SDK if need be."""
        return await asyncio.to_thread(_toolset_parts)

    async def open(self, model: str) -> None:
        """Load the SDK and make its client, once. :class:`MissingKey` says which variable to set."""
        async with self._opening:
            if self._client is None:
                self._check_key(model)
                self._client = await asyncio.to_thread(self._make, model)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Piece, None]:
        """One request and its reply: ``Sent``, ``Started``, deltas, and last the whole :class:`Reply`.

        Raises :class:`Transient`, or a :class:`~cambio_lab.errors.CambioError` that another try cannot mend.
        Closing the iterator closes the connection.
        """
        await self.open(request.parameters["model"])
        mark, reader, slices = secrets.token_hex(16), Reader(), Slices()
        sent: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
        self._bodies[mark] = (request.body, lambda found: None if sent.done() else sent.set_result(found))
        entering = asyncio.ensure_future(self._begin(mark, request.parameters))
        try:
            await asyncio.wait({entering, sent}, return_when=asyncio.FIRST_COMPLETED)
            if sent.done():
                yield sent.result()
            stream = await entering
            async for event in stream:
                for piece in reader.read(event):
                    yield piece
                await slices.rest()
            yield reader.finish(stream.response.headers.get("request-id"))
        except Exception as error:
            raise classify(error, reader.usage, self._address(), self._secrets()) from error
        finally:
            self._bodies.pop(mark, None)
            await _leave(entering)

    async def aclose(self) -> None:
        """Close the connections; the client is not usable afterwards."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    async def _begin(self, mark: str, parameters: dict[str, Any]) -> Any:
        messages = [{"role": "user", "content": f"cambio-lab-messages-{mark}"}]
        return await self._client.beta.messages.create(messages=messages, stream=True, **parameters)

    def _splice(self, content: bytes) -> Chunks | None:
        """The body with the prepared messages where the placeholder stands; ``None`` where there is none."""
        found = PLACEHOLDER.search(content)
        if found is None:
            return None
        body, told = self._bodies[found[1].decode()]
        whole, digest = body.assemble(content[: found.start()], content[found.end() :])
        told(Sent(digest, whole.size, body.images))
        return whole

    async def check(self, model: str) -> None:
        """Make one real request of a few tokens; raise what a turn would raise, without trying again."""
        await self.open(model)
        parameters = {"model": wire_model(model, self.platform), "max_tokens": 16}
        message = {"role": "user", "content": "Reply with OK."}
        try:
            stream = await self._client.beta.messages.create(messages=[message], stream=True, **parameters)
            await stream.close()
        except Exception as error:
            raise classify(error, None, self._address(), self._secrets()) from error

    def _address(self) -> str:
        """Return where requests go, without credentials."""
        if self._client is None:
            return ""
        url = self._client.base_url.copy_with(username=None, password=None, query=None, fragment=None)
        return str(url).rstrip("/")

    def _secrets(self) -> list[str]:
        return [value for value in (self.api_key, *map(os.environ.get, KEY_VARIABLES)) if value]

    def _check_key(self, model: str) -> None:
        """Raise before anything is sent when the key is missing or cannot be put into a header."""
        if self.platform != "anthropic" or self.transport is not None or model == models.DEMO:
            return
        named = {"api_key": self.api_key, **{name: os.environ.get(name) for name in KEY_VARIABLES}}
        given = {name: value for name, value in named.items() if value}
        if not given:
            raise MissingKey(
                "The server has no key for the Claude API.",
                hint="Set ANTHROPIC_API_KEY in the server's environment and restart it, "
                'or create the session with the model "demo", which needs none.',
            )
        for name, value in given.items():
            if problem := key_problem(value):
                raise ConfigurationError(
                    f"{name} {problem}.", hint=f"Correct {name} in the server's environment and restart it."
                )

    def _base_url(self) -> str:
        """Return the configured address as the SDK wants it; :class:`ConfigurationError` when it is none."""
        url = self.base_url or (os.environ.get("ANTHROPIC_BASE_URL", "") if self.platform == "anthropic" else "")
        return checked_base_url(url) if url else ""

    def _make(self, model: str) -> Any:
        """The SDK's client for the platform, over our HTTP client; runs in a thread (certificates take a while)."""
        import anthropic

        # The table of models says when a model reaches its end of life.
        warnings.filterwarnings("ignore", message="The model .* is deprecated", category=DeprecationWarning)
        transport = self.transport
        if transport is None and model == models.DEMO:
            transport = _demo_transport()
        base_url = self._base_url()
        try:
            http = _http_class()(
                splice=self._splice,
                secrets=self._secrets,
                signed=self.platform == "bedrock",
                timeout=_timeout(self.stall),
                transport=transport,
            )
        except (ImportError, ValueError) as error:
            raise proxy_error(error) from error
        if self.wrap is not None:
            # httpx2 offers no way round: `transport=` would replace its own, with its proxies and limits
            http._transport = self.wrap(http._transport)
            http._mounts = {pattern: one and self.wrap(one) for pattern, one in http._mounts.items()}
        options: dict[str, Any] = {"http_client": http, "max_retries": 0}
        if base_url:
            options["base_url"] = base_url
        if self.platform == "anthropic" and (self.transport is not None or model == models.DEMO):
            options["api_key"] = self.api_key or os.environ.get("ANTHROPIC_API_KEY") or "not-needed"
        elif self.api_key:
            options["api_key"] = self.api_key
        name = sdk_client_name(self.platform, model)
        try:
            return getattr(anthropic, name)(**options)
        except (ValueError, ImportError, anthropic.AnthropicError) as error:
            raise ConfigurationError(
                f"The {self.platform} client cannot be made: {error}", hint="See docs/agent.md, Platforms."
            ) from error


class Slices:
    """Let other tasks run whenever reading a reply has kept the loop busy: its events may all be there at once."""

    LONGEST = 0.004  # seconds

    def __init__(self) -> None:
        self._since = time.perf_counter()

    async def rest(self) -> None:
        """Yield to the event loop if this slice is over."""
        if time.perf_counter() - self._since > self.LONGEST:
            await asyncio.sleep(0)
            self._since = time.perf_counter()


async def _leave(entering: asyncio.Future[Any]) -> None:
    """Close the connection, whether or not the reply had begun; a late answer is dropped."""
    if not entering.done():
        entering.cancel()
        await asyncio.wait({entering})
    if not entering.cancelled() and entering.exception() is None:
        await entering.result().close()


def key_problem(key: str) -> str | None:
    """Say why this key cannot be sent in a header, without quoting it; ``None`` when it can."""
    if key != key.strip():
        return "begins or ends with white space or a line break"
    if not key.isascii():
        return "holds a character outside ASCII"
    if any(not "!" <= character <= "~" for character in key):
        return "holds a space or a control character"
    return None


def checked_base_url(url: str) -> str:
    """Return ``url`` without ``/v1``, which the SDK adds; :class:`ConfigurationError` when it is no HTTP address."""
    try:
        parts = urlsplit(url.strip())
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigurationError(
            "The base URL of the model service is not an HTTP address.",
            hint="Set base_url (or ANTHROPIC_BASE_URL) to something like https://gateway.example, without /v1.",
        )
    return url.strip().rstrip("/").removesuffix("/messages").removesuffix("/v1").rstrip("/")


def proxy_error(error: Exception) -> ConfigurationError:
    """Return what to do about a proxy setting that the HTTP client refuses."""
    if isinstance(error, ImportError):
        return ConfigurationError(
            "The proxy in ALL_PROXY, HTTPS_PROXY or HTTP_PROXY is a SOCKS proxy, which needs the package socksio.",
            hint="Install it in the server's environment (pip install socksio) or remove the variable.",
        )
    return ConfigurationError(
        "A proxy variable (ALL_PROXY, HTTPS_PROXY, HTTP_PROXY) is not the address of a proxy.",
        hint="Set it to something like http://proxy.example:3128, or remove it.",
    )


async def check(settings: Settings, model: str = "claude-haiku-5-5") -> None:
    """Check key, address, proxy and certificate with one real request; raise the error that names what to change."""
    options = AgentOptions.from_settings(settings, {"model": model})
    client = ModelClient(options.platform, options.base_url, stall=20.0)
    try:
        await client.check(model)
    finally:
        await client.aclose()


def sdk_client_name(platform: str, model: str) -> str:
    """Which of the SDK's clients speaks to a platform.

    Bedrock has two endpoints: inference profiles and versioned ids live on the older one. Google has two as well:
    the managed one needs a workspace, the other (Vertex AI) a region.
    """
    if platform == "bedrock":
        profile = re.match(r"(us|eu|jp|au|apac|global)\.|arn:", model) or ":" in model
        return "AsyncAnthropicBedrock" if profile else "AsyncAnthropicBedrockMantle"
    if platform == "google":
        managed = os.environ.get("ANTHROPIC_GOOGLE_CLOUD_WORKSPACE_ID")
        return "AsyncAnthropicGoogleCloud" if managed else "AsyncAnthropicVertex"
    return {"anthropic": "AsyncAnthropic", "foundry": "AsyncAnthropicFoundry"}[platform]


def wire_model(model: str, platform: str) -> str:
    """A model's name as the platform spells it: Bedrock's ids start with the maker's name."""
    if platform == "bedrock" and model.startswith("claude-"):
        return f"anthropic.{model}"
    return model


def _timeout(stall: float) -> Any:
    import httpx2

    return httpx2.Timeout(connect=6.0, read=stall, write=max(stall, 60.0), pool=30.0)


def _demo_transport() -> httpx2.AsyncBaseTransport:
    from .transports.demo import DemoTransport

    return DemoTransport()


@functools.cache
def _http_class() -> Any:
    """The SDK's HTTP client with one change: messages are spliced in before a request is signed or sent."""
    import anthropic

    class SplicingClient(anthropic.DefaultAsyncHttpxClient):
        def __init__(
            self,
            *,
            splice: Callable[[bytes], Chunks | None],
            secrets: Callable[[], list[str]],
            signed: bool,
            transport: Any,
            **options: Any,
        ) -> None:
            self._cambio_splice, self._cambio_signed, self._cambio_secrets = splice, signed, secrets
            if transport is not None:
                options["transport"] = transport
            super().__init__(**options)

        def build_request(self, method: Any, url: Any, *, content: Any = None, **options: Any) -> httpx2.Request:
            if isinstance(content, bytes) and (whole := self._cambio_splice(content)) is not None:
                if self._cambio_signed:  # AWS signs the body, so it must be there in one piece
                    content = bytes(whole)
                else:
                    content, options["headers"]["content-length"] = whole, str(whole.size)
                    options["extensions"] = {**(options.get("extensions") or {}), PIECES: whole.pieces}
            return super().build_request(method, url, content=content, **options)

        async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
            response = await super().send(request, **options)
            if response.status_code == 200 and request.method == "POST":
                kind = response.headers.get("content-type", "text/event-stream")
                if "event" not in kind:  # text/event-stream, or AWS's application/vnd.amazon.eventstream
                    raise not_messages(response, await _first_words(response), self._cambio_secrets())
                if not response.is_closed:
                    response.stream = bounded_class()(
                        response.stream,
                        whole_events="text/" in kind and "content-encoding" not in response.headers,
                    )
            return response

    return SplicingClient


async def _first_words(response: httpx2.Response) -> str:
    """Return the beginning of an answer, and close it."""
    text = ""
    async for chunk in response.aiter_text():
        text += chunk
        if len(text) > 2_000:
            break
    await response.aclose()
    return text


@functools.cache
def bounded_class() -> Any:
    """Return a stream class that ends a reply without end: too many bytes, or an event that never ends."""
    import httpx2

    class Bounded(httpx2.AsyncByteStream):
        def __init__(self, inner: httpx2.AsyncByteStream, *, whole_events: bool) -> None:
            self._inner = inner
            self._whole_events = whole_events
            self._waiting: list[bytes] = []

        async def __aiter__(self) -> AsyncGenerator[bytes, None]:
            total = 0
            slices = Slices()
            async for chunk in self._inner:
                total += len(chunk)
                if total > MAX_REPLY_BYTES:
                    raise too_long(f"{MAX_REPLY_BYTES} bytes")
                ready = self._complete(chunk) if self._whole_events else chunk
                if ready:
                    yield ready
                await slices.rest()
            if self._waiting:
                yield b"".join(self._waiting)

        def _complete(self, chunk: bytes) -> bytes:
            """Return what has arrived up to the last blank line: the SDK's search for it is quadratic in a piece."""
            ends = [at + len(blank) for blank in (b"\n\n", b"\r\n\r\n") if (at := chunk.rfind(blank)) >= 0]
            end = max(ends, default=len(chunk) if chunk.startswith((b"\n", b"\r\n")) else 0)
            if not end:
                self._waiting.append(chunk)
                if sum(map(len, self._waiting)) > MAX_EVENT_BYTES:
                    raise too_long(f"{MAX_EVENT_BYTES} bytes in one event")
                return b""
            ready = b"".join([*self._waiting, chunk[:end]])
            self._waiting = [chunk[end:]] if chunk[end:] else []
            return ready

        async def aclose(self) -> None:
            await self._inner.aclose()

    return Bounded


async def load_sdk() -> None:
    """Import the SDK now, in a thread: it takes a second, which the first message need not wait for."""
    await asyncio.to_thread(_toolset_parts)


def _toolset_parts() -> ToolsetParts:
    from anthropic.tools import ToolError
    from anthropic.tools.computer import (
        BetaAsyncAbstractComputerToolset20260801,
        BetaComputerCursorPositionResult,
        BetaScreenshotResult,
    )
    from anthropic.types.beta import BetaToolUseBlock

    def tool_use(call: Call) -> Any:
        return BetaToolUseBlock.construct(
            type="tool_use", id=call.id, name=call.name, input=call.arguments, toolset_name=call.toolset
        )

    return ToolsetParts(
        base=BetaAsyncAbstractComputerToolset20260801,
        screenshot=BetaScreenshotResult,
        position=BetaComputerCursorPositionResult,
        error=ToolError,
        tool_use=tool_use,
    )
