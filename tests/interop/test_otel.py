"""Traces of a real server's turns, as a real OTLP receiver gets them."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from cambio_lab.client.workbench import Workbench
from cambio_lab.events import (
    ModelReplied,
    RequestSent,
    Timing,
    ToolFinished,
    TurnFailed,
    TurnFinished,
    Usage,
    UserMessage,
)
from cambio_lab.experiments import Experiment
from cambio_lab.interop.otel import ENDPOINTS, Traced, configured, traced
from cambio_lab.sessions import SessionView

from ..experiments.conftest import GOOD, api, experiment, provider  # noqa: F401  (fixtures)

Span = dict[str, Any]


class Receiver(ThreadingHTTPServer):
    """Collects spans, and the path and ``Authorization`` of each request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[ExportTraceServiceRequest] = []
        self.callers: set[tuple[str, str | None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def services(self) -> set[str]:
        return {
            attribute.value.string_value
            for request in self.requests
            for group in request.resource_spans
            for attribute in group.resource.attributes
            if attribute.key == "service.name"
        }

    def spans(self) -> list[Span]:
        """Every span as ``{name, id, parent, start, end, status, attributes, events}``, by start."""
        found = [
            {
                "name": span.name,
                "id": span.span_id,
                "parent": span.parent_span_id,
                "start": span.start_time_unix_nano / 1e9,
                "end": span.end_time_unix_nano / 1e9,
                "status": span.status.code,
                "attributes": {item.key: value(item.value) for item in span.attributes},
                "events": [event.name for event in span.events],
            }
            for request in self.requests
            for group in request.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]
        return sorted(found, key=lambda span: span["start"])


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/x-protobuf"
        self.server.callers.add((self.path, self.headers["Authorization"]))
        self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Nothing on the terminal."""


def value(any_value: Any) -> Any:
    kind = any_value.WhichOneof("value")
    found = getattr(any_value, kind)
    return [value(item) for item in found.values] if kind == "array_value" else found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("capture", [False, True])
async def test_a_turn_of_a_real_server_is_a_trace(
    receiver: Receiver, start_server: Callable[..., Any], capture: bool
) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
    if capture:
        environment |= {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true", "OTEL_SERVICE_NAME": "our lab"}
    server = await start_server(env=environment)
    async with Workbench(server.url, server.token) as lab, await lab.create_session("traced", model="demo") as session:
        turn = await session.send("Open a terminal.")
    await server.stop()  # what waits is sent
    spans = receiver.spans()
    (agent,) = [span for span in spans if span["name"] == "invoke_agent cambio_lab"]
    chats = [span for span in spans if span["name"] == "chat demo"]
    tools = [span for span in spans if span["name"].startswith("execute_tool ")]
    assert [span["attributes"]["gen_ai.tool.name"] for span in tools] == [step.tool for step in turn.steps]
    assert len(chats) >= 4 and len(chats) + len(tools) + 1 == len(spans)
    for span in chats + tools:
        assert span["parent"] == agent["id"] and agent["start"] <= span["start"] <= span["end"] <= agent["end"] + 0.01
        assert span["attributes"]["gen_ai.conversation.id"] == session.id
    used = sum(span["attributes"]["gen_ai.usage.input_tokens"] for span in chats)
    assert agent["attributes"]["gen_ai.usage.input_tokens"] == used > 0
    assert sum("cambio.screenshot.sha256" in span["attributes"] for span in tools) >= 3
    said = [span["attributes"].get("gen_ai.tool.call.arguments", "") for span in tools]
    assert any("Open a terminal." in text for text in said) is capture
    assert ("gen_ai.input.messages" in agent["attributes"]) is capture
    assert receiver.services() == {"our lab" if capture else "cambio_lab"}
    assert receiver.callers == {("/v1/traces", None)}


def test_the_documented_lines_for_langfuse_give_its_path_and_basic_authentication(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "traces.md").read_text()
    lines = page.partition("## Langfuse")[2].split("```")[1].replace("https://cloud.langfuse.com", receiver.url)
    keys = {"PUBLIC_KEY": "pk-lf-1", "SECRET_KEY": "sk-lf-2"}
    said = subprocess.run(
        ["bash", "-ec", f"{lines}\nenv -0"], env={**os.environ, **keys}, capture_output=True, check=True
    )
    for name, _, text in (line.partition("=") for line in said.stdout.decode().split("\0")):
        if name.startswith("OTEL_"):
            monkeypatch.setenv(name, text)
    traces = traced(lambda event, view: None)
    assert traces is not None
    traces(UserMessage("m", "go"), view(100.0))
    traces(TurnFinished("", [], 1.0, Usage()), view(101.0))
    traces.shutdown()
    credentials = base64.b64encode(b"pk-lf-1:sk-lf-2").decode()
    assert receiver.callers == {("/api/public/otel/v1/traces", f"Basic {credentials}")}
    assert [span["name"] for span in receiver.spans()] == ["invoke_agent cambio_lab"]


def view(at: float, **particulars: Any) -> SessionView:
    return SessionView(session_id="s", time=at, state="thinking", steps=0, usage=Usage(), **particulars)


@pytest.fixture
def traces(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Traced:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    found = traced(lambda event, view: type(event).__name__)
    assert found is not None
    return found


def test_errors_are_marked(receiver: Receiver, traces: Traced) -> None:
    usage = Usage(10, 5, 3, 2, 0, 1, 0.25)
    assert traces(UserMessage("m", "go"), view(100.0)) == "UserMessage"
    traces(RequestSent(1, "claude-sonnet-5-5", "0" * 64, 10, 0), view(100.1))
    traces(ModelReplied(1, "tool_use", usage, 500.0), view(101.0))
    traces(ToolFinished("t", "bash", None, {}, 1, True, "no", Timing(total=200.0)), view(102.0))
    traces(TurnFailed("The model cannot be reached.", "", 3.0, usage, kind="ModelUnavailable"), view(103.0))
    traces.shutdown()
    agent, chat, tool = receiver.spans()
    assert (chat["start"], chat["end"]) == pytest.approx((100.5, 101.0)) and chat["status"] == 0
    assert chat["attributes"]["gen_ai.usage.input_tokens"] == 15 and chat["attributes"]["cambio.cost_usd"] == 0.25
    assert (tool["start"], tool["end"]) == pytest.approx((101.8, 102.0))
    assert (tool["status"], tool["attributes"]["error.type"]) == (2, "tool_error")
    assert (agent["status"], agent["attributes"]["error.type"]) == (2, "ModelUnavailable")


def test_a_failure_of_the_tracer_is_not_the_turns(traces: Traced, caplog: pytest.LogCaptureFixture) -> None:
    assert traces(UserMessage("m", "go"), view(float("inf"))) == "UserMessage"
    assert "no span: session=s event=UserMessage" in caplog.text
    traces.shutdown()


async def test_cells_of_an_experiment_are_traces(
    receiver: Receiver,
    experiment: Callable[..., Experiment],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    tally = await experiment(repeats=2).run(progress=False, concurrency=2)
    assert tally.success == 2
    turns = [span["attributes"] for span in receiver.spans() if span["name"].startswith("invoke_agent")]
    cells = {turn["cambio.experiment.cell"] for turn in turns}
    assert len(turns) == 2 and cells == {f"word/{GOOD}/default/{repeat}" for repeat in (0, 1)}
    assert {turn["cambio.experiment.task"] for turn in turns} == {"word"}
    assert all(turn["cambio.cost_usd"] > 0 for turn in turns)


@pytest.mark.timing
def test_a_step_costs_little(traces: Traced) -> None:
    """Three events a step. One percent of the fastest step, 100 ms, is a millisecond."""
    events = (
        RequestSent(1, "claude-sonnet-5-5", "0" * 64, 10, 0),
        ModelReplied(1, "tool_use", Usage(), 1.0),
        ToolFinished("t", "left_click", "computer", {"coordinate": [1, 2]}, 1, False, "", Timing(total=1.0)),
    )
    traces(UserMessage("m", "go"), view(time.time()))
    began = time.thread_time()
    for _ in range(300):
        for event in events:
            traces(event, view(time.time()))
    assert (time.thread_time() - began) / 300 < 0.001
    traces(TurnFinished("", [], 1.0, Usage()), view(time.time()))
    traces.shutdown()


@pytest.mark.parametrize(
    ("environment", "on"),
    [
        ({}, False),
        ({ENDPOINTS[0]: "http://x"}, True),
        ({ENDPOINTS[1]: "http://x/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({ENDPOINTS[0]: "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({ENDPOINTS[0]: "http://x", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_it_is_off_until_an_exporter_is_named(environment: dict[str, str], on: bool) -> None:
    assert configured(environment) is on
