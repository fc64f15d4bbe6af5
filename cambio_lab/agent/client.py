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

from ..errors import ConfigurationError, MissingKey
from . import models
from .reply import Announced, Piece, Reader, Reply, Sent, Started, Text, Thought
from .service_errors import Transient, classify
from .splice import PIECES, Body, Chunks

if TYPE_CHECKING:
    import httpx2

    from .tools.call import Call

__all__ = ["Announced", "ModelClient", "ModelRequest", "Reply", "Sent", "Started", "Text", "Thought", "Transient"]

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
            raise classify(error, reader.usage) from error
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
        with warnings.catch_warnings():  # the table of models says when a model reaches its end of life
            warnings.simplefilter("ignore")
            creating = self._client.beta.messages.create(messages=messages, stream=True, **parameters)
        return await creating

    def _splice(self, content: bytes) -> Chunks | None:
        """The body with the prepared messages where the placeholder stands; ``None`` where there is none."""
        found = PLACEHOLDER.search(content)
        if found is None:
            return None
        body, told = self._bodies[found[1].decode()]
        whole, digest = body.assemble(content[: found.start()], content[found.end() :])
        told(Sent(digest, whole.size, body.images))
        return whole

    def _check_key(self, model: str) -> None:
        if self.platform != "anthropic" or self.transport is not None or self.api_key or model == models.DEMO:
            return
        if not (os.environ.get("ANTHROPIC_API_KEY") or os.environ.get("ANTHROPIC_AUTH_TOKEN")):
            raise MissingKey(
                "The server has no key for the Claude API.",
                hint="Set ANTHROPIC_API_KEY in the server's environment and restart it, "
                'or create the session with the model "demo", which needs none.',
            )

    def _make(self, model: str) -> Any:
        """The SDK's client for the platform, over our HTTP client; runs in a thread (certificates take a while)."""
        import anthropic

        transport = self.transport
        if transport is None and model == models.DEMO:
            transport = _demo_transport()
        http = _http_class()(
            splice=self._splice,
            signed=self.platform == "bedrock",
            timeout=_timeout(self.stall),
            transport=transport,
        )
        if self.wrap is not None:
            # httpx2 offers no way round: `transport=` would replace its own, with its proxies and limits
            http._transport = self.wrap(http._transport)
            http._mounts = {pattern: one and self.wrap(one) for pattern, one in http._mounts.items()}
        options: dict[str, Any] = {"http_client": http, "max_retries": 0}
        if self.base_url:
            options["base_url"] = self.base_url
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

    return httpx2.Timeout(connect=10.0, read=stall, write=max(stall, 60.0), pool=30.0)


def _demo_transport() -> httpx2.AsyncBaseTransport:
    from .transports.demo import DemoTransport

    return DemoTransport()


@functools.cache
def _http_class() -> Any:
    """The SDK's HTTP client with one change: messages are spliced in before a request is signed or sent."""
    import anthropic

    class SplicingClient(anthropic.DefaultAsyncHttpxClient):
        def __init__(
            self, *, splice: Callable[[bytes], Chunks | None], signed: bool, transport: Any, **options: Any
        ) -> None:
            self._cambio_splice, self._cambio_signed = splice, signed
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

    return SplicingClient


@functools.cache
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
