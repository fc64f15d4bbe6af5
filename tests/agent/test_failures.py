"""The service failing in every documented way: retried in the open where that helps, said plainly where not."""

from __future__ import annotations

import time
from email.utils import formatdate

import httpx2
import pytest

from cambio_lab.agent import Gate
from cambio_lab.agent.service_errors import backoff, retry_after
from cambio_lab.events import Retrying, TextDelta, ToolStarted, TurnFailed, TurnFinished
from tests.messages_api import BadGateway, Break, MessagesApi, NoStop, Script, SseError, Stall, member, screenshot
from tests.messages_api import reply as answer
from tests.messages_api.failures import ErrorStatus, Failure

from .conftest import MakeAgent, of, play
from .fake_desktop import FakeDesktop
from .scripted import Scripted, encode, error, events, reply, text, use

PASSING: dict[str, Failure] = {
    "429": ErrorStatus("rate_limit_error", "0.05"),
    "429 in milliseconds": ErrorStatus("rate_limit_error", headers=(("retry-after-ms", "30"),)),
    "529": ErrorStatus("overloaded_error"),
    "500": ErrorStatus("api_error"),
    "502 from a proxy": BadGateway(),
    "reset before the answer": Break(after=0),
    "reset in the stream": Break(after=5),
    "error in the stream": SseError(after=4),
    "rate limited in the stream": SseError(after=4, kind="rate_limit_error"),
    "error before the message": SseError(after=0),
    "end without a stop": NoStop(after=6),
    "end before the message": NoStop(after=0),
    "end inside a call": NoStop(after=9),
    "stall in the stream": Stall(after=5, seconds=30),
    "stall before the answer": Stall(after=0, seconds=30),
}


@pytest.mark.parametrize("name", PASSING)
async def test_a_passing_failure_is_retried_in_the_open(
    name: str, make: MakeAgent, api: MessagesApi, desktop: FakeDesktop
) -> None:
    api.policy = Script([answer("I look.", screenshot(), member("left_click", coordinate=[5, 5]))], end="Done.")
    agent = make(api, model_stall=0.4)
    await play(agent)  # loads the SDK
    desktop.done.clear()
    agent.clear()
    api.fail(PASSING[name])
    found = await play(agent)
    (waiting,) = of(found, Retrying)
    assert waiting.attempt == 1 and waiting.reason and waiting.retry_at > time.time() - 60
    assert isinstance(found[-1], TurnFinished) and found[-1].text == "Done."
    assert [entry[0] for entry in desktop.done].count("click") == 1, "nothing ran twice"
    assert len(of(found, ToolStarted)) == 2
    assert api.refusals == []


async def test_text_of_a_broken_reply_is_declared_void(make: MakeAgent, api: MessagesApi) -> None:
    api.policy = Script([], end="The whole answer, in several pieces.")
    api.fail(Break(after=6))
    found = await play(make(api))
    at = next(index for index, event in enumerate(found) if isinstance(event, Retrying))
    before = "".join(event.text for event in found[:at] if isinstance(event, TextDelta))
    after = "".join(event.text for event in found[at:] if isinstance(event, TextDelta))
    assert found[at].dropped_text == len(before) > 0  # type: ignore[attr-defined]
    assert after == found[-1].text  # type: ignore[attr-defined]


@pytest.mark.timing
async def test_retry_after_is_honoured_and_shown(make: MakeAgent, api: MessagesApi) -> None:
    api.fail(ErrorStatus("rate_limit_error", "1"))
    started = time.monotonic()
    found = await play(make(api))
    (waiting,) = of(found, Retrying)
    assert 1.0 <= waiting.delay_seconds <= 2.0
    assert time.monotonic() - started >= 1.0
    assert "rate limited" in waiting.reason


async def test_retries_end_with_the_services_words(make: MakeAgent, api: MessagesApi) -> None:
    api.fail(ErrorStatus("overloaded_error", "0"), times=3)
    found = await play(make(api, model_retries=2))
    assert [event.attempt for event in of(found, Retrying)] == [1, 2]
    end = found[-1]
    assert isinstance(end, TurnFailed) and not end.fatal
    assert "overloaded" in end.error and "3 times" in end.details


async def test_replies_that_keep_breaking_are_given_up(make: MakeAgent) -> None:
    broken = encode(events([text("Half")])[:-1])
    model = Scripted(broken, repeat=True)
    found = await play(make(model))
    assert isinstance(found[-1], TurnFailed) and "ended without a stop reason" in found[-1].error
    assert len(model.requests) == 4


@pytest.mark.parametrize(
    ("status", "kind", "hint"),
    [
        (400, "invalid_request_error", "refused"),
        (401, "authentication_error", "ANTHROPIC_API_KEY"),
        (402, "billing_error", "credit"),
        (403, "permission_error", "key may not"),
        (404, "not_found_error", "table of models"),
        (413, "request_too_large", "new session"),
    ],
)
async def test_what_another_try_cannot_mend_ends_the_turn(make: MakeAgent, status: int, kind: str, hint: str) -> None:
    model = Scripted(error(status, kind))
    found = await play(make(model))
    end = found[-1]
    assert isinstance(end, TurnFailed) and not end.fatal
    assert str(status) in end.error and hint in end.details
    assert not of(found, Retrying) and len(model.requests) == 1


