"""Where a notebook or script begins: one server, its sessions."""

from __future__ import annotations

import asyncio
import sys
import uuid
import weakref
from types import TracebackType
from typing import Any
from urllib.parse import urljoin

from ..errors import SessionNotFound
from ..jupyter.progress import Progress
from .discovery import Address, find_server
from .portal import calls, portal
from .recordings import bound
from .rest import Rest
from .session import Session
from .starting import tell
from .tables import Table

SESSION_COLUMNS = ("name", "status", "created_at", "model", "id")
CREATE_SECONDS = 300.0
"""A first session may have to wait for an image that is still being loaded."""


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
        weakref.finalize(self, _close, self.rest)
        self._sessions: weakref.WeakValueDictionary[str, Session] = weakref.WeakValueDictionary()

    async def create_session(self, name: str | None = None, **config: Any) -> Session:
        """A new session with a desktop of its own; returns when the desktop is usable.

        ``config`` is the documented configuration: ``timeout``, ``max_messages``, ``model``, ``max_steps``,
        ``max_cost_usd``, ``approval``, ``network``, ``record`` and so on. Unknown names are refused by the server.
        """
        config = bound(config, loopback=self.address.loopback)
        body = {**({} if name is None else {"name": name}), "config": config}
        with Progress("Starting a desktop", delay=4.0) as bar:
            request = asyncio.ensure_future(
                portal.call(self.rest.json("POST", "/sessions", body=body, timeout=CREATE_SECONDS))
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
                bar.total, bar.label = None, "Starting a desktop"
            created = request.result()
        return self._adopt({**created, "name": created.get("name") or name})

    async def session(self, id_or_name: str) -> Session:
        """The session with this id, or the newest active one with this name. Raises ``SessionNotFound``."""
        found = await self._by_id(id_or_name) if _is_id(id_or_name) else await self._by_name(id_or_name)
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

    async def health(self) -> dict[str, Any]:
        """``GET /health``, also when the server is not well (``status`` says so)."""
        response = await portal.call(self.rest.request("GET", "/health", accept=(503,)))
        return dict(response.json())

    async def models(self) -> Any:
        """The models that the server knows."""
        return await portal.call(self.rest.json("GET", "/cambio/models"))

    async def model_names(self) -> list[str]:
        """Names for a menu; ``demo`` needs no key."""
        found = await self.models()
        rows = found.get("models", []) if isinstance(found, dict) else found
        names = [
            str(row.get("model") or row.get("id") or row.get("name")) if isinstance(row, dict) else str(row)
            for row in rows
        ]
        return list(dict.fromkeys(["demo", *names]))

    def panel(self, session: Session | None = None, **options: Any) -> Any:
        """A form that creates a session and shows its desktop and chat, or the panel of ``session``."""
        from ..jupyter.panel import SessionPanel, WorkbenchPanel

        return WorkbenchPanel(self, **options) if session is None else SessionPanel(session, **options)

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

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
            offset, ended = 0, False
            while not ended:
                page = await self.sessions(status=status, limit=200, offset=offset)
                for row in page:
                    if row.get("name") == name:
                        return await self._by_id(str(row["id"]))
                offset += len(page)
                ended = not page or offset >= page.total
        return None


def notice(text: str) -> None:
    """Something a person should know while waiting."""
    print(text, file=sys.stderr)


def _close(rest: Rest) -> None:
    portal.submit(rest.aclose())


def _is_id(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
