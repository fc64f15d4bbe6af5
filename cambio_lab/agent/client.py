"""The model service: the only importer of ``anthropic``, loaded on first use and off the event loop (it takes 1-2 s).

A :class:`ModelClient` sends one request and yields what comes back as small pieces. It never retries by itself: it
raises :class:`Transient` when another try may help, and the loop decides. The SDK builds everything but the messages,
which are sent as they were serialised when they joined the history.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, InvalidRequest, MissingKey
from . import models
from .models import TOOLSET, ModelInfo
from .options import AgentOptions, TurnOptions
from .reply import Piece, Reader, Sent, Slices
from .service_errors import checked_base_url, classify, key_problem, proxy_error
from .transcript import OUTGOING, Body

if TYPE_CHECKING:
    import httpx2

    from ..settings import Settings
    from .http import DirectedTransport
    from .tools import Call

KEY_VARIABLES = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")


@dataclass(frozen=True)
class ToolsetParts:
    """What the tools need of the SDK, fetched here so that nothing else imports it: two modules and the error."""

    computer: Any
    browser: Any
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

    async def open(self, model: str) -> None:
        """Load the SDK and make its client, once. :class:`MissingKey` says which variable to set."""
        async with self._opening:
            if self._client is None:
                self._check_key(model)
                self._client = await asyncio.to_thread(self._make, model)

    def output_format(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Return a JSON schema as structured outputs take it; what they do not know becomes part of descriptions."""
        from anthropic import transform_schema

        try:
            return {"type": "json_schema", "schema": transform_schema(dict(schema))}
        except (ValueError, TypeError, AttributeError, AssertionError) as error:
            raise InvalidRequest(
                f"answer_schema cannot be asked for: {error}", details={"answer_schema": "not supported"}
            ) from None

    async def stream(self, parameters: dict[str, Any], body: Body) -> AsyncGenerator[Piece, None]:
        """Send one request; yield ``Sent``, ``Started``, deltas, and last the whole :class:`Reply`.

        ``parameters`` are the SDK's keyword arguments of ``create``, without ``messages``.
        Raises :class:`Transient`, or a :class:`~cambio_lab.errors.CambioError` that no retry fixes.
        Closing the iterator closes the connection.
        """
        await self.open(parameters["model"])
        reader, slices = Reader(), Slices()
        sent: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
        entering = asyncio.create_task(self._begin(parameters, body, sent))
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
            raise classify(error, self._address(), self._secrets()) from error
        finally:  # close the connection, whether or not the reply had begun; a late answer is dropped
            if not entering.done():
                entering.cancel()
                await asyncio.wait({entering})
            if not entering.cancelled() and entering.exception() is None:
                await entering.result().close()

    async def aclose(self) -> None:
        """Close the connections; the next request opens them again."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    async def _begin(self, parameters: dict[str, Any], body: Body, sent: asyncio.Future[Sent]) -> Any:
        """Send the request; runs as a task of its own, so the variable is set for this request alone."""
        OUTGOING.set((body, lambda found: None if sent.done() else sent.set_result(found)))
        return await self._client.beta.messages.create(messages=[], stream=True, **parameters)

    async def check(self, model: str) -> None:
        """Make one real request of a few tokens; raise what a turn would raise, without trying again."""
        await self.open(model)
        parameters = {"model": models.wire_model(model, self.platform), "max_tokens": 16}
        message = {"role": "user", "content": "Reply with OK."}
        try:
            stream = await self._client.beta.messages.create(messages=[message], stream=True, **parameters)
            await stream.close()
        except Exception as error:
            raise classify(error, self._address(), self._secrets()) from error

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

    def _make(self, model: str) -> Any:
        """The SDK's client for the platform, over our HTTP client; runs in a thread (certificates take a while)."""
        import anthropic

        from . import http  # with httpx2, which no server needs before its first message

        transport = self.transport
        if transport is None and model == models.DEMO:
            from .demo import DemoTransport

            transport = DemoTransport()
        url = self.base_url or (os.environ.get("ANTHROPIC_BASE_URL", "") if self.platform == "anthropic" else "")
        base_url = checked_base_url(url) if url else ""
        try:
            connection = http.http_class(anthropic.DefaultAsyncHttpxClient)(
                secrets=self._secrets,
                signed=self.platform in ("aws", "bedrock"),
                timeout=http.timeouts(self.stall),
                transport=transport,
                follow_redirects=False,  # the key would go along, to whatever address is named
            )
        except (ImportError, ValueError, OSError) as error:
            raise proxy_error(error) from error
        if self.wrap is not None:
            # httpx2 offers no public way: `transport=` would replace its own, with its proxies and limits.
            inner = connection._mounts.items()
            connection._transport = self.wrap(connection._transport)
            connection._mounts = {pattern: one and self.wrap(one) for pattern, one in inner}
        options: dict[str, Any] = {"http_client": connection, "max_retries": 0}
        if base_url:
            options["base_url"] = base_url
        if self.platform == "anthropic" and (self.transport is not None or model == models.DEMO):
            options["api_key"] = self.api_key or os.environ.get("ANTHROPIC_API_KEY") or "not-needed"
        elif self.api_key:
            options["api_key"] = self.api_key
        try:
            return vars(anthropic)[sdk_client_name(self.platform, model)](**options)
        except (ValueError, ImportError, anthropic.AnthropicError) as error:
            raise ConfigurationError(
                f"The {self.platform} client cannot be made: {error}", hint="See docs/agent.md, Platforms."
            ) from error


