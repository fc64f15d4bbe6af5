"""Who may call: every cell of the table, for REST, the agent's socket and the desktop's socket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from tests.live_server import LiveServer

pytestmark = pytest.mark.asyncio(loop_scope="module")
EVIL = {"Origin": "http://evil.example"}
NULL = {"Origin": "null"}
CROSS = {"Sec-Fetch-Site": "cross-site"}
SAME_SITE = {"Sec-Fetch-Site": "same-site"}  # another port of this machine
OURS = {"Sec-Fetch-Site": "same-origin"}
REBOUND = {"Host": "evil.example:8000"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PLAIN = {"Content-Type": "text/plain"}


@dataclass(frozen=True)
class Caller:
    """How a request says who it is. ``cookie`` sends the login cookie, ``xsrf`` its echo."""

    name: str
    headers: tuple[tuple[str, str], ...] = ()
    token: str = ""  # header, bearer, query, wrong
    cookie: bool = False
    xsrf: bool = False


def caller(name: str, *headers: dict[str, str], token: str = "", cookie: bool = False, xsrf: bool = False) -> Caller:
    return Caller(name, tuple(pair for part in headers for pair in part.items()), token, cookie, xsrf)


# (caller, GET, POST, DELETE, socket): what each gets. 200 stands for "allowed" (101 on a socket).
WITH_TOKEN = [
    (caller("no token"), 401, 401, 401, 401),
    (caller("wrong token", token="wrong"), 401, 401, 401, 401),
    (caller("token header", token="header"), 200, 200, 200, 200),
    (caller("bearer", token="bearer"), 200, 200, 200, 200),
    (caller("query", token="query"), 200, 200, 200, 200),
    (caller("cookie alone", cookie=True), 200, 403, 403, 200),
    (caller("cookie and XSRF", cookie=True, xsrf=True), 200, 200, 200, 200),
    (caller("cookie, XSRF, our page", OURS, cookie=True, xsrf=True), 200, 200, 200, 200),
    (caller("cookie, XSRF, hostile origin", EVIL, cookie=True, xsrf=True), 403, 403, 403, 403),
    (caller("cookie, XSRF, origin null", NULL, cookie=True, xsrf=True), 403, 403, 403, 403),
    (caller("cookie, XSRF, cross-site", CROSS, cookie=True, xsrf=True), 200, 403, 403, 403),
    (caller("cookie, XSRF, same site", SAME_SITE, cookie=True, xsrf=True), 200, 403, 403, 403),
    (caller("token, hostile origin: a program", EVIL, token="header"), 200, 200, 200, 200),
    (caller("token, origin null", NULL, token="header"), 200, 200, 200, 200),
    (caller("token, hostile host", REBOUND, token="header"), 403, 403, 403, 403),
    (caller("no token, hostile origin", EVIL), 401, 401, 401, 401),
    (caller("no token, hostile host", REBOUND), 403, 403, 403, 403),
]
WITHOUT_TOKEN = [
    (caller("a program"), 200, 200, 200, 200),
    (caller("our page", OURS), 200, 200, 200, 200),
    (caller("typed into the address bar", {"Sec-Fetch-Site": "none"}), 200, 200, 200, 200),
    (caller("hostile origin", EVIL), 403, 403, 403, 403),
    (caller("hostile origin that claims to be ours", EVIL, OURS), 403, 403, 403, 403),
    (caller("origin null", NULL), 403, 403, 403, 403),
    (caller("cross-site", CROSS), 200, 403, 403, 403),
    (caller("same site, other port", SAME_SITE), 200, 403, 403, 403),
    (caller("hostile host", REBOUND), 403, 403, 403, 403),
    (caller("a form", FORM), 200, 415, 200, 200),
    (caller("plain text", PLAIN), 200, 415, 200, 200),
    (caller("a form, cross-site", FORM, CROSS), 200, 403, 403, 403),
]
METHODS = ("GET", "POST", "DELETE", "ws", "vnc")


def cells(table: list[tuple[Any, ...]]) -> list[Any]:
    return [
        pytest.param(who, method, row[("GET", "POST", "DELETE").index(method)] if method in METHODS[:3] else row[3],
                     id=f"{who.name}-{method}")
        for who, *row in table
        for method in METHODS
    ]  # fmt: skip


@pytest.mark.parametrize(("who", "method", "expected"), cells(WITH_TOKEN))
async def test_with_a_token(
    server: LiveServer, session: dict[str, Any], who: Caller, method: str, expected: int
) -> None:
    assert await ask(server, session["id"], who, method) == expected


@pytest.mark.parametrize(("who", "method", "expected"), cells(WITHOUT_TOKEN))
async def test_without_a_token(open_server: LiveServer, who: Caller, method: str, expected: int) -> None:
    async with open_server.client() as client:
        found = (await client.get("/sessions", params={"status": "active"})).json()["sessions"]
        session_id = found[0]["id"] if found else (await client.post("/sessions", json={})).json()["id"]
    assert await ask(open_server, session_id, who, method) == expected


async def ask(server: LiveServer, session_id: str, who: Caller, method: str) -> int:
    """The status of one request; 200 for an upgrade. What a POST created is ended again."""
    headers, params, jar = dict(who.headers), {}, aiohttp.DummyCookieJar()
    if who.token == "query":
        params["token"] = server.token
    elif who.token:
        scheme = {"bearer": "Bearer"}.get(who.token, "token")
        headers["Authorization"] = f"{scheme} {'0' * 32 if who.token == 'wrong' else server.token}"
    if who.cookie:
        cookies, xsrf = await log_in(server, session_id)
        headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        if who.xsrf:
            headers["X-XSRFToken"] = xsrf
    async with aiohttp.ClientSession(cookie_jar=jar) as client:
        if method in ("ws", "vnc"):
            return await upgrade(client, server, f"/{method}/{session_id}", headers, params)
        if method == "GET":
            async with client.get(server.url + "/sessions", headers=headers, params=params) as response:
                return response.status
        if method == "DELETE":  # allowed means: the answer is about the session, not about the caller
            async with client.delete(server.url + "/sessions/none", headers=headers, params=params) as response:
                return 200 if response.status == 404 else response.status
        headers.setdefault("Content-Type", "application/json")
        async with client.post(server.url + "/sessions", headers=headers, params=params, data="{}") as response:
            if response.status == 200:
                created = (await response.json())["id"]
                await client.delete(f"{server.url}/sessions/{created}", headers=server.headers)
            return response.status


async def upgrade(
    client: aiohttp.ClientSession, server: LiveServer, path: str, headers: dict[str, str], params: dict[str, str]
) -> int:
    try:
        async with client.ws_connect(server.ws_url + path, headers=headers, params=params):
            return 200
    except aiohttp.WSServerHandshakeError as error:
        return error.status


async def log_in(server: LiveServer, session_id: str) -> tuple[dict[str, str], str]:
    """The cookies that a browser holds after it opened ``vnc_url`` with the token, and the XSRF token."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
        async with client.get(f"{server.url}/vnc/{session_id}", params={"token": server.token}) as response:
            assert response.status == 200, await response.text()
        cookies = {cookie.key: cookie.value for cookie in client.cookie_jar}
    assert "_xsrf" in cookies and any(name.startswith("username-") for name in cookies), cookies
    return cookies, cookies["_xsrf"]


async def test_no_cors_header_for_a_program(server: LiveServer) -> None:
    async with server.client() as client:
        response = await client.get("/sessions", headers=EVIL)
        assert response.status_code == 200
        assert not [name for name in response.headers if name.startswith("access-control-")]
        asked = await client.options("/sessions", headers={**EVIL, "Access-Control-Request-Method": "POST"})
        assert asked.status_code == 204
        assert not [name for name in asked.headers if name.startswith("access-control-")]


async def test_health_needs_no_token(server: LiveServer) -> None:
    async with aiohttp.ClientSession() as client, client.get(f"{server.url}/health", headers=EVIL) as response:
        assert response.status == 200
