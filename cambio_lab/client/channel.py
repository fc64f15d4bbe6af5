"""The agent socket of one session: kept open, always read, reconnected where it broke off.

Lives on the portal's loop. One connection serves every turn, because the server counts connections (five a minute by
default). After a loss it asks for ``?after=`` the last sequence it saw, so nothing is missed or seen twice.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from ..errors import CambioError, ServerError, SessionEnded
from .discovery import Address
from .message import Message, open_socket
from .rest import from_event, refused_upgrade, retry_after, unreachable

T = TypeVar("T")
QUEUE_MESSAGES = 4096
"""Messages that wait for one reader; beyond it the socket is not read, and the server decides what it still gets."""
BACKOFF_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
GIVE_UP_SECONDS = 60.0
FIRST_SECONDS = 2.0
"""Patience with a server that has never answered."""
ANSWER_SECONDS = 60.0
OLD_SERVER = "Does the server have the same version of cambio_lab? Restart it after an update."
LARGEST_MESSAGE = 64 * 1024**2


class Listener:
    """One reader's place in the stream. Iterate with :meth:`get`; close when done."""

    def __init__(self, channel: Channel) -> None:
        self.queue: asyncio.Queue[Message | CambioError] = asyncio.Queue(QUEUE_MESSAGES)
        self._channel = channel

    async def get(self) -> list[Message]:
        """The next message and all that wait behind it. Raises the error that ended the connection for good."""
        first = await self.queue.get()
        if isinstance(first, CambioError):
            raise first
        batch = [first]
        while not self.queue.empty():
            item = self.queue.get_nowait()
            if isinstance(item, CambioError):
                self.queue.put_nowait(item)  # for the next call: what came before it is still true
                break
            batch.append(item)
        return batch

    def close(self) -> None:
        self._channel.listeners.discard(self)
        while not self.queue.empty():  # a reader task blocked on this queue goes on
            self.queue.get_nowait()


