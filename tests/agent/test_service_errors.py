"""Configuration faults of the model's service: found before or at the first request, named, never retried."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Any

import httpx2
import pytest

from cambio_lab.agent.client import ModelClient, Speaker
from cambio_lab.agent.service_errors import checked_base_url, key_problem
from cambio_lab.errors import ConfigurationError
from cambio_lab.events import ModelReplied, Retrying, StatusChanged, TurnFailed, TurnFinished
from tests.messages_api import MessagesApi

from .conftest import MakeAgent, of, play
from .scripted import Scripted, error, events, reply, text
from .scripted import encode as encoded


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cambio_lab.agent.service_errors.backoff", lambda attempt, retry_after: 0.0)


async def failure(make: MakeAgent, service: Any) -> tuple[TurnFailed, int]:
    """The turn's failure and how often it was tried again."""
    found = await play(make(service))
    assert isinstance(found[-1], TurnFailed), found[-1]
    return found[-1], len(of(found, Retrying))


@pytest.mark.parametrize(
    "key",
    [
        "sk-ant-secret1\n",
        "sk-ant-sec ret1",
        "sk-ant-secrét1",
        "\tsk-ant-secret1",
        "sk-ant-sec\x7fret1",
        '"sk-ant-secret1"',
    ],
)
async def test_a_key_that_no_header_can_hold_is_refused_before_anything_is_sent(
    key: str, make: MakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", key)
    client = ModelClient(base_url="http://127.0.0.1:9")
    with pytest.raises(Exception, match="ANTHROPIC_API_KEY") as caught:
        await client.open("claude-sonnet-5-5")
    assert type(caught.value).__name__ == "ConfigurationError"
    assert key.strip() not in str(caught.value) + "".join(caught.value.__notes__)
    assert key_problem("sk-ant-secret1") is None


@pytest.mark.parametrize(
    "url",
    [
        *("localhost:8080", "ftp://x", "https://", "http://[::1", "http://x:99999", "not a url", "'http://x'"),
        *("http://x y.example", "http://x/v1?beta=true", "http://x/#v1"),
    ],
)
def test_a_base_url_that_is_no_http_address_is_refused(url: str) -> None:
    with pytest.raises(Exception, match="base URL"):
        checked_base_url(url)


@pytest.mark.parametrize("ending", ["/v1", "/v1/", "/", "/V1//", "/v1/messages"])
async def test_a_base_url_may_end_in_v1(ending: str, make: MakeAgent, api: MessagesApi) -> None:
    client = ModelClient(base_url=api.base_url + ending, api_key=api.key)
    await client.check("claude-sonnet-5-5")
    await client.aclose()
    assert [request.path for request in api.requests] == ["/v1/messages"]


@pytest.mark.parametrize("name", ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"])
async def test_a_socks_proxy_without_its_package_says_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "socksio", None)
    monkeypatch.setenv(name, "socks5://127.0.0.1:9")
    client = ModelClient(api_key="sk-ant-secret1")
    with pytest.raises(Exception, match="socksio") as caught:
        await client.open("claude-sonnet-5-5")
    assert type(caught.value).__name__ == "ConfigurationError"


async def test_certificates_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file.pem")
    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
        await ModelClient(base_url="https://127.0.0.1:9", api_key="sk-ant-secret1").open("claude-sonnet-5-5")


async def test_a_proxy_that_does_not_answer_is_thought_of(api: MessagesApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@127.0.0.1:9")
    client = ModelClient(base_url=api.base_url, api_key=api.key)
    with pytest.raises(Exception, match="a proxy is set: HTTP_PROXY") as caught:
        await client.check("claude-sonnet-5-5")
    await client.aclose()
    assert "secret" not in str(caught.value)


async def test_a_login_page_with_200_is_quoted_and_not_tried_again(make: MakeAgent) -> None:
    page = "<!doctype html><title>Log in to Acme</title> key=test-key sk-ant-abcdefgh " + "x" * 5000
    answer = httpx2.Response(200, headers={"content-type": "text/html; charset=utf-8"}, text=page)
    end, retries = await failure(make, Scripted(answer))
    assert retries == 0 and end.kind == "ConfigurationError"
    for expected in ("200", "text/html", "Log in to Acme", "api.anthropic.com", "base URL"):
        assert expected in end.details
    assert "sk-ant-abcdefgh" not in end.details and len(end.details) < 600


async def test_a_refusal_names_address_status_and_first_words(make: MakeAgent) -> None:
    answer = httpx2.Response(404, headers={"content-type": "text/html"}, text="<h1>nothing at this path</h1>")
    end, retries = await failure(make, Scripted(answer))
    assert retries == 0
    for expected in ("404", "https://api.anthropic.com/v1/messages", "nothing at this path", "base URL"):
        assert expected in end.details


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_with_the_key(status: int, make: MakeAgent) -> None:
    headers = {"location": "https://login.acme.example/start?t=sk-ant-abcdefgh"}
    service = Scripted(httpx2.Response(status, headers=headers), repeat=True)
    end, retries = await failure(make, service)
    assert retries == 0 and end.kind == "ConfigurationError" and len(service.requests) == 1
    for expected in (str(status), "api.anthropic.com", "https://login.acme.example/start", "base URL"):
        assert expected in end.details
    assert "sk-ant" not in end.details


@pytest.mark.parametrize(
    ("answer", "words", "retries"),
    [
        (httpx2.Response(413, text="<h1>413 Request Entity Too Large</h1>"), "too large to send", 0),
        (httpx2.Response(529), "is overloaded", 8),
        (httpx2.Response(502, text="<h1>Bad gateway</h1>"), "answered 502 (<h1>Bad gateway</h1>)", 8),
        (httpx2.Response(504), "https://api.anthropic.com/v1/messages answered 504.", 8),
        (httpx2.Response(500, text="a\x00\x1b[31mred"), "answered 500 (a [31mred)", 8),
        (httpx2.Response(511, text="<h1>Network login</h1>"), "what stands between here and the service", 0),
        (httpx2.Response(407, text="<h1>Proxy login</h1>"), "HTTPS_PROXY", 0),
        (httpx2.Response(405), "check the base URL", 0),
        (httpx2.Response(429, headers={"retry-after": "nan"}), "is rate limited", 8),
        (httpx2.Response(429, headers={"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}), "is rate limited", 8),
        (httpx2.Response(402, text="no credit"), "billing page", 0),
        (httpx2.Response(204), "without a stop reason", 3),
        (lambda request: encoded(events([text("Hello")]))[:180], "without a stop reason", 3),
        (lambda request: encoded(events([text("Hello")])).replace(b'_delta"', b"_delta", 1), "not JSON", 3),
    ],
)
async def test_each_odd_answer_is_named(answer: Any, words: str, retries: int, make: MakeAgent) -> None:
    end, tried = await failure(make, Scripted(answer, repeat=True))
    assert words in end.details and tried == retries


def streamed(body: bytes, kind: str = "text/event-stream") -> Any:
    return lambda request: httpx2.Response(200, headers={"content-type": kind}, stream=httpx2.ByteStream(body))


@pytest.mark.parametrize(
    "answer",
    [
        streamed(b"\xef\xbb\xbf" + encoded(events([text("Hello")]))),
        streamed(b": ping\n\n" + encoded(events([text("Hello")])), "text/plain"),
        streamed(encoded(events([text("Hello")])), "application/octet-stream"),
        streamed(encoded(events([text("Hello")])).replace(b"\n", b"\r\n")),
    ],
    ids=["byte order mark", "text/plain", "octet-stream", "CRLF"],
)
async def test_events_of_another_media_type_or_with_a_mark_before_them_are_a_reply(
    answer: Any, make: MakeAgent
) -> None:
    found = await play(make(Scripted(answer, repeat=True)))
    assert isinstance(found[-1], TurnFinished) and found[-1].text == "Hello" and not of(found, Retrying)


@pytest.mark.parametrize(
    ("body", "words", "retries"),
    [
        (b"<html>Sign in</html>", "answered 200 with text/event-stream instead of a reply: '<html>Sign in</html>'", 0),
        (b"", "the reply from https://api.anthropic.com was broken (it was empty)", 3),
    ],
)
async def test_a_stream_without_any_event_says_what_came(
    body: bytes, words: str, retries: int, make: MakeAgent
) -> None:
    end, tried = await failure(make, Scripted(streamed(body), repeat=True))
    assert words in end.details and tried == retries


@pytest.mark.parametrize(
    "usage",
    [
        *({"input_tokens": -5, "output_tokens": -(10**9)}, {"input_tokens": "12", "output_tokens": 2.5}, [], "none"),
        {"input_tokens": 10**30, "output_tokens": float("inf"), "iterations": 3, "cache_creation": "x"},
    ],
)
async def test_counts_that_cannot_be_are_estimated_and_the_reply_counts(usage: Any, make: MakeAgent) -> None:
    found = events([text("Hello, " * 50)])
    found[0][1]["message"]["usage"] = found[-2][1]["usage"] = usage
    service = Scripted(streamed(encoded(found)), repeat=True)
    told = await play(make(service))
    assert isinstance(told[-1], TurnFinished) and len(service.requests) == 1
    assert 0 < of(told, ModelReplied)[0].usage.cost_usd < 1


async def test_a_reply_that_cannot_be_decompressed_is_named(make: MakeAgent) -> None:
    headers = {"content-type": "text/event-stream", "content-encoding": "gzip"}

    def broken(request: Any) -> httpx2.Response:
        return httpx2.Response(200, headers=headers, stream=httpx2.ByteStream(b"not compressed"))

    end, tried = await failure(make, Scripted(broken, repeat=True))
    assert "could not be decompressed" in end.details and tried == 3


async def test_an_address_that_refuses_connections_fails_fast_with_progress(make: MakeAgent) -> None:
    with MessagesApi() as gone:
        address, key = gone.base_url, gone.key
    client = ModelClient(base_url=address, api_key=key)
    agent = make(Scripted())
    agent._speaker = Speaker(client)
    found = await asyncio.wait_for(play(agent), 10)
    await client.aclose()
    assert isinstance(found[-1], TurnFailed) and len(of(found, Retrying)) == 2
    assert address in found[-1].details and address in of(found, Retrying)[0].reason


@pytest.mark.parametrize(
    ("cause", "words", "retries"),
    [
        (ssl.SSLCertVerificationError(1, "self-signed"), "SSL_CERT_FILE", 0),
        (ssl.SSLError(1, "wrong version number"), "TLS", 0),
        (httpx2.LocalProtocolError("Illegal header value b'sk-ant-secret1'"), "ANTHROPIC_API_KEY", 0),
        (UnicodeEncodeError("ascii", "é", 0, 1, "no"), "non-ASCII", 0),
        (httpx2.UnsupportedProtocol("ftp"), "HTTP address", 0),
        (__import__("socket").gaierror(-2, "Name or service not known"), "cannot be resolved", 2),
        (httpx2.ConnectTimeout("slow"), "in time", 2),
        (httpx2.ProxyError("403"), "proxy", 2),
    ],
)
async def test_each_connection_fault_is_named(cause: Exception, words: str, retries: int, make: MakeAgent) -> None:
    def fail(request: dict[str, Any]) -> bytes:
        outer = cause if isinstance(cause, httpx2.TransportError) else httpx2.ConnectError("failed")
        raise outer from (None if outer is cause else cause)

    end, tried = await failure(make, Scripted(fail, repeat=True))
    assert words in end.details and tried == retries
    assert "sk-ant-secret1" not in end.details


def without_usage() -> bytes:
    found = events([text("Hello, " * 50)])
    for _, data in found:
        for holder in (data, data.get("message", {})):
            if "usage" in holder:
                holder["usage"] = None
    return encoded(found)


async def test_a_gateway_without_usage_is_not_asked_again_and_still_counts_as_spending(make: MakeAgent) -> None:
    service = Scripted(without_usage(), repeat=True)
    agent = make(service, max_cost_usd=0.01)
    found = await play(agent)
    assert isinstance(found[-1], TurnFinished) and len(service.requests) == 1
    assert of(found, ModelReplied)[0].usage.cost_usd > 0
    for _ in range(20):
        found = await play(agent)
        if isinstance(found[-1], TurnFinished) and found[-1].limit == "max_cost_usd":
            break
    else:
        pytest.fail("max_cost_usd did not end a turn")


async def test_the_check_raises_what_a_turn_would_raise() -> None:
    for status, words in ((401, "ANTHROPIC_API_KEY"), (404, "base URL"), (400, "400")):
        client = ModelClient(transport=Scripted(error(status, "invalid_request_error")))
        with pytest.raises(Exception) as caught:
            await client.check("claude-haiku-5-5")
        assert type(caught.value).__name__ == "ModelRejected" and words in caught.value.describe()  # type: ignore[attr-defined]
    client = ModelClient(transport=Scripted(reply(text("OK"))))
    await client.check("claude-haiku-5-5")


async def test_a_refused_summary_is_told_to_people_and_to_the_log(
    make: MakeAgent, api: MessagesApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from .test_transcript import _count_steps

    monkeypatch.setattr("cambio_lab.agent.turn.COMPACTION_BETA", "some-other-beta")
    from tests.messages_api import View

    api.policy = _count_steps(View)
    found = await play(make(api, max_steps=0, max_cost_usd=0))
    api.refusals.clear()
    told = [event for event in of(found, StatusChanged) if event.metadata.get("event") == "request_refused"]
    assert len(told) == 1 and told[0].metadata["status"] == 400 and "compaction" in json.dumps(told[0].metadata)
    assert any(record.levelname == "ERROR" and "summar" in record.getMessage() for record in caplog.records)
