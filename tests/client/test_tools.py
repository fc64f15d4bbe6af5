"""Plain Python functions offered to the agent: what it is told, what comes back."""

from __future__ import annotations

import asyncio
import enum
import threading
import time
from typing import Annotated, Any, Literal

import pytest

from cambio_lab.client import portal
from cambio_lab.client.message import Message
from cambio_lab.client.schemas import describe_function
from cambio_lab.client.session import Session
from cambio_lab.client.tools import as_text
from cambio_lab.client.workbench import Workbench
from cambio_lab.errors import InvalidRequest

from .small_server import SmallServer


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


def price(
    city: str, nights: int = 1, kind: Literal["single", "double"] = "single", extras: list[str] | None = None
) -> float:
    """What a hotel costs.

    Args:
        city: Name of the city,
        nights (int): How many nights.

    Returns:
        US dollars.
    """
    return nights * (80.0 if kind == "single" else 120.0) + 10 * len(extras or [])


def paint(color: Color, opacity: Annotated[float, "0 to 1"] = 1.0) -> str:
    """Choose a colour."""
    return f"{color!r} {opacity!r}"


def test_schema_from_signature_and_docstring() -> None:
    about = describe_function(price)
    assert about.name == "price" and about.description == "What a hotel costs."
    assert about.input_schema == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Name of the city,"},
            "nights": {"type": "integer", "description": "How many nights.", "default": 1},
            "kind": {"enum": ["single", "double"], "type": "string", "default": "single"},
            "extras": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}], "default": None},
        },
        "required": ["city"],
        "additionalProperties": False,
    }
    assert describe_function(paint).input_schema["properties"] == {
        "color": {"$ref": "#/$defs/Color"},
        "opacity": {"type": "number", "description": "0 to 1", "default": 1.0},
    }


def no_types(a, b):  # type: ignore[no-untyped-def]
    """Adds."""


def no_docstring(a: int) -> int:
    return a


def any_number(*numbers: int) -> int:
    """Adds."""
    return sum(numbers)


def of_session(session: Session) -> int:
    """Counts."""
    return len(session.id)


@pytest.mark.parametrize(
    ("function", "words"),
    [(no_types, "no type"), (no_docstring, "docstring"), (any_number, "numbers"), (of_session, "JSON cannot carry")],
)
def test_what_cannot_be_offered_is_said(function: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        describe_function(function)


@pytest.fixture
async def session(lab: Workbench) -> Session:
    return await lab.create_session("tools")


async def call(session: Session, tool: str, **arguments: Any) -> dict[str, Any]:
    """Deliver a call as the server would; returns the answer's text and whether it is an error."""
    message = Message.parse({"type": "tool_call", "tool": tool, "tool_use_id": "t1", "arguments": arguments})
    value, is_error = await portal.call(session.tools.call(message))
    return {"text": as_text(value), "is_error": is_error}


async def test_offer_and_withdraw(session: Session, server: SmallServer) -> None:
    assert session.tools.add(price, timeout=5) is price
    session.tools.add(paint)
    await portal.call(session.tools.settled())
    offered = server.sessions[session.id].received[-1]["tools"]
    assert [tool["name"] for tool in offered] == ["price", "paint"] and offered[0]["timeout"] == 5.0
    session.tools.remove(price)
    await portal.call(session.tools.settled())
    assert [tool["name"] for tool in server.sessions[session.id].received[-1]["tools"]] == ["paint"]
    assert list(session.tools) == ["paint"]


async def test_results_and_errors(session: Session) -> None:
    session.tools.add(price)
    session.tools.add(paint)
    assert await call(session, "price", city="Rome", nights=3, kind="double") == {"text": "360.0", "is_error": False}
    assert (await call(session, "paint", color="blue", opacity=1))["text"] == "<Color.BLUE: 'blue'> 1.0"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "city: Field required"),
        ({"city": "Rome", "stars": 3}, "stars: Extra inputs are not permitted"),
        ({"city": 7}, "city: Input should be a valid string"),
        ({"city": "Rome", "nights": True}, "nights: Input should be a valid integer"),
        ({"city": "Rome", "kind": "triple"}, "kind: Input should be 'single' or 'double'"),
    ]
    for arguments, words in wrong:
        answer = await call(session, "price", **arguments)
        assert answer["is_error"] and words in answer["text"], answer
    assert (await call(session, "nothing"))["is_error"]

    def broken(x: int) -> int:
        """Fails."""
        raise ValueError("no such row \x1b[31m")

    session.tools.add(broken)
    assert await call(session, "broken", x=1) == {"text": "ValueError: no such row \x1b[31m", "is_error": True}


@pytest.mark.timing
async def test_a_slow_function_times_out(session: Session) -> None:
    release = threading.Event()

    def slow() -> str:
        """Waits."""
        release.wait(10)
        return "late"

    session.tools.add(slow, timeout=0.2)
    started = time.monotonic()
    answer = await call(session, "slow")
    release.set()
    assert answer["is_error"] and "0.2 seconds" in answer["text"] and time.monotonic() - started < 1


async def test_async_functions_run_on_the_loop_that_added_them(session: Session) -> None:
    here = asyncio.get_running_loop()

    async def where() -> bool:
        """Says whether it is on the notebook's loop."""
        return asyncio.get_running_loop() is here

    session.tools.add(where)
    assert (await call(session, "where"))["text"] == "true"


async def test_the_offer_is_renewed_after_a_lost_connection(session: Session, server: SmallServer) -> None:
    session.tools.add(price)
    await portal.call(session.tools.settled())
    small = server.sessions[session.id]
    before = len(small.received)
    small.drop_before = {2}
    await session.send("go on")
    offers = [body for body in small.received[before:] if body.get("type") == "offer_tools"]
    assert offers == [small.received[0]]
    assert server.connections == 2
