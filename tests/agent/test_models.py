"""The table: every model on every platform, against what the strict stand-in (which has its own table) accepts."""

from __future__ import annotations

from datetime import date
from typing import Any, get_args

import httpx2
import pytest

from cambio_lab.agent import Agent, AgentOptions, Gate, models
from cambio_lab.agent.client import ModelClient, sdk_client_name
from cambio_lab.agent.options import thinking_parameters
from cambio_lab.agent.reply import price
from cambio_lab.errors import ConfigurationError, InvalidRequest, UnsupportedModel
from cambio_lab.events import TurnFailed, TurnFinished
from cambio_lab.sessions.config import check_creation
from cambio_lab.settings import Settings
from tests.messages_api import MessagesApi, Script, legacy, screenshot
from tests.messages_api import models as stand_in
from tests.messages_api import reply as answer

from .conftest import MakeAgent, play
from .fake_desktop import FakeDesktop
from .scripted import Scripted, error, reply, text

PLATFORM_ENVIRONMENT = {
    "anthropic": {"ANTHROPIC_API_KEY": "key-for-a-test"},
    "aws": {"AWS_REGION": "eu-west-1", "ANTHROPIC_AWS_WORKSPACE_ID": "wrkspc_1", "ANTHROPIC_AWS_API_KEY": "test"},
    "bedrock": {"AWS_REGION": "eu-west-1", "AWS_BEARER_TOKEN_BEDROCK": "token-for-a-test"},
    "google": {
        "ANTHROPIC_GOOGLE_CLOUD_WORKSPACE_ID": "wrkspc_1",
        "ANTHROPIC_GOOGLE_CLOUD_BASE_URL": "https://google.example",
    },
    "foundry": {"ANTHROPIC_FOUNDRY_RESOURCE": "lab", "ANTHROPIC_FOUNDRY_API_KEY": "key-for-a-test"},
}
HOSTS = {
    "anthropic": "api.anthropic.com",
    "aws": "aws-external-anthropic.eu-west-1.api.aws",
    "bedrock": "bedrock-mantle.eu-west-1.api.aws",
    "google": "google.example",
    "foundry": "lab.services.ai.azure.com",
}


@pytest.mark.parametrize("model", [name for name in stand_in.MODELS if name in models.TABLE])
async def test_every_model_of_the_claude_api_runs_a_step(model: str, make: MakeAgent, api: MessagesApi) -> None:
    old = models.resolve(model).tool != models.TOOLSET
    api.policy = Script([answer(legacy("screenshot") if old else screenshot())], end="Done.")
    end = (await play(make(api, model=model)))[-1]
    assert isinstance(end, TurnFinished) and end.text == "Done."
    usage = api.service.usages
    assert sum(stand_in.cost_usd(stand_in.MODELS[model], one) for one in usage) <= end.usage.cost_usd + 1e-12


@pytest.mark.parametrize("name", list(stand_in.MODELS))
def test_both_tables_agree_on_tool_binding_and_listed_prices(name: str) -> None:
    ours, theirs = models.resolve(name), stand_in.MODELS[name]
    assert ours.tool in theirs.tools
    assert ours.bound == theirs.bound
    assert (ours.images.edge > 2000) == theirs.high_resolution
    assert ours.images.per_request <= theirs.max_images or theirs.max_input_tokens <= 200_000
    if not ours.prices.estimated:
        assert (ours.prices.input, ours.prices.output, ours.prices.read) == (
            theirs.prices.input,
            theirs.prices.output,
            theirs.prices.read,
        )


