"""How a session comes to be: its desktop, its place in the store, its parts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cambio_lab.agent.gate import Gate, parse_policy
from cambio_lab.agent.options import AgentOptions
from cambio_lab.desktop.base import Desktop, DesktopProvider
from cambio_lab.errors import DesktopUnavailable
from cambio_lab.events import Usage
from cambio_lab.replay.binding import fork_point, to_replay
from cambio_lab.replay.replay_desktop import ReplayDesktop, ReplayProvider
from cambio_lab.store import SessionRow, Store

from .agents import RecordsClients, agent_request
from .config import SessionConfig
from .session import Session, Surroundings
from .starting import Starting

if TYPE_CHECKING:
    from .registry import Registry

logger = logging.getLogger(__name__)


async def create(registry: Registry, starting: Starting, config: SessionConfig, options: AgentOptions) -> Session:
    """A session that is stored and whose desktop is usable; when that cannot be, nothing is left behind."""
    store, began = registry.store, registry.clock.monotonic()
    provider = await _provider(registry, config)
    wishes = replace(config.desktop_options(registry.settings), progress=starting.note)
    desktop = await provider.acquire(starting.id, wishes)
    session: Session | None = None
    try:
        row = SessionRow(
            id=starting.id,
            name=starting.name,
            status="active",
            created_at=registry.clock.time(),
            config=config.given(),
            model=options.model,
            desktop_kind=provider.name,
            desktop_id=desktop.desktop_id,
            container_id=desktop.container_id,
            vnc_port=desktop.vnc_port,
        )
        history = await _fork(store, config, desktop)
        session = await assemble(registry.around, row, config, desktop, began=began, history=history)
        _check_open(registry)
        messages = [await store.transcript.appending(row.id, message) for message in history]
        await store.write(store.sessions.inserting(row), *messages)
        _check_open(registry)
    except BaseException:
        await asyncio.shield(asyncio.ensure_future(_undo(registry, starting.id, desktop, session)))
        raise
    return session


def _check_open(registry: Registry) -> None:
    if registry.stopping:
        raise DesktopUnavailable("The server is stopping.")


async def _undo(registry: Registry, session_id: str, desktop: Desktop, session: Session | None) -> None:
    """Give back what was made. A row that was written, or that is about to be after a cancellation, is ended."""
    if session is not None:
        reason = "shutdown" if registry.stopping else "It could not be made"
        sessions, now = registry.store.sessions, registry.clock.time()
        await _quietly(session_id, sessions.update(session_id, status="inactive", ended_at=now, end_reason=reason))
        await _quietly(session_id, session.agent.aclose())
    await desktop.close()


async def _quietly(session_id: str, undoing: Awaitable[object]) -> None:
    try:
        await undoing
    except Exception:
        logger.exception("session %s could not be made, and not quite be undone", session_id)


async def assemble(
    around: Surroundings,
    row: SessionRow,
    config: SessionConfig,
    desktop: Desktop,
    *,
    began: float,
    history: list[dict[str, Any]] | None = None,
) -> Session:
    """The parts of a session, put together; nothing runs yet."""
    settings, timeout = around.settings, config.approval_timeout
    gate = Gate(
        parse_policy(settings.approval if config.approval is None else config.approval),
        settings.approval_timeout if timeout is None else timeout,
    )
    request = agent_request(row.id, config, desktop, gate, history or [], Usage(**row.usage), row.steps)
    agent = await around.build_agent(request)
    if isinstance(agent, RecordsClients):
        desktop = agent.client_desktop(desktop)
    return Session(row, config=config, desktop=desktop, agent=agent, gate=gate, around=around, began=began)


async def _provider(registry: Registry, config: SessionConfig) -> DesktopProvider:
    """Where the session's desktop comes from: a recording that it replays, or the engine that was asked for."""
    recording = await to_replay(config.record, config.record_mode or registry.settings.record or "once")
    if recording is not None:
        return ReplayProvider(ReplayDesktop(recording))
    return registry.provider_for(config.desktop or registry.settings.desktop)


async def _fork(store: Store, config: SessionConfig, desktop: Desktop) -> list[dict[str, Any]]:
    """Bring the desktop to the point of a run that this session goes on from; the conversation up to there."""
    if config.fork is None:
        return []
    point = await fork_point(store, config.fork["run"], config.fork["step"])
    if not hasattr(desktop, "recording"):
        await point.bring(desktop)
    return point.history
