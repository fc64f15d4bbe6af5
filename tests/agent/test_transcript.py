"""What is sent: markers that advance, images taken out or summarised, every limit kept in long runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cambio_lab.agent import models
from cambio_lab.agent.context import summary_of
from cambio_lab.agent.http import Chunks, fill
from cambio_lab.agent.transcript import Body, PrefixDigest, Transcript, close_open_batch, latest_image, user_text
from cambio_lab.desktop.base import Size
from cambio_lab.events import HistoryAppended, HistoryDropped, TurnFinished
from tests.messages_api import MessagesApi, Steps

from .conftest import MakeAgent, of, play
from .fake_desktop import FakeDesktop
from .scripted import tool, use

BOUND = models.resolve("claude-sonnet-5-5")
FREE = models.resolve("claude-sonnet-5")
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}


def step(number: int, weight: int = 0) -> list[dict[str, Any]]:
    """A call and its result with an image of ``weight`` characters more."""
    call = use("screenshot", f"toolu_{number}")
    source = {**IMAGE["source"], "data": IMAGE["source"]["data"] + "A" * weight}  # type: ignore[dict-item, index]
    result = {
        "type": "tool_result",
        "tool_use_id": call["id"],
        "content": [{**IMAGE, "source": source}],
        "toolset_name": "computer",
    }
    return [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]


def filled(info: models.ModelInfo, steps: int, weight: int = 0, **options: Any) -> Transcript:
    messages = [user_text("Go."), *[message for number in range(steps) for message in step(number, weight)]]
    return Transcript(messages, info, **options)


def sent(transcript: Transcript) -> list[dict[str, Any]]:
    return [json.loads(message) for message in transcript.body().messages]


def markers(messages: list[dict[str, Any]]) -> list[int]:
    return [index for index, message in enumerate(messages) if "cache_control" in json.dumps(message)]


def test_three_markers_stand_on_the_last_blocks_of_the_latest_user_turns() -> None:
    transcript = filled(BOUND, 5)
    messages = sent(transcript)
    assert markers(messages) == [6, 8, 10]
    for index in (6, 8, 10):
        assert messages[index]["content"][-1]["cache_control"] == {"type": "ephemeral"}
    transcript.append(step(9)[0])
    transcript.append(step(9)[1])
    assert markers(sent(transcript)) == [8, 10, 12]
    assert "cache_control" not in json.dumps(transcript.messages), "the history itself holds no markers"


def test_markers_do_not_change_what_is_sent_otherwise() -> None:
    transcript = filled(BOUND, 3)
    stripped = json.loads(json.dumps(sent(transcript)).replace(', "cache_control": {"type": "ephemeral"}', ""))
    assert stripped == transcript.messages


def test_odd_text_is_sent_as_valid_utf_8() -> None:
    transcript = Transcript([user_text('quote " back \\ \u2028 🙂 lone \ud800 }]}')], BOUND)
    (message,) = sent(transcript)
    assert message["content"][0]["text"] == 'quote " back \\ \u2028 🙂 lone ? }]}'


def test_string_content_of_an_old_history_is_taken() -> None:
    transcript = Transcript([{"role": "user", "content": "Hello"}], BOUND)
    assert sent(transcript)[0]["content"][0]["text"] == "Hello"


def test_bound_models_keep_every_message_as_it_was() -> None:
    transcript = filled(BOUND, 60)
    before = transcript.messages
    transcript.prune()
    assert transcript.messages == before and transcript.images == 60


def test_other_models_lose_old_images_in_batches() -> None:
    transcript = filled(FREE, 28)
    transcript.prune()
    assert transcript.images == 28, "not yet: each time costs the cache"
    for number in (28, 29):
        for message in step(number):
            transcript.append(message)
    transcript.prune()
    assert transcript.images == 3
    assert transcript.messages[2]["content"][0]["content"][0]["text"].startswith("[An older screenshot")
    assert latest_image(transcript.messages) is not None


def test_images_of_a_large_screen_stay_under_twenty() -> None:
    transcript = filled(FREE, 0, image_side=2560)
    for number in range(60):
        for message in step(number):
            transcript.append(message)
        transcript.prune()
        assert transcript.images <= 19
    bound = filled(BOUND, 20, image_side=2560)
    assert bound.crowded


@pytest.mark.parametrize(
    ("steps", "weight", "tokens", "crowded"),
    [(80, 333_000, 0, False), (88, 333_000, 0, True), (10, 0, 59_999, False), (10, 0, 60_001, True)],
)
def test_what_counts_as_crowded(steps: int, weight: int, tokens: int, crowded: bool) -> None:
    transcript = filled(BOUND, steps, weight)
    transcript.input_tokens = tokens
    assert transcript.crowded is crowded


def test_a_crash_in_a_batch_is_closed_as_interrupted() -> None:
    history = [
        user_text("Go."),
        {"role": "assistant", "content": [use("left_click", "a"), tool("bash", "b")]},
    ]
    closed = close_open_batch(history)
    assert len(closed) == 3 and len(history) == 2
    first, second = closed[2]["content"]
    assert first["is_error"] and first["toolset_name"] == "computer" and first["tool_use_id"] == "a"
    assert "toolset_name" not in second
    assert close_open_batch(closed) == closed
    assert close_open_batch([]) == []


def test_a_folded_conversation_keeps_requests_steps_and_the_last_image() -> None:
    messages = [
        user_text("Book a flight."),
        *step(1),
        {"role": "assistant", "content": [{"type": "text", "text": "Found it."}]},
    ]
    messages += [user_text("Now pay."), *step(2, 50)]
    message = summary_of(messages)
    text = message["content"][0]["text"]
    assert "Book a flight." in text and "Now pay." in text and "YOU: Found it." in text and "screenshot {}" in text
    assert message["content"][1]["source"]["data"].endswith("A" * 50)
    long = summary_of([user_text("x" * 100_000), *[m for n in range(1000) for m in step(n)]])
    assert len(long["content"][0]["text"]) < 45_000


def test_the_digest_of_a_growing_body_is_that_of_its_bytes() -> None:
    import hashlib

    hasher = PrefixDigest()
    messages: list[bytes] = []
    for number in range(20):
        messages.append(b'{"n":%d}' % number)
        marked = [*messages[:-1], messages[-1][:-1] + b',"m":1}']
        chunks, told = fill(
            b'{"a":1,"messages":[],"z":{"messages":[]},"n":%d}' % (number // 7), Body(marked, 0, hasher)
        )
        assert hashlib.sha256(bytes(chunks)).hexdigest() == told.sha256
        assert json.loads(bytes(chunks))["z"] == {"messages": []}
        assert json.loads(bytes(chunks))["messages"][-1] == {"n": number, "m": 1}
        assert chunks.size == len(bytes(chunks))


async def test_a_body_sent_in_pieces_is_the_same_body() -> None:
    chunks = Chunks([b"x" * 100_000, b"y", b"z" * 70_000])
    assert b"".join([piece async for piece in chunks]) == bytes(chunks)


# Long runs against the strict stand-in
async def run_steps(make: MakeAgent, api: MessagesApi, steps: int, **options: Any) -> list[Any]:
    api.policy = Steps(count=2 * steps, batch=2, thoughts=True)
    found = await play(make(api, max_steps=0, max_cost_usd=0, **options))
    assert isinstance(found[-1], TurnFinished) and found[-1].text == f"Made {2 * steps} steps.", found[-1]
    return found


@pytest.mark.parametrize(("model", "steps", "most"), [("claude-sonnet-5-5", 120, 0.65), ("claude-sonnet-5", 120, 0.65)])
async def test_a_long_run_costs_less_than_the_demos_loop(
    model: str, steps: int, most: float, make: MakeAgent, api: MessagesApi
) -> None:
    from benchmarks.thrift import measure

    found = await measure(model, steps)
    assert found.ratio <= most, found
    short = await measure(model, 50)
    assert short.ratio <= 1.0, short


async def test_heavy_images_never_reach_32_megabytes(
    make: MakeAgent, api: MessagesApi, desktop: FakeDesktop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same as with 250 KB images and 32 MB, at a tenth of both: the stand-in would need minutes to parse them."""
    monkeypatch.setattr("cambio_lab.agent.transcript.REQUEST_BYTES", {"anthropic": 3_200_000})
    desktop._screenshots = FakeDesktop(noise=7)._screenshots
    found = await run_steps(make, api, 130)
    assert max(request.size for request in api.requests) < 3_200_000
    assert len(of(found, HistoryDropped)) >= 1
    told = [message for event in found if isinstance(event, HistoryAppended) for message in [event.message]]
    assert any(message["content"][0]["type"] == "compaction" for message in told)