@pytest.mark.parametrize(("model", "platform"), models.pairs())
async def test_every_pair_is_sent_by_the_platforms_own_client(
    model: str, platform: str, desktop: FakeDesktop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in PLATFORM_ENVIRONMENT[platform].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("anthropic.lib.google_cloud._client._GoogleCredentialsState.token", lambda self: "google-token")
    transport = Scripted(reply(text("Done.")))
    client = ModelClient(platform, transport=transport)
    agent = Agent(desktop=desktop, options=AgentOptions(model, platform), gate=Gate("never"), client=client)
    end = (await play(agent))[-1]
    await client.aclose()
    assert isinstance(end, TurnFinished), end
    assert transport.urls[0].startswith(f"https://{HOSTS[platform]}/")
    (body,) = transport.requests
    assert body["model"] == (f"anthropic.{model}" if platform == "bedrock" else model)
    assert body["tools"][0]["type"] == models.resolve(model, platform).tool
    betas = transport.headers[0].get("anthropic-beta", "")
    assert [beta for beta in models.resolve(model, platform).betas if beta not in betas] == []
    assert int(transport.headers[0]["content-length"]) == len(transport.bodies[0])


async def test_an_inference_profile_goes_to_the_older_bedrock_endpoint(
    desktop: FakeDesktop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in PLATFORM_ENVIRONMENT["bedrock"].items():
        monkeypatch.setenv(name, value)
    model = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
    found: list[httpx2.Request] = []

    async def handle(request: httpx2.Request) -> httpx2.Response:
        found.append(request)
        await request.aread()
        return httpx2.Response(400, json={"message": "enough seen"})

    client = ModelClient("bedrock", transport=httpx2.MockTransport(handle))
    agent = Agent(desktop=desktop, options=AgentOptions(model, "bedrock"), gate=Gate("never"), client=client)
    await play(agent)
    await client.aclose()
    assert found[0].url.host == "bedrock-runtime.eu-west-1.amazonaws.com"
    assert found[0].url.path.startswith("/model/us.anthropic.claude-sonnet-4-5")
    assert b'"messages":[{"role":"user"' in found[0].content


async def test_vertex_ai_is_the_other_way_to_google(desktop: FakeDesktop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_ML_REGION", "europe-west1")
    monkeypatch.setenv("ANTHROPIC_VERTEX_PROJECT_ID", "lab")
    vertex = "anthropic.lib.vertex._client.AsyncAnthropicVertex"
    monkeypatch.setattr(f"{vertex}._ensure_access_token", _token)
    transport = Scripted(reply(text("Done.")))
    client = ModelClient("google", transport=transport)
    options = AgentOptions("claude-opus-5", "google")
    agent = Agent(desktop=desktop, options=options, gate=Gate("never"), client=client)
    end = (await play(agent))[-1]
    await client.aclose()
    assert isinstance(end, TurnFinished), end
    assert transport.urls[0].endswith(
        "/locations/europe-west1/publishers/anthropic/models/claude-opus-5:streamRawPredict"
    )
    assert transport.requests[0]["messages"][0]["content"][0]["text"] == "Go."


async def _token(client: object) -> str:
    return "google-token"


async def test_a_gateway_that_cannot_clear_is_asked_without(make: MakeAgent) -> None:
    """Clearing is asked for once there is something to clear; a 400 to that is answered by doing without."""
    model = Scripted(
        reply(text("Hello."), usage={"input_tokens": 30_000}),
        error(400, "invalid_request_error"),
        reply(text("Again.")),
        reply(text("And again.")),
    )
    agent = make(model)
    agent._client.base_url = "https://gateway.example"
    for expected in ("Hello.", "Again.", "And again."):
        assert (await play(agent))[-1].text == expected  # type: ignore[attr-defined]
    assert ["context_management" in request for request in model.requests] == [False, True, False, False]


async def test_a_400_before_anything_extra_was_asked_is_final(make: MakeAgent) -> None:
    agent = make(Scripted(error(400, "invalid_request_error"), reply(text("Hello."))))
    agent._client.base_url = "https://gateway.example"
    assert isinstance((await play(agent))[-1], TurnFailed)


async def test_a_platform_that_is_not_set_up_says_so(desktop: FakeDesktop, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "ANTHROPIC_BEDROCK_MANTLE_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    client = ModelClient("bedrock")
    with pytest.raises(ConfigurationError, match="region"):
        await client.open("claude-opus-5")


async def test_a_gateway_is_reached_through_base_url(make: MakeAgent, api: MessagesApi) -> None:
    assert isinstance((await play(make(api)))[-1], TurnFinished)
    assert api.requests[0].path == "/v1/messages"


@pytest.mark.parametrize(
    ("model", "platform"),
    [
        ("gpt-7", "anthropic"),
        ("claude-3-5-sonnet", "anthropic"),
        ("claude-opus-5-5", "foundry"),
        ("claude-haiku-5-5", "bedrock"),
        ("claude-sonnet-5-5", "mars"),
    ],
)
def test_a_pair_that_is_not_listed_is_refused_with_a_suggestion(model: str, platform: str) -> None:
    with pytest.raises(UnsupportedModel) as refused:
        AgentOptions(model=model, platform=platform)
    assert refused.value.hint and len(refused.value.hint) < 200
    assert model in refused.value.message and platform in refused.value.message


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5"),
        ("anthropic.claude-opus-4-6-v1", "claude-opus-4-6"),
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("claude-opus-4-20250514", "claude-opus-4"),
        ("claude-sonnet-5-5", "claude-sonnet-5-5"),
    ],
)
def test_platform_spellings_find_their_row(name: str, known: str) -> None:
    assert models.canonical(name) == known


def test_names_on_the_wire() -> None:
    assert models.wire_model("claude-opus-5", "bedrock") == "anthropic.claude-opus-5"
    assert models.wire_model("claude-opus-5", "google") == "claude-opus-5"
    assert sdk_client_name("bedrock", "claude-opus-5") == "AsyncAnthropicBedrockMantle"
    assert sdk_client_name("bedrock", "eu.anthropic.claude-opus-5") == "AsyncAnthropicBedrock"


def test_money_is_counted_by_kind_of_token() -> None:
    usage = {
        "input_tokens": 1_000_000,
        "output_tokens": 100_000,
        "cache_creation_input_tokens": 300_000,
        "cache_read_input_tokens": 2_000_000,
        "cache_creation": {"ephemeral_5m_input_tokens": 200_000, "ephemeral_1h_input_tokens": 100_000},
        "output_tokens_details": {"thinking_tokens": 60_000},
    }
    cost = price("claude-sonnet-5-5", usage)
    assert cost.cost_usd == pytest.approx(2 + 1 + 0.2 * 2.5 + 0.1 * 4 + 2 * 0.1)
    assert (cost.thinking_tokens, cost.requests) == (60_000, 1)


def test_a_compaction_is_paid_for_although_the_sums_leave_it_out() -> None:
    usage = {
        "input_tokens": 10,
        "output_tokens": 10,
        "iterations": [
            {"type": "compaction", "input_tokens": 100_000, "output_tokens": 1000},
            {"type": "message", "input_tokens": 10, "output_tokens": 10},
        ],
    }
    cost = price("claude-sonnet-5-5", usage)
    assert cost.cost_usd == pytest.approx((100_010 * 2 + 1010 * 10) / 1e6)


def test_long_prompts_of_the_small_model_cost_five_times_as_much() -> None:
    short = price("claude-haiku-5-5", {"input_tokens": 100_000, "output_tokens": 0}).cost_usd
    long = price("claude-haiku-5-5", {"input_tokens": 100_001, "output_tokens": 0}).cost_usd
    assert short == pytest.approx(0.01) and long == pytest.approx(0.05000050)


def test_screenshots_are_checked_against_the_models_eyes() -> None:
    new, old = models.HIGH_RESOLUTION, models.LOW_RESOLUTION
    assert [new.cost(*size) for size in ((1024, 768), (1280, 800), (1920, 1080), (2560, 1440))] == [
        1036,
        1334,
        2691,
        4784,
    ]
    assert new.problem(1280, 800) is None and old.problem(1280, 800) is None
    assert "2576" in (new.problem(2577, 100) or "") and "visual tokens" in (new.problem(2560, 1600) or "")
    assert old.problem(1920, 1080) is not None


async def test_a_screen_too_large_for_the_model_is_refused_before_anything_is_sent(
    make: MakeAgent, desktop: FakeDesktop
) -> None:
    from cambio_lab.desktop.base import Size

    await desktop.resize(Size(1920, 1080))
    model = Scripted()
    end = (await play(make(model, model="claude-sonnet-4-6")))[-1]
    assert "too large" in end.error and not model.requests  # type: ignore[attr-defined]


THINKING: list[tuple[str, str, dict[str, Any] | None]] = [
    ("claude-opus-5-5", "", {"type": "adaptive", "display": "summarized"}),
    ("claude-sonnet-5-5", "", {"type": "adaptive", "display": "summarized"}),
    ("claude-sonnet-5-5", "between_tools", {"type": "between_tools"}),
    ("claude-haiku-5-5", "off", {"type": "disabled"}),
    ("claude-opus-5", "off", {"type": "disabled"}),
    ("claude-sonnet-5", "on", {"type": "adaptive", "display": "summarized"}),
    ("claude-haiku-4-5", "", None),
    ("claude-haiku-4-5", "on", {"type": "enabled", "budget_tokens": 8000}),
    ("claude-haiku-4-5", "off", None),
    ("demo", "", None),
]


@pytest.mark.parametrize(("model", "thinking", "sent"), THINKING)
def test_thinking_is_asked_for_as_each_model_wants_it(model: str, thinking: str, sent: dict[str, Any] | None) -> None:
    options = AgentOptions(model=model, thinking=thinking)
    assert thinking_parameters(models.resolve(model), options).get("thinking") == sent


@pytest.mark.parametrize(
    ("model", "thinking", "effort"),
    [
        ("claude-opus-5-5", "off", "medium"),
        ("claude-sonnet-5-5", "off", "low"),
        ("claude-sonnet-5-5", "between_tools", "xhigh"),
        ("claude-haiku-5-5", "off", "max"),
        ("claude-opus-5", "between_tools", "low"),
        ("claude-opus-5", "perhaps", "low"),
        ("claude-opus-5", "", "enormous"),
    ],
)
def test_settings_that_the_service_would_refuse_are_refused_here(model: str, thinking: str, effort: str) -> None:
    with pytest.raises(InvalidRequest):
        AgentOptions(model=model, thinking=thinking, effort=effort)


def test_options_come_from_settings_with_the_session_on_top() -> None:
    settings = Settings(model="claude-opus-5", max_steps=7, approval="never")
    options = AgentOptions.from_settings(
        settings, {"max_steps": 9, "effort": None, "desktop": "local", "system": "Hi."}
    )
    assert (options.model, options.max_steps, options.effort, options.system) == ("claude-opus-5", 9, "medium", "Hi.")
    for wrong in ({"max_steps": -1}, {"max_tokens": 10}, {"image_format": "gif"}):
        with pytest.raises(InvalidRequest):
            AgentOptions.from_settings(settings, wrong)


def test_the_table_describes_itself() -> None:
    rows = models.describe()
    assert {row["platform"] for row in rows} == set(models.PLATFORMS)
    assert all(row["prices"]["input"] > 0 for row in rows)


def test_a_wrong_model_name_is_answered_with_similar_ones() -> None:
    with pytest.raises(UnsupportedModel) as caught:
        models.resolve("claude-sonet-5.5")
    assert "Did you mean claude-sonnet-5-5" in caught.value.hint and len(caught.value.hint) < 200
    with pytest.raises(UnsupportedModel) as caught:
        models.resolve("gpt-4")
    assert "model_names()" in caught.value.hint and len(caught.value.hint) < 200


def test_retirements_are_those_of_the_sdk() -> None:
    from anthropic.resources.messages.messages import DEPRECATED_MODELS

    said = {models.canonical(name): day for name, day in DEPRECATED_MODELS.items()}
    days = {name: date.fromisoformat(day) for name, day in models.RETIREMENT.items()}
    assert {name for name in said if name in models.TABLE} == set(days)
    for name, day in days.items():
        assert said[name].startswith(f"{day:%B} {day.day}") and said[name].endswith(str(day.year))
    rows = [row for row in models.describe() if row["model"] == "claude-sonnet-4-5"]
    assert {row["retires"] for row in rows if row["platform"] in ("anthropic", "aws")} == {"2026-11-30"}
    assert {row["retires"] for row in rows if row["platform"] == "bedrock"} == {None}


def test_a_model_that_retires_is_announced_then_refused_and_not_offered() -> None:
    name, last = "claude-sonnet-4-5", date(2026, 11, 30)
    assert models.notice(name, "anthropic", date(2026, 1, 1)) is None
    words = "retires on 2026-11-30; its replacement is claude-sonnet-5-5"
    assert words in str(models.notice(f"{name}-20250929", "anthropic", last))
    assert not models.retired(name, "anthropic", last) and models.retired(name, "aws", date(2026, 12, 1))
    assert not models.retired(name, "bedrock", date(2027, 1, 1))
    with pytest.raises(InvalidRequest, match="was retired on 2026-06-15; its replacement is claude-opus-5-5"):
        check_creation(None, {"model": "claude-opus-4"}, Settings())
    offered = {(row["model"], row["platform"]) for row in models.describe(date(2026, 12, 1))}
    assert (name, "bedrock") in offered and not {(name, "anthropic"), (name, "aws")} & offered
    assert all(resolved in models.TABLE for resolved in models.REPLACEMENT.values())


def test_the_table_has_every_model_that_the_sdk_names() -> None:
    from anthropic.types.model_param import ModelParam

    named = {models.canonical(name) for name in get_args(get_args(ModelParam)[0])}
    assert named - set(models.TABLE) == {"claude-mythos-preview"}, "add what is new to the table, or name it here"


async def test_a_task_budget_is_told_where_the_model_takes_one(make: MakeAgent, api: MessagesApi) -> None:
    api.policy = Script([answer(screenshot())])
    await play(make(api, task_budget=40_000))
    assert api.bodies[-1]["output_config"]["task_budget"] == {"type": "tokens", "total": 40_000}
    for model, budget in (("claude-sonnet-5", 40_000), ("claude-sonnet-5-5", 19_999)):
        with pytest.raises(InvalidRequest):
            AgentOptions(model, task_budget=budget)
