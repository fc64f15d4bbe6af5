"""OpenTelemetry spans of what agents do, by the semantic conventions for generative AI.

Off until the standard ``OTEL_*`` variables name an exporter. A turn is an ``invoke_agent`` span, below it a ``chat``
span for each request to the model and an ``execute_tool`` span for each call. Spans leave in a thread of the SDK, which
drops them rather than wait. What was said and typed is left out unless
``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` is true; a screenshot is named by its digest.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from functools import singledispatchmethod
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .. import events
from .._version import __version__

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

    from ..sessions import SessionView

log = logging.getLogger(__name__)
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
LONGEST = 8_000
"""Characters of one captured text."""
Encode = Callable[[Any, Any], Any]
Facts = Callable[[str], Mapping[str, str]]
"""Attributes of a session's turns."""


def configured(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the variables ask for traces over OTLP."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    return exporter == "otlp" or (not exporter and any(environment.get(name) for name in ENDPOINTS))


def traced(encode: Encode, facts: Facts | None = None) -> Traced | None:
    """Return ``encode`` with traces of each event that passes, or ``None`` when they are off or cannot be made."""
    if not configured():
        return None
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = _exporter()
    except ImportError as error:
        log.warning('no traces: %s; install them with: pip install "cambio-lab[otel]"', error)
        return None
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    provider = TracerProvider(resource=Resource.create({} if named else {"service.name": "cambio_lab"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    capture = os.environ.get(CAPTURE, "").lower() == "true"
    return Traced(encode, provider.get_tracer("cambio_lab", __version__), provider.shutdown, capture, facts)


def _exporter() -> Any:
    names = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    wanted = next((os.environ[name] for name in names if os.environ.get(name)), "")
    protocol = "grpc" if wanted == "grpc" else "http"
    return import_module(f"opentelemetry.exporter.otlp.proto.{protocol}.trace_exporter").OTLPSpanExporter()


class Traced:
    """An encoder that makes spans of the events that pass; every event of every session passes once."""

    def __init__(
        self,
        encode: Encode,
        tracer: Tracer,
        shutdown: Callable[[], None],
        capture: bool,
        facts: Facts | None = None,
    ) -> None:
        self._encode = encode
        self._tracer = tracer
        self._capture = capture
        self._facts = facts or (lambda session_id: {})
        self._turns: dict[str, Span] = {}
        """The span of each session's running turn."""
        self._models: dict[str, str] = {}
        self.shutdown = shutdown
        """Send what waits; blocks for some seconds where no collector answers."""

    def __call__(self, event: events.Event, view: SessionView) -> Any:
        try:
            self._trace(event, view)
        except Exception:  # the turn matters more than its trace
            log.exception("no span: session=%s event=%s", view.session_id, type(event).__name__)
        return self._encode(event, view)

    @singledispatchmethod
    def _trace(self, event: Any, view: SessionView) -> None:
        """Most events are no spans."""

    @_trace.register(events.UserMessage)
    def _(self, event: events.UserMessage, view: SessionView) -> None:
        self._end(view)
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": "cambio_lab",
            "gen_ai.conversation.id": view.session_id,
            "cambio.message.id": event.message_id,
            **self._content("gen_ai.input.messages", "user", event.content),
            **self._facts(view.session_id),
        }
        self._turns[view.session_id] = self._tracer.start_span(
            "invoke_agent cambio_lab", attributes=attributes, start_time=_nanoseconds(view.time)
        )

    @_trace.register(events.RequestSent)
    def _(self, event: events.RequestSent, view: SessionView) -> None:
        self._models[view.session_id] = event.model

    @_trace.register(events.ModelReplied)
    def _(self, event: events.ModelReplied, view: SessionView) -> None:
        from opentelemetry.trace import SpanKind

        model = self._models.get(view.session_id, "")
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.conversation.id": view.session_id,
            "gen_ai.request.model": model,
            "gen_ai.response.finish_reasons": [event.stop_reason],
            **_usage(event.usage),
            **self._content("gen_ai.output.messages", "assistant", event.text),
        }
        self._child(f"chat {model}", view, event.model_ms, attributes, kind=SpanKind.CLIENT).end(
            _nanoseconds(view.time)
        )

    @_trace.register(events.ToolFinished)
    def _(self, event: events.ToolFinished, view: SessionView) -> None:
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": event.tool,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": event.tool_use_id,
            "gen_ai.conversation.id": view.session_id,
            "cambio.step": event.step,
        }
        if view.image_sha256:
            attributes["cambio.screenshot.sha256"] = view.image_sha256
        if self._capture:
            attributes["gen_ai.tool.call.arguments"] = json.dumps(event.arguments, ensure_ascii=False)[:LONGEST]
            attributes["gen_ai.tool.call.result"] = event.text[:LONGEST]
        span = self._child(f"execute_tool {event.tool}", view, event.timing.total, attributes)
        if event.is_error:
            _fail(span, "tool_error", event.text if self._capture else "")
        span.end(_nanoseconds(view.time))

    @_trace.register(events.Retrying)
    def _(self, event: events.Retrying, view: SessionView) -> None:
        self._note("retry", view, {"cambio.attempt": event.attempt, "cambio.delay_seconds": event.delay_seconds})

    @_trace.register(events.ApprovalDecided)
    def _(self, event: events.ApprovalDecided, view: SessionView) -> None:
        self._note("approval", view, {"gen_ai.tool.call.id": event.tool_use_id, "cambio.verdict": event.verdict})

    @_trace.register(events.HumanInput)
    def _(self, event: events.HumanInput, view: SessionView) -> None:
        counts = {"pointer": event.pointer_events, "keys": event.key_events, "clipboard": event.clipboard_events}
        self._note("human input", view, {f"cambio.{name}": count for name, count in counts.items()})

    @_trace.register(events.TurnFinished)
    def _(self, event: events.TurnFinished, view: SessionView) -> None:
        end = "stopped" if event.stopped else event.limit or event.stop_reason
        content = self._content("gen_ai.output.messages", "assistant", event.text)
        self._end(view, {**_usage(event.usage), "cambio.end": end, **content})

    @_trace.register(events.TurnFailed)
    def _(self, event: events.TurnFailed, view: SessionView) -> None:
        if (span := self._turns.get(view.session_id)) is not None:
            _fail(span, event.kind or "internal_error", event.error)
        self._end(view, _usage(event.usage))

    @_trace.register(events.StatusChanged)
    def _(self, event: events.StatusChanged, view: SessionView) -> None:
        if event.metadata.get("event") == "ended":
            self._end(view)
            self._models.pop(view.session_id, None)

    def _child(self, name: str, view: SessionView, ms: float, attributes: dict[str, Any], **options: Any) -> Span:
        from opentelemetry.trace import set_span_in_context

        turn = self._turns.get(view.session_id)
        context = None if turn is None else set_span_in_context(turn)
        started = _nanoseconds(view.time - ms / 1000)
        return self._tracer.start_span(name, context, attributes=attributes, start_time=started, **options)

    def _note(self, name: str, view: SessionView, attributes: dict[str, Any]) -> None:
        if (turn := self._turns.get(view.session_id)) is not None:
            turn.add_event(name, attributes, _nanoseconds(view.time))

    def _end(self, view: SessionView, attributes: Mapping[str, Any] | None = None) -> None:
        if (span := self._turns.pop(view.session_id, None)) is not None:
            span.set_attributes(attributes or {})
            span.end(_nanoseconds(view.time))

    def _content(self, name: str, role: str, text: str) -> dict[str, str]:
        if not self._capture or not text:
            return {}
        message = {"role": role, "parts": [{"type": "text", "content": text[:LONGEST]}]}
        return {name: json.dumps([message], ensure_ascii=False)}


def _usage(usage: events.Usage) -> dict[str, int | float]:
    read, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens + read + written,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": read,
        "gen_ai.usage.cache_creation.input_tokens": written,
        "cambio.cost_usd": usage.cost_usd,
    }


def _fail(span: Span, kind: str, words: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, words[:LONGEST]))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
