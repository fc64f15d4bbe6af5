"""The agent of a session: recorded as it works, or repeating a recorded run. Either way the same loop.

It types secrets without ever seeing them. ``config.secrets`` maps names to values. The model, the history, the records
and the logs know ``{{NAME}}``; the value is put in at the last moment, where a key is pressed, a command starts or a
file is written, and taken out of what comes back as text. Values live in this process's memory alone: after a restart a
session knows their names only, and can neither put values in nor recognise them.

Not covered: what the screen shows (a secret typed into a field that shows it is in the next screenshot), and what a
program made of a value; see :mod:`cambio_lab.recording.placeholders`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cambio_lab.agent import Agent
from cambio_lab.agent.client import ModelClient, load_sdk
from cambio_lab.agent.extras import ExtraResult, ExtraTools
from cambio_lab.agent.gate import Gate
from cambio_lab.agent.options import AgentOptions, TurnOptions
from cambio_lab.agent.transcript import close_open_batch
from cambio_lab.agent.turn import Emit
from cambio_lab.desktop import DelegatingDesktop
from cambio_lab.desktop.base import Desktop, Screenshot, Settled
from cambio_lab.desktop.files import FileContent, Listing
from cambio_lab.desktop.machine import CommandResult
from cambio_lab.errors import ActionError, CambioError, DesktopError
from cambio_lab.events import Usage
from cambio_lab.recording.placeholders import NAME, Mask
from cambio_lab.recording.recorder import HumanCall, Recorder
from cambio_lab.replay.playback import Playback
from cambio_lab.replay.recorded import ReplayDesktop
from cambio_lab.settings import Settings
from cambio_lab.store import Store

if TYPE_CHECKING:
    from .config import SessionConfig

_PLACEHOLDER = re.compile(rf"\{{\{{({NAME})\}}\}}".encode())
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
            await load_sdk()

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


def introduction(names: list[str]) -> str:
    """What the model is told about them."""
    listed = ", ".join(f"{{{{{name}}}}}" for name in names)
    return (
        f"The user gave you secrets that you cannot see: {listed}. To type one, write its placeholder, braces "
        "included, in a type action or a shell command; the value is put in for you. Do not try to find it out."
    )


FILLED = {"type": ("text",), "form_input": ("value",)}
"""Members of the browser toolset, and their arguments, that take a secret's value for its placeholder."""


def _deep(value: Any, change: Callable[[str], str]) -> Any:
    """Apply ``change`` to every text in JSON."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _deep(item, change) for key, item in value.items()}
    return [_deep(item, change) for item in value] if isinstance(value, list) else value


class SecretDesktop(DelegatingDesktop):
    """A desktop as the agent gets it: placeholders go in, values do not come out. The rest is the desktop's own."""

    def __init__(self, inner: Desktop, secrets: Mapping[str, str] | list[str]) -> None:
        super().__init__(inner)
        self._names = frozenset(secrets)
        self._values = dict(secrets) if isinstance(secrets, Mapping) else {}
        self._mask = Mask(secrets)

    async def type_text(self, text: str) -> Settled:
        with self._masked_errors():
            return await self.inner.type_text(self._fill(text))

    async def get_clipboard(self) -> str:
        with self._masked_errors():
            return self._mask.text(await self.inner.get_clipboard())

    async def set_clipboard(self, text: str) -> None:
        with self._masked_errors():
            await self.inner.set_clipboard(self._fill(text))

    async def run_command(self, command: str, timeout: float = 120.0) -> CommandResult:
        with self._masked_errors():
            result = await self.inner.run_command(self._fill(command), timeout)
        cut = result.truncated or result.timed_out
        out, err = (self._mask.text(text, cut=cut) for text in (result.stdout, result.stderr))
        return replace(result, stdout=out, stderr=err)

    async def execute(
        self, argv: Sequence[str], *, stdin: bytes | None = None, timeout: float = 30.0, limit: int = 10_000_000
    ) -> tuple[int, bytes, bytes]:
        filled, given = [self._fill(word) for word in argv], None if stdin is None else self._fill_bytes(stdin)
        with self._masked_errors():
            code, *outputs = await self.inner.execute(filled, stdin=given, timeout=timeout, limit=limit)
        out, err = (self._mask.data(output, cut=len(output) >= limit) for output in outputs)
        return code, out, err

    def read_file(self, path: str) -> FileContent:
        return FileContent(lambda content: self._read(path))

    async def _read(self, path: str) -> AsyncGenerator[bytes, None]:
        with self._masked_errors():
            async for piece in self._mask.stream().over(self.inner.read_file(self._fill(path))):
                yield piece

    async def write_file(self, path: str, chunks: AsyncIterator[bytes] | bytes) -> int:
        data = chunks if isinstance(chunks, bytes) else b"".join([chunk async for chunk in chunks])
        with self._masked_errors():
            return await self.inner.write_file(self._fill(path), self._fill_bytes(data))

    async def list_files(self, path: str = "") -> Listing:
        with self._masked_errors():
            found = await self.inner.list_files(self._fill(path))
        masked = (replace(entry, path=self._mask.text(entry.path)) for entry in found)
        return await asyncio.to_thread(Listing, masked, found.truncated)

    async def browse(self, member: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        given = dict(arguments)
        for name in FILLED.get(member, ()):
            if isinstance(given.get(name), str):
                given[name] = self._fill(given[name])
        with self._masked_errors():
            answer = await self.inner.browse(member, given)
        masked: dict[str, Any] = _deep(answer, self._mask.text)
        return masked

    @contextmanager
    def _masked_errors(self) -> Iterator[None]:
        """An error that quotes a path or a text that we filled in."""
        try:
            yield
        except DesktopError as error:
            message, hint = self._mask.text(error.message), self._mask.text(error.hint)
            if (message, hint) == (error.message, error.hint):
                raise
            raise type(error)(message, hint=hint) from None

    def _fill(self, text: str) -> str:
        return self._fill_bytes(text.encode(errors="surrogatepass")).decode(errors="surrogatepass")

    def _fill_bytes(self, data: bytes) -> bytes:
        return _PLACEHOLDER.sub(self._value, data)

    def _value(self, found: re.Match[bytes]) -> bytes:
        name = found[1].decode()
        if name not in self._names:
            return found[0]  # not one of ours: braces that belong to the text
        if name not in self._values:
            raise ActionError(f"The value of {{{{{name}}}}} was lost when the server was restarted; ask the user.")
        return self._values[name].encode()


class SecretTools:
    """Functions that a client offers, as the agent gets them: neither what describes them nor a result has a value."""

    def __init__(self, tools: ExtraTools, mask: Mask) -> None:
        self._tools = tools
        self._mask = mask

    @property
    def timeout(self) -> float:
        return self._tools.timeout

    def schemas(self) -> list[dict[str, Any]]:
        return [{**self._mask.json(entry), "name": entry["name"]} for entry in self._tools.schemas()]

    async def call(self, name: str, arguments: dict[str, Any], *, tool_use_id: str) -> ExtraResult:
        result = await self._tools.call(name, arguments, tool_use_id=tool_use_id)
        return replace(result, text=self._mask.text(result.text))