async def test_the_service_may_overrule_the_retry(make: MakeAgent) -> None:
    final = Scripted(error(529, "overloaded_error", {"x-should-retry": "false"}))
    assert isinstance((await play(make(final)))[-1], TurnFailed)
    again = Scripted(
        error(400, "invalid_request_error", {"x-should-retry": "true", "retry-after": "0"}), reply(text("Ok."))
    )
    assert (await play(make(again)))[-1].text == "Ok."  # type: ignore[attr-defined]


async def test_a_dropped_connection_under_the_sdk_is_retried(make: MakeAgent) -> None:
    model = Scripted(httpx2.ConnectError("refused"), httpx2.ReadError("gone"), reply(text("Ok.")))
    found = await play(make(model))
    assert len(of(found, Retrying)) == 2 and found[-1].text == "Ok."  # type: ignore[attr-defined]


async def test_without_a_key_the_message_says_which_variable(
    make: MakeAgent, desktop: FakeDesktop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cambio_lab.agent import Agent, AgentOptions

    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
    agent = Agent(desktop=desktop, options=AgentOptions(), gate=Gate("never"))
    end = (await play(agent))[-1]
    assert isinstance(end, TurnFailed) and "ANTHROPIC_API_KEY" in end.details and "demo" in end.details
    await agent.aclose()


async def test_the_demo_model_needs_no_key(desktop: FakeDesktop, monkeypatch: pytest.MonkeyPatch) -> None:
    from cambio_lab.agent import Agent, AgentOptions

    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    agent = Agent(desktop=desktop, options=AgentOptions(model="demo"), gate=Gate("never"))
    end = (await play(agent, "Hello."))[-1]
    assert isinstance(end, TurnFinished) and "demo" in end.text.lower()
    assert end.usage.cost_usd == 0
    await agent.aclose()


# Limits
async def test_the_step_limit_ends_the_turn_cleanly(make: MakeAgent, api: MessagesApi, desktop: FakeDesktop) -> None:
    api.policy = Script([answer(member("left_click"), member("right_click"), member("double_click"))], end="Done.")
    agent = make(api, max_steps=2)
    found = await play(agent)
    end = found[-1]
    assert isinstance(end, TurnFinished) and end.limit == "max_steps" and not end.stopped
    assert [entry[0] for entry in desktop.done].count("click") == 2
    assert agent.history[-1]["content"][2]["content"][0]["text"] == "Not executed: a limit of this session was reached."
    status = [event for event in found if type(event).__name__ == "StatusChanged"][-1]
    assert status.metadata == {"event": "limit", "limit": "max_steps"}  # type: ignore[attr-defined]
    api.policy = Script([], end="Going on.")
    assert (await play(agent))[-1].text == "Going on."  # type: ignore[attr-defined]


async def test_the_money_limit_ends_the_turn(make: MakeAgent) -> None:
    model = Scripted(reply(use("screenshot")), repeat=True)
    agent = make(model, max_cost_usd=0.002)
    end = (await play(agent))[-1]
    assert isinstance(end, TurnFinished) and end.limit == "max_cost_usd"
    assert len(model.requests) == 3  # 0.00078 each
    assert agent.usage.cost_usd == pytest.approx(0.00234)
    assert (await play(agent))[-1].limit == "max_cost_usd"  # type: ignore[attr-defined]
    assert len(model.requests) == 3, "a session that has spent its money asks nothing more"


async def test_the_token_limit_counts_one_turn(make: MakeAgent) -> None:
    model = Scripted(reply(use("screenshot")), repeat=True)
    end = (await play(make(model, max_turn_tokens=900)))[-1]
    assert isinstance(end, TurnFinished) and end.limit == "max_tokens"
    assert len(model.requests) == 2  # 470 tokens each


@pytest.mark.timing
async def test_the_time_limit_interrupts_a_call(make: MakeAgent, api: MessagesApi) -> None:
    api.policy = Script([answer(member("wait", duration=30), screenshot())])
    agent = make(api)
    await agent._client.open("claude-sonnet-5-5")
    agent.options = type(agent.options)(max_turn_seconds=0.5)
    started = time.monotonic()
    end = (await play(agent))[-1]
    assert isinstance(end, TurnFinished) and end.limit == "max_seconds"
    assert time.monotonic() - started < 1.5
    assert agent.history[-1]["content"][0]["is_error"]


async def test_no_limit_holds_when_it_is_zero(make: MakeAgent) -> None:
    model = Scripted(*[reply(use("screenshot"))] * 3, reply(text("Done.")))
    agent = make(model, max_steps=0, max_cost_usd=0, max_turn_seconds=0)
    assert (await play(agent))[-1].text == "Done."  # type: ignore[attr-defined]


# Small parts
def test_backoff_doubles_with_jitter_and_is_capped() -> None:
    for attempt, most in [(1, 0.5), (2, 1.0), (3, 2.0), (8, 30.0), (20, 30.0)]:
        delays = [backoff(attempt, None) for _ in range(50)]
        assert most / 2 <= min(delays) and max(delays) <= most
        assert len(set(delays)) > 10
    assert 5.0 <= backoff(1, 5.0) <= 6.0


def test_retry_after_is_read_in_all_its_forms() -> None:
    assert retry_after({"retry-after": "7"}) == 7
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    date = formatdate(time.time() + 30, usegmt=True)
    assert 28 <= (retry_after({"retry-after": date}) or 0) <= 31
    assert retry_after({"retry-after": formatdate(time.time() - 30, usegmt=True)}) == 0
    assert retry_after({"retry-after": "99999999"}) == 3600
    for nonsense in ({}, {"retry-after": "soon"}, {"retry-after": "-3"}, {"retry-after": "nan"}):
        assert retry_after(nonsense) is None
