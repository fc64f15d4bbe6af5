"""Content blocks that the service would refuse, and with them each later request of the session."""

from __future__ import annotations

import io
import os
from typing import Any

import pytest
from PIL import Image

from cambio_lab.agent.tools import MAX_IMAGE_BYTES, Call, Outcome, result_block, valid_image
from cambio_lab.desktop.base import Screenshot
from cambio_lab.events import HistoryDropped, StatusChanged, TurnFailed, TurnFinished

from .conftest import MakeAgent, of, play
from .scripted import error, reply, text, use

CALL = Call("toolu_1", "bash", None, {})


@pytest.mark.parametrize("words", ["", " ", "\n\t ", "\ud800", "a\x00b\x1b[0m", "x" * 3_000_000, "\u2003\u00a0"])
@pytest.mark.parametrize("is_error", [True, False])
def test_every_text_result_is_not_blank_and_encodable(words: str, is_error: bool) -> None:
    block = result_block(CALL, Outcome(text=words, is_error=is_error))
    for part in block["content"]:
        assert part["text"].strip() and "\x00" not in part["text"] and "\x1b" not in part["text"]
        assert len(part["text"].encode("utf-8")) < 900_000


def test_an_image_over_the_byte_limit_is_encoded_again_at_the_same_size() -> None:
    out = io.BytesIO()
    Image.frombytes("RGB", (2000, 1400), os.urandom(2000 * 1400 * 3)).save(out, "PNG")
    assert len(out.getvalue()) > 8_000_000
    found = valid_image(Screenshot(out.getvalue(), "image/png", 2000, 1400))
    assert len(found.data) <= MAX_IMAGE_BYTES and found.media_type == "image/jpeg"
    with Image.open(io.BytesIO(found.data)) as image:
        assert image.size == (2000, 1400) and image.format == "JPEG"


async def test_a_refused_result_is_replaced_and_the_turn_goes_on(make: MakeAgent, scripted: Any) -> None:
    service = scripted(
        reply(use("screenshot")), error(400, "invalid_request_error"), reply(text("Done.")), reply(text("Again."))
    )
    agent = make(service)
    found = await play(agent)
    assert isinstance(found[-1], TurnFinished) and found[-1].text == "Done."
    assert [event.count for event in of(found, HistoryDropped)] == [1]
    (told,) = [event for event in of(found, StatusChanged) if (event.metadata or {}).get("event") == "request_refused"]
    assert told.metadata["status"] == 400
    (result,) = service.requests[2]["messages"][-1]["content"]
    assert "could not be sent to the model" in result["content"][0]["text"]
    assert isinstance((await play(agent, "More."))[-1], TurnFinished)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "invalid_request_error"), (413, "request_too_large")], ids=["400", "413"]
)
@pytest.mark.parametrize("acts", [True, False])
async def test_a_turn_refused_again_leaves_the_conversation(
    acts: bool, status: int, kind: str, make: MakeAgent, scripted: Any
) -> None:
    refusals = [error(status, kind)] * (2 if acts else 1)
    service = scripted(
        reply(text("First.")), *([reply(use("screenshot"))] if acts else []), *refusals, reply(text("Works."))
    )
    agent = make(service)
    await play(agent)
    before = agent.history
    found = await play(agent, "Refused words.")
    assert isinstance(found[-1], TurnFailed) and "taken out" in str(found[-1])
    assert agent.history == before
    assert isinstance((await play(agent, "Next."))[-1], TurnFinished)
    assert "Refused words." not in str(service.requests[-1]["messages"])