async def test_a_large_screen_stays_within_twenty_images(
    make: MakeAgent, api: MessagesApi, desktop: FakeDesktop
) -> None:
    size = Size(2100, 1000)
    await desktop.resize(size)
    desktop._screenshots = FakeDesktop(size)._screenshots
    await run_steps(make, api, 45)
    assert max(json.dumps(body["messages"]).count('"image"') for body in api.bodies) <= 20


async def test_a_service_that_cannot_compact_gets_our_own_summary(
    make: MakeAgent, api: MessagesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.messages_api import View

    monkeypatch.setattr("cambio_lab.agent.turn.COMPACTION_BETA", "some-other-beta")
    refused = 0
    api.policy = _count_steps(View)
    found = await play(make(api, max_steps=0, max_cost_usd=0))
    refused, api.refusals[:] = len(api.refusals), []
    assert isinstance(found[-1], TurnFinished) and refused == 1, "asked once, then never again"
    assert "What the user asked" in json.dumps(api.bodies[-1]["messages"][0])
    assert len(of(found, HistoryDropped)) >= 1


def _count_steps(view_class: Any) -> Any:
    from tests.messages_api import reply, screenshot, think

    made = 0

    def policy(view: Any) -> Any:
        nonlocal made
        made += 1
        return reply(think("on"), f"Step {made}. " + "word " * 1500, screenshot()) if made <= 45 else reply("Done.")

    return policy
