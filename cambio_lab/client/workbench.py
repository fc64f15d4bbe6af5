"""Where a notebook or script begins: one server, its sessions."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import warnings
import weakref
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import urljoin

from websockets.exceptions import WebSocketException

from ..errors import SessionNotFound
from . import calls, portal
from .discovery import Address, find_server
from .display import Progress, Table
from .files import recorded
from .message import Message, open_socket
from .rest import Rest
from .schemas import SessionOptions, bound, spelled_out
from .session import Session

if TYPE_CHECKING:
    from ..reports import Runs

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
SESSION_COLUMNS = ("name", "status", "created_at", "model", "id")
CREATE_SECONDS = 300.0
"""A first session may have to wait for an image that is still being loaded."""
NEWS_SECONDS = 3.0
"""Seconds before the server is asked how far it is: a desktop from the pool is there sooner, and connections count."""


@calls
class Workbench:
    """A client of one cambio_lab server.

    Without arguments it finds the server that started this kernel, else ``CAMBIO_LAB_URL`` and ``CAMBIO_LAB_TOKEN``,
    JupyterHub's variables, or the only server running here; raises
    :class:`~cambio_lab.errors.ConfigurationError` that says what to set when that is not possible. Nothing is sent
    before the first call. The token is in no ``repr``, output or widget.
    """

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        self.address: Address = find_server(url, token)
        self.rest = Rest(self.address, notice=notice)
        # A client that is simply forgotten leaves no socket behind.
        weakref.finalize(self, lambda rest: portal.submit(rest.aclose()), self.rest)
        self._sessions: weakref.WeakValueDictionary[str, Session] = weakref.WeakValueDictionary()

    @spelled_out
    async def create_session(self, name: str | None = None, **options: Unpack[SessionOptions]) -> Session:
        """Create a session with a desktop of its own; return when the desktop is usable.

        What is not given follows the server's settings. A wrong value raises
        :class:`~cambio_lab.errors.InvalidRequest`, which names each field.

        Args:
            name: Title of the session; the server makes one up.
            model: Model name, such as ``"claude-sonnet-5-5"``; ``"demo"`` is scripted and needs no key.
            approval: Which calls wait for a person: ``"never"``, ``"risky"``, ``"always"``, or a list of tool names.
            tools: What the agent may use: names of tools, such as ``["browser", "bash"]``, and functions of this
                program; functions alone come in addition to the usual tools. See :meth:`Tools.add <.tools.Tools.add>`.
            system: Additional instructions for the agent.
            max_cost_usd: Cost limit (US$) of the session.
            max_steps: Tool calls of one turn.
            max_messages: User messages of the session.
            timeout: Seconds until the session ends.
            idle_timeout: Seconds without a message until the session ends.
            network: ``"open"``, ``"none"``, or ``{"allow": ["example.org", ...]}``.
            display: Size of the screen in pixels, such as ``"1280x800"``.
            desktop: Where the desktop runs.
            image: Container image of the desktop (Docker).
            effort: How much the model works on an answer, where it has such a setting.
            thinking: How much the model thinks, where it has such a setting.
            platform: Who runs the model: ``"anthropic"``, ``"aws"``, ``"bedrock"``, ``"google"``, ``"foundry"``.
            max_tokens: Tokens of one reply of the model.
            max_turn_seconds: Seconds of one turn.
            max_turn_tokens: Tokens of one turn.
            task_budget: Tokens that the model is told it has for a turn; it paces itself, nothing is cut off.
            approval_timeout: Seconds until a call that waits for approval is denied.
            ask_user: Whether the agent may ask questions and hand the desktop over; see :meth:`Session.on_question`.
            ask_timeout: Seconds after which it goes on without an answer.
            record_human: What is recorded of people's mouse and keyboard: without typed text, with it, or nothing.
            image_format: How screenshots are encoded for the model.
            observe: What is recorded of each step besides what the model is shown: ``"screenshot"``, ``"ax"``.
            secrets: Values that the agent may type without seeing them, by name.
            record: Run file of the session, relative to this program's folder: replayed if it exists, else recorded.
            record_mode: ``"once"`` as above, ``"none"``: replay only, ``"all"``: always record.
            fork: Step of a recorded run to continue from; :meth:`Run.fork <cambio_lab.Run.fork>` sets it.
        """
        config: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
        tools = config.pop("tools", ())
        if names := [tool for tool in tools if isinstance(tool, str)]:
            config["tools"] = names
        config = bound(config, loopback=self.address.loopback)
        created = await self._create(name, {**({} if name is None else {"name": name}), "config": config})
        session = self._adopt({**created, "name": created.get("name") or name})
        if notice := created.get("notice"):
            warnings.warn(str(notice), FutureWarning, stacklevel=2)
        for tool in tools:
            if not isinstance(tool, str):
                session.tools.add(tool)
        return session

    @spelled_out
    async def demonstrate(self, task: str, **options: Unpack[SessionOptions]) -> Session:
        """Open a desktop on which a person shows how ``task`` is done; ``options`` are as for :meth:`create_session`.

        Mouse, keyboard and typed text are recorded, which the panel says. After ``await session.end()``,
        ``await session.load_run()`` is the demonstration: a run like any other.
        """
        given: SessionOptions = {"model": "demo", "record_human": "full", **options}
        return await self.create_session(task, **given)

    async def _create(self, name: str | None, body: dict[str, Any]) -> dict[str, Any]:
        with Progress("Starting a desktop") as bar:
            request = asyncio.ensure_future(
                portal.call(self.rest.json("POST", "/sessions", json=body, timeout=CREATE_SECONDS))
            )
            news = portal.submit(tell(self.address, name, bar))
            try:
                while not request.done():
                    await asyncio.wait({request}, timeout=0.25)
                    bar.to(bar.value)
            except BaseException:
                request.cancel()
                raise
            finally:
                news.cancel()
            return dict(request.result())

    async def session(self, id_or_name: str) -> Session:
        """The session with this id, or the newest active one with this name. Raises ``SessionNotFound``."""
        found = await (self._by_id if _ID.fullmatch(id_or_name) else self._by_name)(id_or_name)
        if found is None:
            raise SessionNotFound(
                f"There is no session {id_or_name!r}.", hint="await lab.sessions() lists those there are."
            )
        return self._adopt(found)

    async def sessions(self, *, status: str | None = None, limit: int = 50, offset: int = 0, **filters: Any) -> Table:
        """Sessions, newest first; a cell shows them as a table."""
        params = {"limit": limit, "offset": offset, **({} if status is None else {"status": status}), **filters}
        page = await portal.call(self.rest.json("GET", "/sessions", params=params))
        return Table(page["sessions"], SESSION_COLUMNS, total=page.get("total"))

    async def runs(self, text: str = "", *, limit: int = 1000, **filters: Any) -> Runs:
        """The recorded runs of the server, newest first, as a table to filter, compare, export and delete.

        ``text`` and ``filters`` are those of :meth:`Runs.filter <cambio_lab.reports.Runs.filter>`.
        """
        return (await portal.call(recorded(self, limit))).filter(text, **filters)

    async def health(self) -> dict[str, Any]:
        """``GET /health``, also when the server is not well (``status`` says so)."""
        response = await portal.call(self.rest.request("GET", "/health", accept=(503,)))
        return dict(response.json())

    async def models(self) -> Any:
        """The models that the server knows."""
        return await portal.call(self.rest.json("GET", "/cambio/models"))

    async def model_names(self) -> list[str]:
        """Names for a menu; ``demo`` needs no key."""
        return list(dict.fromkeys(["demo", *(row["model"] for row in (await self.models())["models"])]))

    def absolute(self, path: str) -> str:
        """A URL path that the server gave as a whole URL, without any token."""
        return urljoin(self.address.url + "/", path)

    async def aclose(self) -> None:
        """Close the connections of this client; sessions go on."""
        for session in list(self._sessions.values()):
            await session.detach()
        await portal.call(self.rest.aclose())

    async def __aenter__(self) -> Workbench:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"Workbench({self.address.url!r}, found by {self.address.found_by})"

    def _adopt(self, description: dict[str, Any]) -> Session:
        """One object for a session in a client: one connection, one record."""
        session = self._sessions.get(str(description["id"]))
        if session is None:
            session = Session(self, description)
            self._sessions[session.id] = session
        else:
            session.description.update(description)
        return session

    async def _by_id(self, session_id: str) -> dict[str, Any] | None:
        try:
            return dict(await portal.call(self.rest.json("GET", f"/sessions/{session_id}")))
        except SessionNotFound:
            return None

    async def _by_name(self, name: str) -> dict[str, Any] | None:
        """The newest active session with this name, else the newest ended one."""
        for status in ("active", None):
            offset = 0
            while page := await self.sessions(status=status, limit=200, offset=offset):
                for row in page:
                    if row.get("name") == name:
                        return await self._by_id(str(row["id"]))
                offset += len(page)
                if offset >= page.total:
                    break
        return None


def notice(text: str) -> None:
    """Something a person should know while waiting."""
    print(text, file=sys.stderr)


async def tell(address: Address, name: str | None, bar: Progress) -> None:
    """Say on ``bar`` how far the server is, until cancelled; without news it only shows the time."""
    await asyncio.sleep(NEWS_SECONDS)
    try:
        async with open_socket(address, f"{address.ws_url}/ws") as socket:
            async for frame in socket:
                _take_news(Message.parse(json.loads(frame)), name, bar)
    except (OSError, WebSocketException):
        return  # the request itself tells what is wrong


def _take_news(message: Message, name: str | None, bar: Progress) -> None:
    if message.event != "progress" or (name is not None and message.metadata.get("name") != name):
        return
    fraction = message.metadata.get("fraction")
    bar.label = f"Starting a desktop: {message.content}"
    bar.total = 1.0 if isinstance(fraction, int | float) else None
    bar.to(float(fraction or 0.0))
