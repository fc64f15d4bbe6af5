"""``cambio_agent`` for Inspect: our loop works on the sample, in the server, where people watch and stop it.

Its messages and events become the sample's. With ``sandbox="cambio"`` it works on the sample's own desktop, so that
tools and scorers see what it did; else it makes a session of its own.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from inspect_ai.agent import Agent, AgentState, agent
from inspect_ai.event import Event
from inspect_ai.log import transcript
from inspect_ai.model import ChatMessage, ChatMessageSystem, ChatMessageUser, ModelOutput, ModelUsage
from inspect_ai.model._model import model_usage_context_var, sample_model_usage_context_var, set_model_usage
from inspect_ai.util import sandbox
from inspect_ai.util._sandbox.context import sandbox_environments_context_var
from pydantic import TypeAdapter

from ..client.session import Session
from ..client.workbench import Workbench
from ..errors import InvalidRequest
from ..reports import Run
from ..reports.exporters.inspect_sample import Transcript, usage_json
from .inspect_sandbox import CambioSandbox

OPTIONS = ("model", "effort", "thinking", "max_tokens", "max_steps", "max_cost_usd", "max_turn_tokens")
_ATTACHMENT = re.compile(r"attachment://([0-9a-f]{64})\Z")
_MESSAGES: TypeAdapter[list[ChatMessage]] = TypeAdapter(list[ChatMessage])
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


@agent(description="Works on a desktop with cambio_lab's own loop.")
def cambio_agent(**options: Any) -> Agent:
    """Return the agent. ``options`` hold for the turn: model, effort, thinking, max_steps, max_cost_usd, ...

    What is not given is as the session's configuration says: that of the sandbox, or the server's defaults.
    """
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise InvalidRequest(f"cambio_agent has no options {', '.join(unknown)}.", hint=f"Known: {', '.join(OPTIONS)}.")

    async def execute(state: AgentState) -> AgentState:
        async with _session(options) as session:
            turn = await session.send(asked(state.messages), metadata={"options": options}, show=False)
            run = await session.load_run()
        messages, events = _told(run)
        for event in events:
            transcript()._event(event)
        facts: dict[str, Any] = {
            "session_id": session.id,
            "stopped": turn.stopped,
            "steps": len(turn.steps),
            "server": session.vnc_url,
        }
        transcript().info(facts, source="cambio_lab")
        usage = ModelUsage.model_validate(usage_json(run.usage))
        state.messages = [*state.messages, *messages[1:]]  # the first one is what was asked
        state.output = ModelOutput.from_content(run.model, turn.text)
        state.output.usage = usage
        for counted in (sample_model_usage_context_var, model_usage_context_var):
            set_model_usage(run.model, usage, counted.get(None))
        return state

    return execute


@asynccontextmanager
async def _session(options: Mapping[str, Any]) -> AsyncIterator[Session]:
    """Yield the session of the sample's sandbox, else a new one that ends with the sample."""
    try:
        own = sandbox().as_type(CambioSandbox).session if sandbox_environments_context_var.get(None) else None
    except TypeError:  # a sandbox of another kind
        own = None
    if own is not None:
        yield own
        return
    async with Workbench() as lab, await lab.create_session("Inspect", model=options.get("model")) as session:
        yield session


def asked(messages: list[ChatMessage]) -> str:
    """Return what the sample asks, as one message: instructions first. Only text can be passed on."""
    texts = [one.text for kind in (ChatMessageSystem, ChatMessageUser) for one in messages if isinstance(one, kind)]
    return "\n\n".join(text for text in texts if text.strip())


def _told(run: Run) -> tuple[list[ChatMessage], list[Event]]:
    """Return a run as Inspect's own messages and events, with its screenshots in place."""
    made = Transcript(run)
    events = [event for event in made.events if event["event"] != "sample_init"]
    for event in events:
        if seen := event.pop("input_refs", None):  # the log would have every image once for each request that sent it
            event["input"] = made.messages[seen[0][1] - 1 : seen[0][1]]
    messages, events = _filled([made.messages, events], made.attachments)
    return _MESSAGES.validate_python(messages), [_EVENT.validate_python(event) for event in events]


def _filled(value: Any, attachments: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(inner, attachments) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, attachments) for inner in value]
    if isinstance(value, str) and (found := _ATTACHMENT.match(value)):
        return attachments[found[1]]
    return value
