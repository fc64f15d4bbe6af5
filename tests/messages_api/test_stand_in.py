"""The stand-in under the real SDK: it answers like the service and refuses like the service."""

from __future__ import annotations

import base64
import copy
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import numpy as np
import pytest
from PIL import Image

from tests.messages_api import (
    BadGateway,
    Break,
    ColorTarget,
    MessagesApi,
    NoStop,
    Script,
    SseError,
    Stall,
    Steps,
    member,
    overloaded,
    rate_limited,
    refusal_reply,
    reply,
    screenshot,
    text,
    think,
    tool,
)
from tests.messages_api.binding import chain
from tests.messages_api.fields import MEMBERS
from tests.messages_api.models import MODELS, TOOLSET, cost_usd
from tests.messages_api.prompt import Piece, PromptCache
from tests.messages_api.rules import RULES, plain, table

Body = dict[str, Any]
SONNET = "claude-sonnet-5-5"
TOOLS: list[Body] = [{"type": TOOLSET}, {"type": "bash_20250124", "name": "bash"}]


@pytest.fixture
async def client(messages_api: MessagesApi) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=messages_api.base_url, api_key=messages_api.key, max_retries=0, timeout=20
    ) as made:
        yield made


def png(width: int = 64, height: int = 48, color: str = "#202020", kind: str = "PNG") -> str:
    out = io.BytesIO()
    Image.new("RGB", (width, height), color).save(out, kind)
    return base64.b64encode(out.getvalue()).decode()


def image(data: str | None = None, media_type: str = "image/png") -> Body:
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data or png()}}


def user(*content: Body | str) -> Body:
    return {"role": "user", "content": [text(part) if isinstance(part, str) else part for part in content]}


def assistant(*content: Body) -> Body:
    return {"role": "assistant", "content": list(content)}


def call(name: str = "screenshot", id: str = "toolu_1", **arguments: Any) -> Body:
    return {**member(name, **arguments), "id": id}


def result(*content: Body, id: str = "toolu_1", **fields: Any) -> Body:
    return {"type": "tool_result", "tool_use_id": id, "toolset_name": "computer", "content": list(content), **fields}


def request(*messages: Body, **fields: Any) -> Body:
    return {"model": SONNET, "max_tokens": 1024, "tools": TOOLS, "messages": list(messages), **fields}


def answer_format(**schema: Any) -> Body:
    return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}


BUDGET = ["task-budgets-2026-03-13"]


def budget(**fields: Any) -> Body:
    return {"output_config": {"task_budget": {"type": "tokens", "total": 40_000, **fields}}}


async def ask(client: anthropic.AsyncAnthropic, body: Body, betas: list[str] | None = None) -> Any:
    extra: dict[str, Any] = {"betas": betas} if betas else {}
    async with client.beta.messages.stream(**body, **extra) as stream:
        return await stream.get_final_message()


# What is answered


