"""Where runs happen: store, desktops and sessions composed in a plain process, without Jupyter or a web server.

A worker of a cluster and a notebook's kernel use the same. The agent is the real one; it is built here so that its
model client keeps the shared pace and its events are seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import platform
import stat
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._version import __version__
from ..agent.client import KEY_VARIABLES
from ..agent.models import DEMO
from ..agent.options import AgentOptions
from ..desktop import make_provider, probe_image
from ..desktop.provider import DesktopProvider
from ..errors import ConfigurationError, MissingKey, SessionError
from ..events import Event, ModelReplied, ToolFinished, ToolStarted, TurnFailed, TurnFinished, Usage
from ..interop.otel import Traced, traced
from ..recording import Contents, collect
from ..recording.run_file import save
from ..sessions import SessionView
from ..sessions.agent import AgentRequest, RecordedAgent, build_agent
from ..sessions.registry import Registry
from ..sessions.session import Session
from ..settings import Settings
from ..store import SessionQuery, Store
from .engine import AttemptProgress, Job, Outcome
from .limits import Pace, PacedClient
from .live import PolicyTransport

logger = logging.getLogger(__name__)
KEY_FILE = "ANTHROPIC_API_KEY_FILE"
"""Names a file that holds the API key, where a process's environment is not the place for it."""
MakeProvider = Callable[..., Awaitable[DesktopProvider]]
"""``await make(settings, server_id=..., kind=...)``: the package's :func:`cambio_lab.desktop.make_provider` is one."""


class Meter:
    """What one session's agent does: steps, tokens, seconds, and how its turn ended."""

    def __init__(self, policy: PolicyTransport | None) -> None:
        self.client: PacedClient | None = None
        self.policy = policy
        """Where a policy takes the model's place."""
        self.steps = self.human_steps = 0
        self.shown = False
        """What the policy does was shown by a person."""
        self.most_steps = 0
        """Tool calls the attempt may make in all its turns; 0: no limit of ours."""
        self.usage = Usage()
        self.model_seconds = 0.0
        self.desktop_seconds = 0.0
        self.end: TurnFinished | TurnFailed | None = None
        """How the last turn ended; ``None`` while one runs."""
        self.out_of_steps = asyncio.Event()

    def begin(self) -> None:
        self.end = None

    def see(self, event: Event) -> None:
        if isinstance(event, ModelReplied):
            self.usage += event.usage
            self.model_seconds += event.model_ms / 1000
        elif isinstance(event, ToolStarted):
            self.steps += 1
            if self.most_steps and self.steps > self.most_steps:
                self.out_of_steps.set()
        elif isinstance(event, ToolFinished):
            self.desktop_seconds += event.timing.total / 1000
            self.human_steps += event.actor == "human" or (self.shown and event.tool != "screenshot")
        elif isinstance(event, TurnFinished | TurnFailed):
            self.end = event


