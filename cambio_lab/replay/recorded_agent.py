"""The agent of a session: recorded as it works, or replayed from a record. Either way the same loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..agent.client import ModelClient
from ..agent.gate import Gate
from ..agent.loop import Agent
from ..agent.options import AgentOptions, TurnOptions
from ..agent.turn import Emit
from ..desktop.base import Desktop, Screenshot
from ..errors import CambioError
from ..events import Event, Usage
from ..recording.masking import Mask
from ..recording.recorder import HumanCall, Recorder
from ..store import Store
from .playback import Playback
from .replay_desktop import ReplayDesktop

WARM_AFTER = 0.1
PATIENCE = 3.0
"""Seconds that a replayed session waits for its client to stop or decide as it did, before the record does."""


class RecordedAgent:
    """An agent whose client and record end with it; with ``playback`` it repeats a recorded run.

    ``see`` is told of each event before the session stores it. Without ``record_clients`` only what the agent does to
    the desktop is recorded.
    """

    def __init__(
        self,
        agent: Agent,
        client: ModelClient,
        recorder: Recorder,
        playback: Playback | None = None,
        *,
        see: Callable[[Event], None] | None = None,
        record_clients: bool = True,
    ) -> None:
        self._agent = agent
        self._client = client
        self._recorder = recorder
        self._playback = playback
        self._see = see
        self._record_clients = record_clients
        self._warming = asyncio.create_task(self._warm(), name="loading the SDK")

    async def _warm(self) -> None:
        """Load the SDK and make its client before the first message, and after the session was returned."""
        await asyncio.sleep(WARM_AFTER)
        with suppress(CambioError):  # a missing key is said when there is a message to answer
            await self._client.open(self._agent.options.model)
            await self._client.parts()

    async def run(self, content: str, emit: Emit, *, options: TurnOptions | None = None) -> None:
        async def shown(event: Event) -> None:
            if self._see is not None:
                self._see(event)
            await emit(event)

        if self._playback is not None:
            await self._playback.run(self._agent, content, shown, options)
        else:
            await self._agent.run(content, shown, options=options)

    @property
    def history(self) -> list[dict[str, Any]]:
        return self._agent.history

    def clear(self) -> None:
        self._agent.clear()

    async def human_step(self, call: HumanCall | None, screenshot: Screenshot | None = None) -> int:
        """Count a step that a person made; record it as a ``call`` to the desktop, and what was seen after it."""
        step = self._agent.count_step()
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
        if self._playback is not None:
            await self._playback.aclose()
        await self._agent.aclose()
        await self._client.aclose()
        await self._recorder.aclose()


async def build_agent(
    store: Store,
    session_id: str,
    *,
    desktop: Desktop,
    options: AgentOptions,
    gate: Gate,
    history: Sequence[dict[str, Any]] = (),
    spent: Usage = Usage(),  # noqa: B008 - frozen
    steps: int = 0,
    facts: Mapping[str, Any] | None = None,
    make_client: Callable[..., ModelClient] = ModelClient,
    see: Callable[[Event], None] | None = None,
    record_clients: bool = True,
) -> RecordedAgent:
    """Return an agent for this desktop, the one of sessions and experiments alike.

    A desktop that is a recording is replayed: no key, no network. ``facts`` are noted in the record, ``make_client``
    is called with the arguments of :class:`ModelClient`; ``see`` and ``record_clients`` as in :class:`RecordedAgent`.
    """
    recorder = await Recorder.open(store, session_id)
    await recorder.begin(facts, options=options, desktop=desktop, approval=gate.policy)
    connection: dict[str, Any] = {
        "platform": options.platform,
        "base_url": options.base_url,
        "stall": options.model_stall,
        "wrap": recorder.transport,
    }
    recording = desktop if isinstance(desktop, ReplayDesktop) else None
    playback = Playback(recording.contents, gate, desktop=recording, patience=PATIENCE) if recording else None
    if playback is not None:
        playback.check_options(options)
        connection["transport"] = playback.transport
    client = make_client(**connection)
    agent = Agent(
        desktop=recorder.desktop(playback.desktop.for_agent if playback else desktop),
        options=options,
        gate=gate,
        client=client,
        history=history,
        spent=spent,
        steps=steps,
    )
    return RecordedAgent(agent, client, recorder, playback, see=see, record_clients=record_clients)
