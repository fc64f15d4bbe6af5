"""The stand-in's HTTP side: asyncio sockets in a thread of its own, so that it can also break connections properly."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from . import failures
from .failures import Failure
from .models import MODELS
from .policies import Policy
from .refusal import Refused, envelope, status_of
from .replies import encode, events
from .service import MAX_REQUEST, Answer, Service, betas_of

_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


@dataclass(frozen=True)
class Recorded:
    """One request as it came: for assertions. ``status`` is what it was answered with."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Any
    size: int
    time: float
    status: int = 0
    error: str = ""


class MessagesApi:
    """A strict local Messages API.

    ::

        with MessagesApi(policy=ColorTarget("#00c853")) as api:
            client = AsyncAnthropic(base_url=api.base_url, api_key=api.key)

    ``requests`` holds every call to ``/v1/messages``, answered or refused; ``refusals`` the messages of refusals that
    nobody ordered: a test that expects none asserts that it is empty. ``delay`` is model time before the first event,
    ``pace`` seconds between events.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        key: str = "test-key",
        port: int = 0,
        delay: float = 0.0,
        pace: float = 0.0,
    ) -> None:
        self.service = Service(key=key) if policy is None else Service(policy=policy, key=key)
        self.requests: list[Recorded] = []
        self.refusals: list[str] = []
        self.delay, self.pace = delay, pace
        self._port = port
        self._failures: deque[Failure] = deque()
        self._ids = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="messages-api", daemon=True)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    # What tests use
    @property
    def policy(self) -> Policy:
        return self.service.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self.service.policy = policy

    @property
    def key(self) -> str:
        return self.service.key

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that send a server process here."""
        return {"ANTHROPIC_API_KEY": self.key, "ANTHROPIC_BASE_URL": self.base_url}

    @property
    def spent_usd(self) -> float:
        return self.service.spent_usd

    @property
    def bodies(self) -> list[Any]:
        """The bodies of the requests that were answered with 200."""
        return [request.body for request in self.requests if request.status == 200]

    def fail(self, *ordered: Failure, times: int = 1) -> None:
        """Let the next requests fail like this, in order."""
        self._failures.extend(ordered * times)

    def stop_answering(self) -> None:
        """From now on every connection is refused, as if there were no network."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)

    # Life
    def start(self) -> MessagesApi:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def __enter__(self) -> MessagesApi:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", self._port, limit=2**20)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._server is not None
        # A connection that was accepted a moment ago gets its task first: asyncio would leave its socket open.
        for listener in self._server.sockets:
            self._loop.remove_reader(listener.fileno())
        await _rounds(8)
        self._server.close()  # twice is fine
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await _rounds(2)  # sockets are closed one step later

    # One connection
    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or the stand-in is being stopped
        finally:
            self._open.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *rest = head.decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (item.partition(":") for item in rest if item)
        }
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        url = urlsplit(target)
        request = Recorded(method, url.path, parse_qs(url.query), headers, None, len(raw), time.time())
        request_id = f"req_{next(self._ids):024d}"
        try:
            return await self._route(request, raw, writer, request_id)
        except Refused as refused:
            if url.path.startswith("/v1/messages"):
                self._note(request, _parse(raw), refused.status, refused.message)
                self.refusals.append(refused.message)
            await self._json(writer, refused.status, refused.envelope(request_id), request_id)
            return True
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            self.refusals.append(f"the stand-in itself failed: {error!r}")
            await self._json(writer, 500, envelope("api_error", repr(error), request_id), request_id)
            raise

    async def _route(self, request: Recorded, raw: bytes, writer: asyncio.StreamWriter, request_id: str) -> bool:
        self._authenticate(request.headers)
        if request.method == "GET" and request.path.startswith("/v1/models"):
            await self._json(writer, 200, _models(request.path.removeprefix("/v1/models").strip("/")), request_id)
            return True
        if request.method != "POST" or request.path not in {"/v1/messages", "/v1/messages/count_tokens"}:
            raise Refused("Not found", "not_found_error")
        if len(raw) > MAX_REQUEST:
            raise Refused("Request exceeds the maximum size", "request_too_large")
        body, betas = _parse(raw), betas_of(request.headers)
        if not isinstance(body, dict):
            raise Refused("The request body is not valid JSON")
        if request.path.endswith("count_tokens"):
            await self._json(writer, 200, {"input_tokens": self.service.count(body, betas)}, request_id)
            return True
        failure = self._failures.popleft() if self._failures else Failure()
        if await self._fail_early(failure, request, body, writer, request_id):
            return isinstance(failure, failures.ErrorStatus | failures.BadGateway)
        answer = self.service.answer(body, betas)
        self._note(request, body, 200)
        await asyncio.sleep(self.delay)
        if not body.get("stream"):
            await self._json(writer, 200, {**answer.message, **answer.final}, request_id)
            return True
        return await self._stream(answer, failure, writer, request_id)

    def _authenticate(self, headers: dict[str, str]) -> None:
        # SDK 2.12 sends the key as a bearer token, programs written from the reference as x-api-key
        given = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if given != self.key:
            raise Refused("invalid x-api-key" if given else "x-api-key header is required", "authentication_error")
        if "anthropic-version" not in headers:
            raise Refused("anthropic-version: header is required")

    def _note(self, request: Recorded, body: Any, status: int, error: str = "") -> None:
        values = {**request.__dict__, "body": body, "status": status, "error": error}
        self.requests.append(Recorded(**values))

    async def _fail_early(
        self, failure: Failure, request: Recorded, body: Any, writer: asyncio.StreamWriter, request_id: str
    ) -> bool:
        """Failures instead of an answer; whether there was one."""
        if isinstance(failure, failures.ErrorStatus):
            extra = dict(failure.headers)
            if failure.retry_after is not None:
                extra["retry-after"] = failure.retry_after
            status = status_of(failure.kind)
            await self._json(writer, status, envelope(failure.kind, failure.message, request_id), request_id, extra)
        elif isinstance(failure, failures.BadGateway):
            status = failure.status
            page = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
            await self._send(writer, status, "text/html", page, {})
        elif isinstance(failure, failures.Break) and failure.after == 0:
            status = 0
            _reset(writer)
        else:
            if isinstance(failure, failures.Stall) and failure.after == 0:
                await asyncio.sleep(failure.seconds)
            return False
        self._note(request, body, status, type(failure).__name__)
        return True

    async def _stream(self, answer: Answer, failure: Failure, writer: asyncio.StreamWriter, request_id: str) -> bool:
        head = ["HTTP/1.1 200 OK", "content-type: text/event-stream; charset=utf-8", "cache-control: no-cache"]
        head += [f"request-id: {request_id}", "transfer-encoding: chunked"]
        writer.write("\r\n".join([*head, "", ""]).encode())
        after = getattr(failure, "after", -1)
        for sent, (name, body) in enumerate(events(answer.message, answer.final)):
            if sent == after:
                if isinstance(failure, failures.Break):
                    await writer.drain()
                    _reset(writer)
                    return False
                if isinstance(failure, failures.Stall):
                    await asyncio.sleep(failure.seconds)
                if isinstance(failure, failures.SseError):
                    _chunk(writer, encode("error", {"error": {"type": failure.kind, "message": failure.message}}))
                if isinstance(failure, failures.SseError | failures.NoStop):
                    break
            _chunk(writer, encode(name, body))
            if self.pace:
                await writer.drain()
                await asyncio.sleep(self.pace)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _json(
        self, writer: asyncio.StreamWriter, status: int, body: Any, request_id: str, extra: dict[str, str] | None = None
    ) -> None:
        await self._send(
            writer, status, "application/json", json.dumps(body).encode(), {"request-id": request_id, **(extra or {})}
        )

    @staticmethod
    async def _send(
        writer: asyncio.StreamWriter, status: int, media_type: str, body: bytes, extra: dict[str, str]
    ) -> None:
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}", f"content-type: {media_type}"]
        lines += [f"content-length: {len(body)}", *(f"{name}: {value}" for name, value in extra.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()


async def _rounds(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))


def _reset(writer: asyncio.StreamWriter) -> None:
    """Drop the connection as a crashed proxy would: RST, no goodbye."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _models(name: str) -> dict[str, Any]:
    if not name:
        found = [model.describe() for model in MODELS.values()]
        return {"data": found, "has_more": False, "first_id": found[0]["id"], "last_id": found[-1]["id"]}
    if name not in MODELS:
        raise Refused(f"model: {name}", "not_found_error")
    return MODELS[name].describe()
