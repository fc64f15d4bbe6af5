"""Asking where the pointer is: a helper that dies, lies or is left in the middle of an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from cambio_lab.desktop.base import Point
from cambio_lab.desktop.machine import STDOUT, Machine
from cambio_lab.desktop.xserver import Pointer
from cambio_lab.errors import DesktopError


class Helper:
    """A process that answers each question with the next of ``answers``; ``None`` is the end of its output."""

    def __init__(self, answers: list[bytes | None]) -> None:
        self.answers = answers
        self.output: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.abandoned = False

    async def write(self, data: bytes) -> None:
        self.output.put_nowait(self.answers.pop(0))

    async def read(self) -> tuple[int, bytes] | None:
        await asyncio.sleep(0.01)
        piece = await self.output.get()
        return None if piece is None else (STDOUT, piece)

    def abandon(self) -> None:
        self.abandoned = True


class Helpers:
    """A machine that starts one helper for each list of answers."""

    python = "python3"

    def __init__(self, *answers: list[bytes | None]) -> None:
        self.waiting = list(answers)
        self.started: list[Helper] = []

    async def spawn(self, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Any:
        self.started.append(Helper(self.waiting.pop(0)))
        return self.started[-1]

    def pointer(self) -> Pointer:
        return Pointer(cast(Machine, self))


async def test_the_answer_to_a_cancelled_question_is_nobodys() -> None:
    helpers = Helpers([b"1 1\n", b"2 2\n"], [b"3 3\n", b"4 4\n"])
    pointer = helpers.pointer()
    asked = asyncio.create_task(pointer.locate())
    await asyncio.sleep(0.001)
    asked.cancel()
    await asyncio.wait([asked])
    assert helpers.started[0].abandoned
    assert [await pointer.locate(), await pointer.locate()] == [Point(3, 3), Point(4, 4)]
    assert len(helpers.started) == 2


@pytest.mark.parametrize("bad", [b"nonsense\n", b"1 2\n3 4\n", None])
async def test_a_helper_that_fails_is_replaced_once(bad: bytes | None) -> None:
    assert await Helpers([bad], [b"5 6\n"]).pointer().locate() == Point(5, 6)
    helpers = Helpers([bad], [bad])
    with pytest.raises(DesktopError, match="X server does not answer"):
        await helpers.pointer().locate()
    assert all(helper.abandoned for helper in helpers.started)