async def test_streams_what_the_policy_says(messages_api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    messages_api.policy = Script(
        [reply(think("hm"), "Looking around the screen.", screenshot(), tool("bash", command="ls"))]
    )
    kinds = []
    async with client.beta.messages.stream(
        **request(user("hello")), thinking={"type": "adaptive", "display": "summarized"}
    ) as stream:
        async for event in stream:
            kinds.append(event.type)
        message: Any = await stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert message.content[0].thinking == "hm" and message.content[0].signature
    assert (message.content[2].toolset_name, message.content[2].name, message.content[2].input) == (
        "computer",
        "screenshot",
        {},
    )
    assert message.content[3].input == {"command": "ls"}
    assert message.stop_reason == "tool_use"
    assert kinds.count("text") > 1 and kinds[-1] == "message_stop"
    assert message.usage.input_tokens > 4500 and message.usage.output_tokens_details.thinking_tokens == 1
    assert messages_api.bodies[0]["messages"][0]["content"][0]["text"] == "hello"


async def test_without_streaming_and_models(messages_api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    message: Any = await client.messages.create(**request(user("hello")))
    assert message.content[0].text == "You said: hello" and message.stop_reason == "end_turn"
    info: Any = await client.beta.models.retrieve(SONNET)
    assert info.max_input_tokens == 1_000_000 and not info.capabilities.thinking.types.disabled.supported
    assert SONNET in [model.id async for model in client.models.list()]
    counted = await client.messages.count_tokens(**{k: v for k, v in request(user("x")).items() if k != "max_tokens"})
    assert counted.input_tokens > 4500
    with pytest.raises(anthropic.NotFoundError):
        await client.models.retrieve("claude-nothing")


@pytest.mark.parametrize("place", [(40, 30), (600, 400), (1200, 770)])
async def test_finds_and_clicks_a_color(
    messages_api: MessagesApi, client: anthropic.AsyncAnthropic, place: tuple[int, int]
) -> None:
    messages_api.policy = ColorTarget("#00c853")
    pixels = np.full((800, 1280, 3), 40, np.uint8)
    x, y = place
    pixels[y - 15 : y + 16, x - 30 : x + 31] = (0x00, 0xC8, 0x53)
    pixels[y - 4 : y + 4, x - 20 : x + 10] = 255
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    history = [user("click it")]
    first = await ask(client, request(*history))
    history += [assistant(*[block.to_dict() for block in first.content])]
    shown = image(base64.b64encode(out.getvalue()).decode())
    history += [user(result(shown, id=first.content[-1].id))]
    second = await ask(client, request(*history))
    assert [block.name for block in second.content[1:]] == ["left_click", "screenshot"]
    assert second.content[1].input == {"coordinate": [x, y]}
    history += [assistant(*[block.to_dict() for block in second.content])]
    clicked, looked = second.content[1].id, second.content[2].id
    history += [user(result(text("OK"), id=clicked), result(image(png(1280, 800)), id=looked))]
    assert "Clicked the target" in (await ask(client, request(*history))).content[0].text
    assert messages_api.refusals == []


# What is refused

EXCHANGE = [user("go"), assistant(call()), user(result(image()))]


def edited(change: Callable[[list[Body]], object]) -> Body:
    messages = copy.deepcopy(EXCHANGE)
    change(messages)
    return request(*messages)


def big(count: int, side: int = 32) -> Body:
    shown = image(png(side, 16))
    return request(user("go"), assistant(call()), user(result(*[shown] * count)))


def tools(*entries: Body, **fields: Any) -> Body:
    return request(user("go"), tools=list(entries), **fields)


def marked(count: int) -> Body:
    marker = {"cache_control": {"type": "ephemeral"}}
    return request(user(*[{**text(f"part {i}"), **marker} for i in range(count)]))


REFUSED: dict[str, tuple[Body, str]] = {
    "missing result": (edited(lambda m: m.pop()), "tool_use` ids were found without|must end with a user"),
    "missing result, text instead": (edited(lambda m: m.__setitem__(2, user("hm"))), "without `tool_result`"),
    "extra result": (
        edited(lambda m: m[2]["content"].append(result(text("x"), id="toolu_9"))),
        "unexpected `tool_use_id`",
    ),
    "result twice": (edited(lambda m: m[2]["content"].append(result(text("x")))), "single result"),
    "text before the results": (edited(lambda m: m[2]["content"].insert(0, text("x"))), "before any other content"),
    "results misordered": (
        request(
            user("go"),
            assistant(call(id="a"), call(id="b")),
            user(result(text("x"), id="b"), result(text("x"), id="a")),
        ),
        "in the order",
    ),
    "toolset_name missing": (edited(lambda m: m[2]["content"][0].pop("toolset_name")), "toolset_name"),
    "toolset_name wrong": (edited(lambda m: m[2]["content"][0].update(toolset_name="browser")), "toolset_name"),
    "toolset_name on another tool": (
        request(
            user("go"),
            assistant({**tool("bash", command="ls"), "id": "toolu_1"}),
            user(result(text("x"))),
        ),
        "toolset_name",
    ),
    "result without a call": (request(user(result(text("x")))), "unexpected `tool_use_id`"),
    "error with an image": (edited(lambda m: m[2]["content"][0].update(is_error=True)), 'must be type "text"'),
    "error without content": (
        edited(lambda m: m[2]["content"][0].update(is_error=True, content=[])),
        "cannot be empty",
    ),
    "empty assistant message": (request(user("go"), assistant(), user("on")), "non-empty content"),
    "empty text": (request(user("")), "non-whitespace"),
    "prefill": (request(user("go"), assistant(text("I"))), "prefill"),
    "assistant first": (request(assistant(text("I")), user("go")), "first message"),
    "same call twice": (
        request(user("go"), assistant(call()), user(result(image())), assistant(call()), user(result(image()))),
        "must be unique",
    ),
    "bad role": (request({"role": "robot", "content": "x"}), "role"),
    "no base64": (request(user("go", image("§§"))), "Invalid base64"),
    "not an image": (request(user("go", image(base64.b64encode(b"hello").decode()))), "Could not process"),
    "wrong media type": (request(user("go", image(png(kind="JPEG")))), "does not match"),
    "oversized in a toolset result": (big(1, 2577), "larger than this model accepts"),
    "21 images, one over 2000": (big(21, 2001), "exceed max allowed size: 2000"),
    "over 8000": (request(user("go", image(png(8001, 8)))), "exceed max allowed size: 8000"),
    "601 images": (big(601, 16), "Too many images"),
    "forged thinking": (
        request(
            user("go"), assistant({"type": "thinking", "thinking": "x", "signature": "AAAA"}, text("I")), user("on")
        ),
        "Invalid `signature`",
    ),
    "five markers": (marked(5), "maximum of 4 blocks"),
    "old tool on a new model": (
        tools({"type": "computer_20251124", "name": "computer", "display_width_px": 1280, "display_height_px": 800}),
        f"'{SONNET}' does not support tool types: computer_20251124.",
    ),
    "toolset on an old model": (tools({"type": TOOLSET}, model="claude-opus-4-7"), "does not support tool types"),
    "old tool without its header": (
        tools(
            {"type": "computer_20251124", "name": "computer", "display_width_px": 9, "display_height_px": 9},
            model="claude-opus-4-7",
        ),
        "requires the anthropic-beta header",
    ),
    "name on the toolset": (tools({"type": TOOLSET, "name": "computer"}), "name: Extra inputs"),
    "display on the toolset": (tools({"type": TOOLSET, "display_width_px": 1280}), "Extra inputs"),
    "unknown member": (tools({"type": TOOLSET, "configs": {"fly": {"enabled": True}}}), "configs.fly"),
    "unknown member field": (tools({"type": TOOLSET, "configs": {"zoom": {"speed": 1}}}), "configs.zoom.speed"),
    "uneven defer_loading": (tools({"type": TOOLSET, "configs": {"zoom": {"defer_loading": True}}}), "must be equal"),
    "no member left": (
        tools({"type": TOOLSET, "configs": {name: {"enabled": False} for name in MEMBERS}}),
        "at least one member",
    ),
    "two toolsets": (tools({"type": TOOLSET}, {"type": TOOLSET}), "must be unique"),
    "another tool named computer": (
        tools({"type": TOOLSET}, {"name": "computer", "input_schema": {"type": "object"}}),
        "must be unique",
    ),
    "choice names a member": (
        request(user("go"), model="claude-opus-5", tool_choice={"type": "tool", "name": "left_click"}),
        "not found in provided tools",
    ),
    "forced choice": (request(user("go"), tool_choice={"type": "any"}), "does not support forced tool use"),
    "disabled thinking": (request(user("go"), thinking={"type": "disabled"}), "is not supported"),
    "thinking budget": (request(user("go"), thinking={"type": "enabled", "budget_tokens": 1024}), "is not supported"),
    "between_tools at max": (
        request(user("go"), thinking={"type": "between_tools"}, output_config={"effort": "max"}),
        "requires effort high or lower",
    ),
    "haiku disabled at xhigh": (
        request(user("go"), model="claude-haiku-5-5", thinking={"type": "disabled"}, output_config={"effort": "xhigh"}),
        "requires effort high or lower",
    ),
    "updates without its beta": (
        request(user("go"), thinking={"type": "adaptive", "display": "updates"}),
        "thinking-display-updates",
    ),
    "context_management without its beta": (
        request(user("go"), context_management={"edits": [{"type": "clear_tool_uses_20250919"}]}),
        "context_management: Extra inputs",
    ),
    "unknown field": (request(user("go"), extra_body={"temperature": 0}), "temperature: Extra inputs"),
    "100,001 messages": (
        {**request(user("x")), "messages": [{"role": "user", "content": "x"}] * 100_001},
        "at most 100000 messages",
    ),
    "image told not to be scaled": (
        request(
            user("go"),
            assistant({**tool("bash", command="ls"), "id": "toolu_1"}),
            user(
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "content": [{**image(png(2577, 16)), "transformations": {"oversized_image": "error"}}],
                }
            ),
            tools=TOOLS[1:],
        ),
        "larger than this model accepts",
    ),
    "a tool whose input is no object": (
        tools({"name": "look_up", "input_schema": {"type": "array"}}),
        "input_schema.type: Input should be 'object'",
    ),
    "budget below 1,024": (
        request(user("go"), model="claude-opus-4-5", tools=[], thinking={"type": "enabled", "budget_tokens": 1000}),
        "at least 1024",
    ),
    "unknown effort": (request(user("go"), output_config={"effort": "extreme"}), "output_config.effort"),
    "format without its type": (request(user("go"), output_config={"format": {"schema": {}}}), "format.type"),
    "format without a schema": (
        request(user("go"), output_config={"format": {"type": "json_schema"}}),
        "format.schema: Field required",
    ),
    "format on a model without": (
        request(user("go"), model="claude-opus-4-1", tools=[], **answer_format(type="string")),
        "does not support structured outputs",
    ),
    "format beside a prefill": (
        request(user("go"), assistant(text("{")), model="claude-sonnet-4-5", tools=[], **answer_format(type="string")),
        "prefill",
    ),
    "an open object in a format": (
        request(user("go"), **answer_format(type="object", properties={})),
        "must be explicitly set to false",
    ),
    "a bound in a format": (request(user("go"), **answer_format(type="integer", minimum=1)), "'minimum'"),
    "a long minimum in a format": (
        request(user("go"), **answer_format(type="array", items={"type": "string"}, minItems=2)),
        "values other than 0 or 1",
    ),
    "a recursive format": (
        request(
            user("go"),
            **answer_format(
                **{"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"},
            ),
        ),
        "Circular reference",
    ),
    "budget without its beta": (request(user("go"), **budget()), "task_budget: Extra inputs"),
    "budget on a model without": (
        request(user("go"), model="claude-sonnet-5", **budget(), betas=BUDGET),
        "task budgets",
    ),
    "budget below its minimum": (request(user("go"), **budget(total=19_999), betas=BUDGET), "equal to 20000"),
    "budget of another kind": (request(user("go"), **budget(type="dollars"), betas=BUDGET), "should be 'tokens'"),
    "empty summary": (
        request(assistant({"type": "compaction", "content": ""}), user("on")),
        "empty string content is not allowed",
    ),
    "max_tokens beyond the model": (request(user("go"), max_tokens=10**6), "maximum allowed"),
    "system message on a model without": (
        request(user("go"), {"role": "system", "content": "be brief"}, model="claude-opus-5"),
        "system messages",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refuses(messages_api: MessagesApi, client: anthropic.AsyncAnthropic, name: str) -> None:
    body, reason = REFUSED[name]
    with pytest.raises(anthropic.BadRequestError, match=reason) as caught:
        await ask(client, body)
    assert caught.value.type == "invalid_request_error" and caught.value.request_id
    assert len(messages_api.refusals) == 1 and messages_api.requests[0].status == 400


async def test_refuses_by_headers_and_size(messages_api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.AuthenticationError):
        await ask(client.with_options(api_key="wrong"), request(user("go")))
    with pytest.raises(anthropic.BadRequestError, match="fine-grained"):
        await ask(client, request(user("go")), ["fine-grained-tool-streaming-2025-05-14"])
    with pytest.raises(anthropic.ContentTooLargeError):
        await ask(client, request(user("x" * (32 * 1024 * 1024))))
    with pytest.raises(anthropic.NotFoundError):
        await ask(client, request(user("go"), model="claude-2"))
    with pytest.raises(anthropic.types.ImageDimensionsTooLargeError) as caught:
        await ask(client, big(21, 2001))
    assert caught.value.details.max_side_length_pixels == 2000 and len(caught.value.details.paths) == 21


@pytest.mark.parametrize(("model", "refused"), [(SONNET, True), ("claude-opus-5", False)])
async def test_thinking_is_bound_to_the_past(
    messages_api: MessagesApi, client: anthropic.AsyncAnthropic, model: str, refused: bool
) -> None:
    messages_api.policy = Steps(6, batch=1, thoughts=True)
    history = [user("go")]
    for _ in range(3):
        message = await ask(client, request(*history, model=model, system="be careful"))
        history += [assistant(*[block.to_dict() for block in message.content])]
        history += [user(result(image(), id=message.content[-1].id))]
    assert history[1]["content"][0]["thinking"] == ""  # omitted unless asked for
    moved = copy.deepcopy(history)
    moved[2]["content"][0]["cache_control"] = {"type": "ephemeral"}
    await ask(client, request(*moved, model=model, system="be careful"))
    pruned = copy.deepcopy(history)
    pruned[2]["content"][0]["content"] = [text("removed")]
    for body in (
        request(*pruned, model=model, system="be careful"),
        request(*history, model=model, system="be bold"),
        request(*history, model=model, system="be careful", tools=TOOLS[:1]),
    ):
        if refused:
            with pytest.raises(anthropic.BadRequestError, match="has changed since"):
                await ask(client, body)
        else:
            await ask(client, body)
    if refused:
        binding = {"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "drop_block"}}
        body = request(*pruned, model=model, system="be careful", thinking=binding)
        message = await ask(client, body, ["thinking-binding-controls-2026-08-01"])
        assert [entry.type for entry in message.input_transformations] == ["thinking_dropped"] * 2
    assert len(list(chain({}, [user("a", "b")]))) == 3


async def run_steps(client: anthropic.AsyncAnthropic, count: int, body: Body, betas: list[str]) -> list[Any]:
    """A loop that marks the end of each batch, as the service advises: the messages it got."""
    history, got = [user("go")], []
    shown = image(png(1280, 800))
    for _ in range(count):
        got.append(await ask(client, {**request(*history), **body}, betas))
        uses = [block for block in got[-1].content if block.type == "tool_use"]
        if not uses:
            break
        for old in history:
            for block in old["content"]:
                block.pop("cache_control", None)
        history.append(assistant(*[block.to_dict() for block in got[-1].content]))
        history.append(user(*[result(copy.deepcopy(shown), id=use.id) for use in uses]))
        history[-1]["content"][-1]["cache_control"] = {"type": "ephemeral"}
    return got


async def test_prompt_cache_and_price(messages_api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    messages_api.policy = Steps(8, batch=1)
    marked_tools = [{**TOOLS[0], "cache_control": {"type": "ephemeral"}}]
    got = await run_steps(client, 5, {"tools": marked_tools}, [])
    first, second, third = (message.usage for message in got[:3])
    assert first.cache_creation_input_tokens == 4520 and first.cache_read_input_tokens == 0
    assert second.cache_read_input_tokens == 4520 and second.cache_creation_input_tokens > 1334
    assert third.cache_read_input_tokens == 4520 + second.cache_creation_input_tokens
    assert third.input_tokens == 0
    again = await run_steps(client, 1, {"tools": marked_tools}, [])
    assert again[0].usage.cache_read_input_tokens == 4520
    expected = sum(cost_usd(MODELS[SONNET], message.usage.to_dict()) for message in [*got, *again])
    assert messages_api.spent_usd == pytest.approx(expected)
    assert cost_usd(MODELS[SONNET], first.to_dict()) == pytest.approx(
        (4520 * 2.5 + first.input_tokens * 2 + first.output_tokens * 10) / 1e6
    )


def test_cache_life_and_reach() -> None:
    now = 0.0
    cache, model = PromptCache(lambda: now), MODELS[SONNET]
    old = [Piece(str(i), 100) for i in range(12)]
    old[-1].marker = "5m"
    assert cache.charge(old, model)["cache_creation_input_tokens"] == 1200
    now = 299
    assert cache.charge(old, model)["cache_read_input_tokens"] == 1200
    now = 598  # each use renews
    longer = [*old, *[Piece(str(i), 10) for i in range(100, 119)]]
    longer[11].marker, longer[-1].marker = None, "5m"
    assert cache.charge(longer, model)["cache_read_input_tokens"] == 1200
    too_far = [*old, *[Piece(str(i), 10) for i in range(200, 230)]]
    too_far[-1].marker = "5m"
    assert cache.charge(too_far, model)["cache_read_input_tokens"] == 0
    now = 2000
    assert cache.charge(old, model)["cache_read_input_tokens"] == 0
    small = [Piece("s", 1023, "5m")]
    assert cache.charge(small, model)["cache_creation_input_tokens"] == 0


async def test_clearing_stays_cleared(messages_api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    messages_api.policy = Steps(30, batch=1, thoughts=True)
    edit = {
        "type": "clear_tool_uses_20250919",
        "trigger": {"type": "input_tokens", "value": 20_000},
        "keep": {"type": "tool_uses", "value": 4},
        "clear_at_least": {"type": "input_tokens", "value": 5000},
    }
    got = await run_steps(client, 31, {"context_management": {"edits": [edit]}}, ["context-management-2025-06-27"])
    assert got[-1].content[-1].text == "Made 30 steps."
    cleared = [
        message.context_management.applied_edits[0].cleared_tool_uses if message.context_management.applied_edits else 0
        for message in got
    ]
    assert cleared == sorted(cleared) and 1 < len(set(cleared)) <= 5 and cleared[-1] > 15
    totals = [m.usage.input_tokens + m.usage.cache_read_input_tokens + m.usage.cache_creation_input_tokens for m in got]
    assert max(totals) <= 20_000 + 1500
    quiet = [i for i in range(2, 31) if cleared[i] == cleared[i - 1]]
    assert all(got[i].usage.cache_read_input_tokens > got[i].usage.cache_creation_input_tokens for i in quiet)


async def test_an_answer_keeps_to_its_format(messages_api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    wanted = answer_format(type="object", properties={"n": {"type": "integer"}}, additionalProperties=False)
    said = iter([reply('{"n": 1}'), reply('{"n":', stop_reason="max_tokens"), reply("One.")])
    messages_api.policy = lambda _: next(said)
    assert (await ask(client, request(user("go"), **wanted))).content[0].text == '{"n": 1}'
    assert (await ask(client, request(user("go"), **wanted))).stop_reason == "max_tokens"
    with pytest.raises(anthropic.InternalServerError):
        await ask(client, request(user("go"), **wanted))
    messages_api.refusals.clear()


async def test_compaction_beside_context_management_is_refused(client: anthropic.AsyncAnthropic) -> None:
    """``MessageCreateParamsBase.compaction``: "Cannot be combined with `context_management`."."""
    body = request(user("go"), compaction={"type": "summarize"}, context_management={"edits": []})
    with pytest.raises(anthropic.BadRequestError, match="cannot be combined with context_management"):
        await ask(client, body, ["compact-2026-09-04", "context-management-2025-06-27"])


async def test_compaction(messages_api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    messages_api.policy = Steps(60, batch=1, thoughts=True)
    edit = {"type": "compact_20260112", "trigger": {"type": "input_tokens", "value": 50_000}}
    got = await run_steps(client, 61, {"context_management": {"edits": [edit]}}, ["compact-2026-01-12"])
    assert got[-1].content[-1].text == "Made 60 steps."
    compacted = [message for message in got if message.content[0].type == "compaction"]
    assert len(compacted) == 1 and compacted[0].content[1].type == "thinking"
    kinds = [entry.type for entry in compacted[0].usage.iterations]
    assert kinds == ["compaction", "message"]
    assert compacted[0].usage.input_tokens < 10_000 < compacted[0].usage.iterations[0].input_tokens
    assert got[-1].usage.input_tokens + got[-1].usage.cache_read_input_tokens < 50_000


async def test_a_compaction_is_alone_in_its_reply_and_comes_back_unchanged(
    messages_api: MessagesApi, client: anthropic.AsyncAnthropic
) -> None:
    message = await ask(client, request(user("go"), compaction={"type": "summarize"}), ["compact-2026-09-04"])
    assert message.stop_reason == "compaction" and [block.type for block in message.content] == ["compaction"]
    block = message.content[0].to_dict()
    await ask(client, request(assistant(block), user("on")), ["compact-2026-09-04"])
    with pytest.raises(anthropic.BadRequestError, match="cannot be modified"):
        await ask(client, request(assistant({**block, "content": "Other."}), user("on")), ["compact-2026-09-04"])


# Where the rules come from

ELSEWHERE = {
    "compaction beside context_management": test_compaction_beside_context_management_is_refused,
    "compaction alone in its reply": test_a_compaction_is_alone_in_its_reply_and_comes_back_unchanged,
    "changed summary": test_a_compaction_is_alone_in_its_reply_and_comes_back_unchanged,
    "thinking after a changed history": test_thinking_is_bound_to_the_past,
    "thinking dropped when asked": test_thinking_is_bound_to_the_past,
    "clearing below its minimum": test_clearing_stays_cleared,
    "over 32 MB": test_refuses_by_headers_and_size,
    "an answer that does not fit its format": test_an_answer_keeps_to_its_format,
}


def test_every_rule_has_a_source_and_a_test() -> None:
    assert set(RULES) == {*REFUSED, *ELSEWHERE}
    assert (Path(__file__).parent / "RULES.md").read_text() == table(), "run python -m tests.messages_api.rules"


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.quoted])
def test_the_sdk_says_so(name: str) -> None:
    source = (Path(anthropic.__file__).parent / "types" / RULES[name].source).read_text()
    assert plain(RULES[name].words) in plain(source)


# How it fails


async def test_errors_with_a_status(messages_api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    messages_api.fail(rate_limited(7), overloaded(), BadGateway())
    with pytest.raises(anthropic.RateLimitError) as limited:
        await ask(client, request(user("go")))
    assert limited.value.response.headers["retry-after"] == "7" and limited.value.type == "rate_limit_error"
    with pytest.raises(anthropic.OverloadedError):
        await ask(client, request(user("go")))
    with pytest.raises(anthropic.InternalServerError) as gateway:
        await ask(client, request(user("go")))
    assert gateway.value.type is None and "text/html" in gateway.value.response.headers["content-type"]
    assert (await ask(client, request(user("go")))).stop_reason == "end_turn"
    assert [item.status for item in messages_api.requests] == [429, 529, 502, 200]
    assert messages_api.refusals == []


async def test_streams_that_go_wrong(messages_api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    messages_api.fail(Break(after=4), Break(after=0), SseError(after=3), NoStop(after=5), Stall(after=3, seconds=60))
    with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
        await ask(client, request(user("go")))
    with pytest.raises(anthropic.APIConnectionError):
        await ask(client, request(user("go")))
    with pytest.raises(anthropic.APIStatusError) as inside:
        await ask(client, request(user("go")))
    assert inside.value.status_code == 200 and inside.value.type == "overloaded_error"
    assert (await ask(client, request(user("go")))).stop_reason is None
    with pytest.raises((anthropic.APITimeoutError, httpx2.ReadTimeout)):
        await ask(client.with_options(timeout=0.3), request(user("go")))
    messages_api.policy = Script([refusal_reply("cyber")])
    refused = await ask(client, request(user("go")))
    assert refused.stop_reason == "refusal" and refused.stop_details.category == "cyber"
