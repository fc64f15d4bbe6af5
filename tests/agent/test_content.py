"""Content blocks that the service would refuse, and with them each later request of the session."""

from __future__ import annotations

import io
import os

import pytest
from PIL import Image

from cambio_lab.agent.tools.call import Call, Outcome, result_block
from cambio_lab.agent.tools.content import MAX_IMAGE_BYTES, valid_image
from cambio_lab.desktop.base import Picture

CALL = Call("toolu_1", "bash", None, {})


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "\ud800", "a\x00b\x1b[0m", "x" * 3_000_000, "\u2003\u00a0"])
@pytest.mark.parametrize("is_error", [True, False])
def test_every_text_result_is_not_blank_and_encodable(text: str, is_error: bool) -> None:
    block = result_block(CALL, Outcome(text=text, is_error=is_error))
    for part in block["content"]:
        assert part["text"].strip() and "\x00" not in part["text"] and "\x1b" not in part["text"]
        assert len(part["text"].encode("utf-8")) < 900_000


def test_an_image_over_the_byte_limit_is_encoded_again_at_the_same_size() -> None:
    out = io.BytesIO()
    Image.frombytes("RGB", (2000, 1400), os.urandom(2000 * 1400 * 3)).save(out, "PNG")
    assert len(out.getvalue()) > 8_000_000
    found = valid_image(Picture(out.getvalue(), "image/png", 2000, 1400))
    assert len(found.data) <= MAX_IMAGE_BYTES and found.media_type == "image/jpeg"
    with Image.open(io.BytesIO(found.data)) as image:
        assert image.size == (2000, 1400) and image.format == "JPEG"