async def check(settings: Settings, model: str = "claude-haiku-5-5") -> None:
    """Check key, address, proxy and certificate with one real request; raise the error that names what to change."""
    options = AgentOptions.from_settings(settings, {"model": model})
    client = ModelClient(options.platform, options.base_url, stall=20.0)
    try:
        await client.check(model)
    finally:
        await client.aclose()


def sdk_client_name(platform: str, model: str) -> str:
    """Return which of the SDK's clients speaks to a platform.

    Bedrock has two endpoints: inference profiles and versioned ids live on the older one. Google has two as well:
    the managed one needs a workspace, the other (Vertex AI) a region.
    """
    if platform == "bedrock":
        profile = re.match(r"(us|eu|jp|au|apac|global)\.|arn:", model) or ":" in model
        return "AsyncAnthropicBedrock" if profile else "AsyncAnthropicBedrockMantle"
    if platform == "google":
        managed = os.environ.get("ANTHROPIC_GOOGLE_CLOUD_WORKSPACE_ID")
        return "AsyncAnthropicGoogleCloud" if managed else "AsyncAnthropicVertex"
    names = {"anthropic": "AsyncAnthropic", "aws": "AsyncAnthropicAWS", "foundry": "AsyncAnthropicFoundry"}
    return names[platform]


async def load_sdk() -> ToolsetParts:
    """Import the SDK in a thread: it takes a second, which the first message need not wait for."""
    return await asyncio.to_thread(_toolset_parts)


def _toolset_parts() -> ToolsetParts:
    from anthropic.tools import ToolError, browser, computer
    from anthropic.types.beta import BetaToolUseBlock

    def tool_use(call: Call) -> Any:
        return BetaToolUseBlock.construct(
            type="tool_use", id=call.id, name=call.name, input=call.arguments, toolset_name=call.toolset
        )

    return ToolsetParts(computer, browser, ToolError, tool_use)


class Speaker:
    """What answers a turn's requests: the model, or a client that gives its calls itself and needs no key for that."""

    def __init__(self, model: ModelClient) -> None:
        self._model = model
        self._direct: tuple[ModelClient, DirectedTransport] | None = None
        self.client = model

    @property
    def by_client(self) -> bool:
        return self.client is not self._model

    def choose(self, asked: TurnOptions | None, info: ModelInfo) -> None:
        """Choose for the turn that begins."""
        self.client = self._model
        if asked is None or not asked.calls:
            return
        from .http import DirectedTransport  # with httpx2

        if self._direct is None:
            model, transport = self._model, DirectedTransport()
            given: dict[str, Any] = {"stall": model.stall, "api_key": model.api_key, "wrap": model.wrap}
            self._direct = ModelClient(transport=model.transport or transport, **given), transport  # a replay stays one
        self.client, transport = self._direct
        transport.direct(asked.calls, toolset=info.tool == TOOLSET)

    async def aclose(self) -> None:
        if self._direct is not None:
            await self._direct[0].aclose()
        await self._model.aclose()