class Workplace:
    """One per process. ``owner`` labels its desktops: only those are ever removed by it."""

    def __init__(
        self, store: Store, settings: Settings, *, owner: str, runs: Path, make: MakeProvider | None = None
    ) -> None:
        # The pool shortens a person's wait. No person waits here, and a desktop kept ready does no work.
        self.settings = replace(settings, pool_size=0, keep_sessions=False, session_timeout=0.0, idle_timeout=0.0)
        self.store = store
        self.runs = runs
        self.pace = Pace()
        self.versions: Mapping[str, str] = {"cambio_lab": __version__, "host": platform.node()}
        self._owner = owner
        self._make: MakeProvider = make or make_provider
        self._providers: dict[str, DesktopProvider] = {}
        self._registry: Registry | None = None
        self._meters: dict[str, Meter] = {}
        self._traces: Traced | None = None
        self._facts: dict[str, dict[str, str]] = {}
        """What the traces of a session say of its cell."""
        self._key: str | None = None

    async def open(self, models: Sequence[str] = (), *, need_image: bool = False) -> None:
        """Make the provider, end what an earlier process of this owner left, remove its desktops.

        ``need_image``: the container's image must be here already, else it is built with the first session.
        Raises :class:`~cambio_lab.errors.ConfigurationError` when there is no desktop to be had and
        :class:`~cambio_lab.errors.MissingKey` when one of ``models`` needs a key and there is none.
        """
        self._key = await asyncio.to_thread(read_key_file)
        require_key(self._key, models, self.settings.platform)
        kind = self.settings.desktop
        provider = await self._make(self.settings, server_id=self._owner, kind=kind)
        self._providers = {kind: provider, provider.name: provider}
        health = await provider.health()
        if health.up and need_image and provider.name == "docker":
            health = await probe_image(self.settings)
        if not health.up:
            raise ConfigurationError(f"No desktop can be had: {health.summary}.", hint=health.fix)
        for row in await self.store.sessions.live():
            await self.store.sessions.update(
                row.id, status="error", end_reason="its process died", ended_at=time.time(), turn_message_id=None
            )
        self._traces = await asyncio.to_thread(traced, self._hear, lambda session_id: self._facts.get(session_id, {}))
        self._registry = Registry(
            settings=self.settings,
            store=self.store,
            provider_for=self._provider_for,
            encode=self._traces or self._hear,
            make_agent=self._make_agent,
        )
        await self._registry.start()

    async def close(self) -> None:
        """End every session and remove every desktop; idempotent."""
        registry, self._registry = self._registry, None
        if registry is not None:
            await registry.stop()
            # Screenshots that are in run files now; those of interrupted runs stay with their rows.
            await self.store.screenshots.sweep(await self.store.screenshot_uses())
        for provider in {id(one): one for one in self._providers.values()}.values():
            await provider.stop()
        self._providers.clear()
        if self._traces is not None:
            await asyncio.to_thread(self._traces.shutdown)
            self._traces = None

    async def create(self, job: Job) -> tuple[Session, Meter]:
        """A session for an attempt, and the meter on its agent. Raises what ``Registry.create`` raises."""
        session, cell = await self._running.create(job.attempt, dict(job.config)), job.cell
        named = {"cell": cell.cell_id, "task": cell.task.name, "setting": cell.setting, "attempt": job.attempt}
        self._facts[session.id] = {f"cambio.experiment.{name}": value for name, value in named.items()}
        return session, self._meters[session.id]

    async def close_session(self, session_id: str, job: Job) -> dict[str, Any]:
        """End a session, keep its run as a bundle, forget its rows. What the outcome says of the bundle."""
        self._meters.pop(session_id, None)
        self._facts.pop(session_id, None)
        try:
            await self._running.end(session_id, "request")
        except SessionError:
            logger.debug("session %s was over already", session_id)
        self.runs.mkdir(parents=True, exist_ok=True)
        contents = await collect(self.store, session_id)
        contents.manifest["session"]["name"] = job.cell.cell_id  # the session has the attempt's, by which it is found
        record = await asyncio.to_thread(_save, contents, self.runs / f"{job.attempt}.cambio")
        await self.store.sessions.remove(session_id)
        return record

    async def lost(self, attempt: AttemptProgress) -> Outcome | None:
        """An attempt whose process died, as far as its session is on disk; ``None`` when it is not."""
        for row in (await self.store.sessions.page(SessionQuery(limit=200))).rows:
            if row.name == attempt.attempt:
                return Outcome(
                    attempt.attempt,
                    attempt.cell_id,
                    failure="infrastructure",
                    error="the process that ran it died",
                    steps=row.steps,
                    usage=Usage(**row.usage),
                    started_at=row.created_at,
                    run_id=row.id,
                )
        return None

    @property
    def _running(self) -> Registry:
        if self._registry is None:
            raise ConfigurationError("The workplace is not open.")
        return self._registry

    def _provider_for(self, kind: str) -> DesktopProvider:
        if kind not in self._providers:
            raise ConfigurationError(
                f"This experiment runs on {self.settings.desktop} desktops, not on {kind} ones.",
                hint="Say lab={'desktop': ...} for the whole experiment.",
            )
        return self._providers[kind]

    async def _make_agent(self, request: AgentRequest) -> RecordedAgent:
        config = request.config.given()
        # Without a policy it is the demo model.
        policy = PolicyTransport() if AgentOptions.from_settings(self.settings, config).model == DEMO else None
        meter = self._meters[request.session_id] = Meter(policy)

        def make_client(**given: Any) -> PacedClient:
            if policy is not None:
                given.setdefault("transport", policy)
            meter.client = PacedClient.made(self.pace, api_key=self._key, **given)
            return meter.client

        return await build_agent(
            self.settings,
            self.store,
            request,
            facts={"experiment": config},
            make_client=make_client,
            record_clients=False,
        )

    def _hear(self, event: Event, view: SessionView) -> None:
        """Tell the session's meter of each event; no client listens on a socket."""
        if (meter := self._meters.get(view.session_id)) is not None:
            meter.see(event)


def read_key_file() -> str | None:
    """The key in the file that :data:`KEY_FILE` names; ``None`` without the variable.

    Raises :class:`ConfigurationError` when the file cannot be read, never with its content.
    """
    if not (path := os.environ.get(KEY_FILE)):
        return None
    try:
        key = Path(path).read_text().strip()
    except OSError as error:
        raise ConfigurationError(f"{KEY_FILE} names a file that cannot be read: {error.strerror}.") from None
    if not key:
        raise ConfigurationError(f"{KEY_FILE} names an empty file.", hint="Write the key into it.")
    return key


def require_key(key: str | None, models: Sequence[str], platform: str) -> None:
    """:class:`MissingKey` when there is no key for a model that needs one; other platforms have their own."""
    if platform != "anthropic" or set(models) <= {DEMO} or key:
        return
    if not any(os.environ.get(name) for name in KEY_VARIABLES):
        raise MissingKey(
            "There is no key for the Claude API here.",
            hint=f"Set ANTHROPIC_API_KEY in this process's environment, or {KEY_FILE} to a file that holds it.",
        )


def _save(contents: Contents, path: Path) -> dict[str, Any]:
    """Write the bundle; what the outcome says of it."""
    save(contents, path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bundle": path.name, "bundle_sha256": digest, "bundle_bytes": file.tell()}


def private_directory(name: str) -> Path:
    """Return ``name`` below the directory for temporary files, created if need be, owned by this user alone.

    The name is predictable so that workers find each other's results; on a shared machine another user can therefore
    create it first and plant results. Raises :class:`ConfigurationError` for a link, a file, or a directory that
    another user owns or can write to.
    """
    path = Path(tempfile.gettempdir()) / name
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigurationError(
            f"{path} is not a private directory of this user, so results in it cannot be trusted.",
            hint="Remove it, or set TMPDIR to a directory that only you can write to.",
        )
    return path
