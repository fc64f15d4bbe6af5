"""The agent of a session: recorded as it works, or repeating a recorded run. Either way the same loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cambio_lab.agent import Agent
from cambio_lab.agent.client import ModelClient
from cambio_lab.agent.gate import Gate
from cambio_lab.agent.options import AgentOptions, TurnOptions
from cambio_lab.agent.transcript import close_open_batch
from cambio_lab.agent.turn import Emit
from cambio_lab.desktop.base import Desktop, Screenshot
from cambio_lab.errors import CambioError
from cambio_lab.events import Usage
from cambio_lab.recording.placeholders import Mask
from cambio_lab.recording.recorder import HumanCall, Recorder
from cambio_lab.replay.playback import Playback
from cambio_lab.replay.recorded import ReplayDesktop
from cambio_lab.settings import Settings
from cambio_lab.store import Store

from .config import SessionConfig
from .secrets import SecretDesktop, introduction

WARM_AFTER = 0.1
PATIENCE = 3.0
"""Seconds that a replayed session waits for its client to stop or decide as it did, before the record does."""


@dataclass(frozen=True, slots=True)
class AgentRequest:
    """Everything an agent needs to begin, or to go on after a restart (``history``, ``spent``, ``steps``)."""

    session_id: str
    config: SessionConfig
    desktop: Desktop
    gate: Gate
    history: Sequence[dict[str, Any]] = ()
    spent: Usage = Usage()
    steps: int = 0


class RecordedAgent(Agent):
    """An agent with its record. Without ``record_clients`` only what the agent does to the desktop is recorded."""

    def __init__(self, recorder: Recorder, client: ModelClient, *, record_clients: bool, **given: Any) -> None:
        super().__init__(client=client, **given)
        self._recorder = recorder
        self._record_clients = record_clients
        self._warming = asyncio.create_task(self._warm(client), name="loading the SDK")

    async def _warm(self, client: ModelClient) -> None:
        """Load the SDK and make its client before the first message, and after the session was returned."""
        await asyncio.sleep(WARM_AFTER)
        with suppress(CambioError):  # a missing key is said when there is a message to answer
            await client.open(self.options.model)
            await client.parts()

    async def human_step(self, call: HumanCall | None, screenshot: Screenshot | None = None) -> int:
        """Count a step that a person made; record it as a ``call`` to the desktop, and what was seen after it."""
        step = self.count_step()
        if self._record_clients:
            await self._recorder.human(step, call, screenshot)
        return step

    def client_desktop(self, desktop: Desktop, mask: Mask) -> Desktop:
        """Return ``desktop`` as clients get it: what they do with files and clipboard is recorded as well."""
        if desktop.recorded or not self._record_clients:
            return desktop
        return self._recorder.client_desktop(desktop, mask)

    async def aclose(self) -> None:
        self._warming.cancel()
        await asyncio.wait({self._warming})
        await super().aclose()
        await self._recorder.aclose()


class ReplayedAgent(RecordedAgent):
    """Repeats a recorded run, which is recorded again."""

    def __init__(self, playback: Playback, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._playback = playback

    async def run(self, content: str, emit: Emit, *, options: TurnOptions | None = None) -> None:
        await self._playback.run(self, content, emit, options)

    async def aclose(self) -> None:
        await self._playback.aclose()
        await super().aclose()


AgentFactory = Callable[[AgentRequest], Awaitable[RecordedAgent]]


async def build_agent(
    settings: Settings,
    store: Store,
    request: AgentRequest,
    *,
    facts: Mapping[str, Any] | None = None,
    make_client: Callable[..., ModelClient] = ModelClient,
    record_clients: bool = True,
) -> RecordedAgent:
    """Return an agent of the real SDK. A desktop that is a recording is replayed: no key, no network.

    ``facts`` are noted in the record, ``make_client`` is called with the arguments of :class:`ModelClient`.
    """
    config, desktop, gate = request.config, request.desktop, request.gate
    if secrets := config.secrets:
        words = introduction(sorted(secrets))
        config = config.changed(system=f"{config.system}\n\n{words}" if config.system else words)
        if not desktop.recorded:  # a recording knows the placeholders only
            desktop = SecretDesktop(desktop, secrets)
    options = AgentOptions.from_settings(settings, config.given())
    recorder = await Recorder.open(store, request.session_id)
    await recorder.begin(facts, options=options, desktop=desktop, approval=gate.policy)
    connection: dict[str, Any] = {
        "platform": options.platform,
        "base_url": options.base_url,
        "stall": options.model_stall,
        "wrap": recorder.transport,
    }
    given: dict[str, Any] = {"options": options, "gate": gate, "record_clients": record_clients}
    given |= {"history": request.history, "spent": request.spent, "steps": request.steps}
    if not isinstance(desktop, ReplayDesktop):
        return RecordedAgent(recorder, make_client(**connection), desktop=recorder.desktop(desktop), **given)
    playback = Playback(desktop.contents, gate, desktop=desktop, patience=PATIENCE)
    playback.check_options(options)
    client = make_client(**connection, transport=playback.transport)
    return ReplayedAgent(playback, recorder, client, desktop=recorder.desktop(playback.desktop.for_agent), **given)


async def stored_conversation(store: Store, session_id: str) -> list[dict[str, Any]]:
    """Return what is stored, with calls that were never answered closed as interrupted, on disk as well."""
    history = await store.transcript.load(session_id)
    closed = close_open_batch(history)
    if added := closed[len(history) :]:
        await store.write(*[await store.transcript.appending(session_id, message) for message in added])
    return closed
