"""What a caller asks with and gets back: typed answers and images, through server, record and replay."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import BaseModel, field_validator

from cambio_lab.client.feed import Exchange
from cambio_lab.client.workbench import Workbench
from cambio_lab.errors import AnswerDoesNotFit, InvalidRequest
from tests.messages_api import MessagesApi, Script, reply, screenshot, tool


class Stock(BaseModel):
    """How much there is."""

    name: str
    count: int

    @field_validator("name")
    @classmethod
    def is_lower_case(cls, name: str) -> str:
        if name != name.lower():
            raise ValueError("write it in lower case")
        return name


async def test_a_typed_answer_is_an_instance_stored_and_replayed(
    start_server: Callable[..., Any], messages_api: MessagesApi
) -> None:
    said = iter([reply(screenshot()), reply('{"name": "Pears", "count": 3}'), reply('{"name": "pears", "count": 3}')])
    messages_api.policy = lambda _: next(said)
    server = await start_server(model="claude-sonnet-5-5", env=messages_api.environment)
    async with Workbench(server.url, server.token) as lab, await lab.create_session(approval="never") as session:
        found = await session.ask("How many pears?", schema=Stock, show=False)
        assert found == Stock(name="pears", count=3) and session.turns[-1].answer == {"name": "pears", "count": 3}
        assert session.turns[-1].message == (
            "Your answer is not accepted: name: Value error, write it in lower case\nCorrect it and answer again."
        )
        rows = list(await session.history())
        assert [row["metadata"].get("answer") for row in rows if row["role"] == "assistant"] == [
            {"name": "Pears", "count": 3},
            {"name": "pears", "count": 3},
        ]
        played = await (await session.load_run()).replay()
        assert played.identical
        assert [event.answer["name"] for event in played.events if hasattr(event, "answer")] == ["Pears", "pears"]
        messages_api.policy = lambda _: reply('{"name": "PEARS", "count": 3}')
        with pytest.raises(AnswerDoesNotFit, match="lower case"):
            await session.ask("Again?", schema=Stock, show=False)
        messages_api.policy = lambda _: reply("[1, 2]")
        assert await session.ask("Which?", schema=list[int], show=False) == [1, 2]
        with pytest.raises(InvalidRequest, match="JSON cannot carry"):
            await session.ask("?", schema=Callable, show=False)  # type: ignore[arg-type]
    assert messages_api.refusals == []


def sent_images(body: dict[str, Any]) -> list[Image.Image]:
    """The images that people and functions gave, not the screenshots of toolsets."""
    blocks = [block for message in body["messages"] for block in message["content"]]
    found = [block for block in blocks if block["type"] == "image"]
    for block in blocks:
        if block["type"] == "tool_result" and "toolset_name" not in block:
            found += [part for part in block["content"] if part["type"] == "image"]
    return [Image.open(io.BytesIO(base64.b64decode(block["source"]["data"]))) for block in found]


async def test_images_of_a_message_and_of_a_function_reach_the_model_and_the_run(
    start_server: Callable[..., Any], messages_api: MessagesApi, tmp_path: Path
) -> None:
    messages_api.policy = Script([reply(tool("chart")), reply("I see them.")])
    server = await start_server(model="claude-sonnet-5-5", env=messages_api.environment)
    Image.new("RGB", (40, 30), "#ff0000").save(tmp_path / "red.png")
    wide = Image.new("RGB", (9000, 300), "#00ff00")
    async with Workbench(server.url, server.token) as lab, await lab.create_session(approval="never") as session:

        @session.tools.add
        def chart() -> Image.Image:
            """Draw a chart."""
            return Image.new("RGB", (64, 48), "#0000ff")

        with pytest.raises(InvalidRequest, match="cannot be decoded"):
            await session.send("Look", images=[b"\x89PNG\r\n no image"], show=False)
        await session.send("Look", images=[tmp_path / "red.png", wide], show=False)
        images = sent_images(messages_api.bodies[-1])
        assert [image.size for image in images] == [(40, 30), (2000, 67), (64, 48)]
        assert images[0].convert("RGB").getpixel((5, 5)) == (255, 0, 0)
        first = messages_api.bodies[0]["messages"][0]["content"]
        assert [block["type"] for block in first] == ["image", "image", "text"]
        noted = next(iter(await session.history()))["metadata"]["images"]
        assert [(image["width"], image["height"]) for image in noted] == [(40, 30), (2000, 67)]
        run = await session.load_run()
    loaded = type(run).load(run.save(tmp_path / "images.cambio"))
    assert (await loaded.replay()).identical
    assert loaded.to_html().count('alt="Sent with the message"') == 2
    assert loaded.to_markdown(tmp_path / "run.md").count("![sent with the message](run_images/sent-") == 2
    async with server.client() as client, Workbench(server.url, server.token) as lab:
        other = await lab.create_session(approval="never")
        with pytest.raises(InvalidRequest, match="not uploaded to this session"):
            await Exchange(other, "Look", None, False, fields={"images": [noted[0]["sha256"]]}).follow(None)
        answer = await client.put(f"{other.path}/images", content=bytes(21 * 1024**2))
        assert answer.status_code == 413
        await other.end()
    assert messages_api.refusals == []