class Channel:
    """``connect()``, then ``send()`` and listeners. ``handle`` gets messages that ask this client for something."""

    def __init__(
        self,
        address: Address,
        session_id: str,
        *,
        after: int | None = None,
        stream: bool = True,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        self.address = address
        self.session_id = session_id
        self.listeners: set[Listener] = set()
        self.handle: Callable[[Message], bool] = lambda message: False
        self.on_connect: Callable[[], list[dict[str, Any]]] = list
        self.snapshot: Message | None = None
        """The last ``status`` message."""
        self.pending: Mapping[str, Any] | None = None
        """The call that waits for approval."""
        self.question: Mapping[str, Any] | None = None
        """What the agent waits for a person to answer."""
        self.asked: Callable[[Mapping[str, Any] | None], None] = lambda question: None
        self.connections = 0
        self.admission = asyncio.Lock()
        """Held while a message waits for acceptance: a refusal carries no name, so only one may be meant."""
        self._stream = stream
        self._notice = notice
        self._socket: ClientConnection | None = None
        self._sequence = after
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._failure: CambioError | None = None
        self._attempts = 0
        self._lost_since: float | None = None

    async def connect(self) -> None:
        """Return once the socket is open and the state is known; raise what keeps it from opening."""
        if self._task is None or self._task.done():
            self._failure = None
            self._attempts, self._lost_since = 0, None
            self._ready.clear()
            self._task = asyncio.create_task(self._keep_open(), name=f"channel {self.session_id}")
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({ready, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if not self._ready.is_set():
            raise self._failure or unreachable(self.address, ConnectionError("the connection was closed"))

    def listen(self) -> Listener:
        listener = Listener(self)
        self.listeners.add(listener)
        return listener

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send now, or as soon as the connection is back. Raises when it does not come back."""
        text = json.dumps(message, ensure_ascii=False, allow_nan=False)
        while True:
            await self.connect()
            socket = self._socket
            if socket is None:  # lost between the two lines
                continue
            with suppress(ConnectionClosed):
                return await socket.send(text)
            self._ready.clear()
            await asyncio.sleep(BACKOFF_SECONDS[0])

    async def ask(self, message: Mapping[str, Any], answers: Callable[[Message], bool]) -> Message:
        """Send, and return the first message that ``answers`` recognises. Raises a refusal."""
        listener = self.listen()
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self.admission:
                await self.send(message)
                while True:
                    for found in await listener.get():
                        if answers(found):
                            return found
                        if found.refusal:
                            raise from_event(found.raw)
        except TimeoutError:
            raise ServerError(f"The server did not answer {message.get('type')!r}.", hint=OLD_SERVER) from None
        finally:
            listener.close()

    async def until(self, look: Callable[[Message], T | None], timeout: float) -> T:
        """What ``look`` finds at the last ``status`` message or at one that follows. Raises ``TimeoutError``."""
        listener = self.listen()
        try:
            async with asyncio.timeout(timeout):
                await self.connect()
                batch = [] if self.snapshot is None else [self.snapshot]
                while True:
                    for message in batch:
                        if message.type == "status" and (found := look(message)) is not None:
                            return found
                    batch = await listener.get()
        finally:
            listener.close()

    async def close(self) -> None:
        """Leave; the session and a running turn go on without us."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._ready.clear()

    async def _keep_open(self) -> None:
        while self._failure is None:
            try:
                await self._read_one_connection()
                delay = BACKOFF_SECONDS[0]
            except InvalidStatus as error:
                delay = await self._refused(error)
            except (OSError, InvalidHandshake, ConnectionClosed) as error:  # TimeoutError is an OSError
                delay = await self._lost(error)
            finally:
                self._socket = None
                self._ready.clear()
            if self._failure is None:
                await asyncio.sleep(delay)

    async def _refused(self, error: InvalidStatus) -> float:
        """How long the server told us to wait; any other refusal is final."""
        answer = error.response
        delay = retry_after(answer.status_code, answer.headers)
        if delay is None:
            await self._give_up(refused_upgrade(answer.status_code, answer.body or b"", self.address))
            return 0.0
        await self._tell(f"The server asks to wait {delay:.0f} s before connecting (rate limit).", delay)
        return delay

    async def _lost(self, error: Exception) -> float:
        """Return how long to wait before the next try; fail for good when the server stays away."""
        now = asyncio.get_running_loop().time()
        self._lost_since = self._lost_since or now
        patience = GIVE_UP_SECONDS if self.connections else FIRST_SECONDS
        hopeless = isinstance(error, ssl.SSLError)  # the same certificate is refused again
        if hopeless or now - self._lost_since > patience:
            await self._give_up(unreachable(self.address, error))
            return 0.0
        delay = BACKOFF_SECONDS[min(self._attempts, len(BACKOFF_SECONDS) - 1)]
        self._attempts += 1
        if self._attempts == 2:  # the first try again is silent: it usually succeeds
            await self._tell("The connection was lost; reconnecting.", delay)
        return delay

    async def _read_one_connection(self) -> None:
        query = {"stream": "true"} if self._stream else {}
        if self._sequence is not None:
            query["after"] = str(self._sequence)
        url = f"{self.address.ws_url}/ws/{self.session_id}?{urlencode(query)}"
        async with open_socket(self.address, url, max_size=LARGEST_MESSAGE, open_timeout=10) as socket:
            self._socket = socket
            self.connections += 1
            async for frame in socket:
                message = Message.parse(json.loads(frame))
                await self._take(message)
                if not self._ready.is_set() and message.type == "status":
                    for request in self.on_connect():
                        await socket.send(json.dumps(request, ensure_ascii=False))
                    self._ready.set()
                    if self.connections > 1:
                        await self._tell("Connected again.", 0.0, again=True)
                    self._attempts, self._lost_since = 0, None
            if self.snapshot is not None and self.snapshot.status == "ended":
                await self._give_up(SessionEnded("The session is over.", hint="Create a new one."))

    async def _take(self, message: Message) -> None:
        if message.sequence is not None:
            self._sequence = message.sequence
        if message.type == "status":
            self.snapshot = message
        self._note_pending(message)
        if message.type == "heartbeat" or self.handle(message):
            return
        await self._give(message)

    async def _give(self, item: Message | CambioError) -> None:
        for listener in tuple(self.listeners):
            await listener.queue.put(item)

    def _note_pending(self, message: Message) -> None:
        question = self.question
        if message.event == "snapshot":
            self.pending, found = message.metadata.get("approval"), message.metadata.get("question")
            question = found if isinstance(found, Mapping) else None
        elif message.event == "approval":
            self.pending = message.metadata
        elif message.event == "question":
            question = message.metadata
        if message.event == "approval_decided" or message.ends_turn:
            self.pending = None
        if message.event == "question_answered" or message.ends_turn:
            question = None
        if question != self.question:
            self.question = question
            self.asked(question)

    async def _tell(self, text: str, delay: float, **particulars: Any) -> None:
        message = Message("connection", text, {"delay_seconds": delay, **particulars})
        if self._notice is not None and not self.listeners:
            self._notice(text)
        await self._give(message)

    async def _give_up(self, error: CambioError) -> None:
        self._failure = error
        self._ready.clear()
        await self._give(error)
