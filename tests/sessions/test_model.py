"""The session under anything, in any order, also at once, also with crashes: hypothesis looks for an illegal state."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cambio_lab.agent.transcript import close_open_batch
from cambio_lab.errors import CapacityReached, SessionConflict, SessionNotFound
from cambio_lab.sessions.session import Session
from cambio_lab.store import MessageQuery

from .parts import Bench, until, work

CAPACITY = 3
ACTIONS: dict[str, Callable[[Session], Coroutine[Any, Any, Any]]] = {
    "send": lambda session: session.send("hello"),
    "stop": lambda session: session.stop(),
    "pause": lambda session: session.pause(),
    "resume": lambda session: session.resume(),
    "take": lambda session: session.take_control("ann"),
    "give": lambda session: session.give_back("ann"),
    "clear": lambda session: session.clear_history(),
    "rename": lambda session: session.change(name="renamed"),
}
MAY_BE_REFUSED = (SessionConflict, SessionNotFound, CapacityReached)


class Sessions(RuleBasedStateMachine):
    """What was acknowledged is noted here and compared with what the store has."""

    loop: ClassVar[asyncio.AbstractEventLoop]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="cambio-model-"))
        self.bench = Bench(self.folder, max_desktops=CAPACITY, keep_sessions=True)
        self.bench.script = work(2, pause=0.002)
        self.ids: list[str] = []
        self.sent: dict[str, list[str]] = {}

    def run(self, work: Awaitable[Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(20):
                return await work

        return self.loop.run_until_complete(bounded())

    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()  # type: ignore[misc]  # here, for only what was begun is torn down
        self.run(self.bench.start())

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            shutil.rmtree(self.folder)
            return
        self.run(self.bench.stop())
        leaked = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
        assert not leaked, leaked
        self.loop.close()
        shutil.rmtree(self.folder)

    # Things people do

    async def create(self) -> None:
        session = await self.bench.registry.create()
        self.ids.append(session.id)
        self.sent[session.id] = []

    async def act(self, name: str, session_id: str) -> None:
        outcome = await ACTIONS[name](self.bench.registry.get(session_id))
        if name == "send":
            self.sent[session_id].append(outcome)
        elif name == "clear":
            self.sent[session_id].clear()

    async def end(self, session_id: str) -> None:
        await self.bench.registry.end(session_id)

    async def kill_desktop(self, session_id: str) -> None:
        desktop: Any = self.bench.registry.get(session_id).desktop
        desktop.die("The test killed it.")

    def one(self, name: str, session_id: str) -> Coroutine[Any, Any, None]:
        if name == "create":
            return self.create()
        if name == "end":
            return self.end(session_id)
        if name == "kill":
            return self.kill_desktop(session_id)
        return self.act(name, session_id)

    @rule()
    def new_session(self) -> None:
        self.run(self.all_of([self.create()]))

    @precondition(lambda self: self.ids)
    @rule(
        data=st.data(),
        names=st.lists(st.sampled_from([*ACTIONS, "send", "send", "create", "end", "kill"]), min_size=1, max_size=6),
    )
    def at_once(self, data: st.DataObject, names: list[str]) -> None:
        chosen = [(name, data.draw(st.sampled_from(self.ids[-4:]))) for name in names]
        self.run(self.all_of([self.one(name, session_id) for name, session_id in chosen]))

    async def all_of(self, work: list[Coroutine[Any, Any, None]]) -> None:
        for outcome in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, MAY_BE_REFUSED):
                raise outcome

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.005, 0.03]))
    def time_passes(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @rule()
    def restart(self) -> None:
        self.run(self.bench.stop())
        self.run(self.bench.start())

    @rule()
    def crash(self) -> None:
        self.run(self.bench.crash())
        self.run(self.bench.start())

    # What must hold

    @invariant()
    def consistent(self) -> None:
        if hasattr(self.bench, "registry"):
            self.run(self.check())

    async def check(self) -> None:
        registry = self.bench.registry
        for session in registry.sessions:
            if session.control is not None and not session.life.over:
                await session.give_back()
            if session.life.working:
                await session.resume()
        await until(lambda: not any(session.life.working or session.life.over for session in registry.sessions), 15)
        await until(lambda: all(one.journal._writer is None for one in registry.sessions))
        assert len(self.bench.provider.open) == len(registry.sessions) <= CAPACITY
        for session_id in self.ids:
            await self.check_one(session_id)

    async def check_one(self, session_id: str) -> None:
        store = self.bench.store
        row = await store.sessions.get(session_id)
        assert row is not None
        assert (row.status == "active") == (self.bench.registry.state_of(session_id) is not None)
        assert row.turn_message_id is None
        assert (row.ended_at is None) == (row.status == "active")
        page = await store.messages.page(session_id, MessageQuery(role="user", limit=10_000))
        assert [message.id for message in page.rows] == self.sent[session_id]
        history = await store.transcript.load(session_id)
        assert close_open_batch(history) == history or row.status != "active"
        for stream, last in ((False, row.last_sequence), (True, row.last_stream_sequence)):
            events = await all_events(self.bench, session_id, stream)
            assert [number for number, _ in events] == list(range(1, last + 1))
        ends = self.count(await all_events(self.bench, session_id, False))
        assert ends["sent"] == row.user_messages == ends["answered"]
        assert ends["ended"] == (row.status != "active")

    @staticmethod
    def count(events: list[tuple[int, str]]) -> dict[str, int]:
        messages = [json.loads(body) for _, body in events]
        particular = [message.get("metadata", {}).get("event") for message in messages]
        return {
            "sent": particular.count("user_message"),
            "answered": sum(message["type"] in ("agent_response", "error") for message in messages),
            "ended": particular.count("ended"),
        }


async def all_events(bench: Bench, session_id: str, stream: bool) -> list[tuple[int, str]]:
    return await bench.store.events.after(session_id, 0, stream=stream, limit=100_000)


Sessions.TestCase.settings = settings(
    max_examples=25, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
TestSessions = Sessions.TestCase
