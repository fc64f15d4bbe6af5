"""The heart of it: the model sees what our loop sent, says where to click, and the click arrives there."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.messages_api import ColorTarget, Reply, Script, View, member, reply, screenshot, tool

from .chat import chat
from .conftest import WINDOWS, OpenBench

PLACES = 20
TEXT = "Hello, World! ABCxyz 0123 ~`!@#$%^&*()_-+={}[]|\\:;\"'<>,.?/\n\tindented äöß€漢字🙂\nlast line\tend"


@dataclass(frozen=True)
class LaunchThenClick:
    """Starts the window that the message describes, then finds its button in the screenshot and clicks it."""

    def __call__(self, view: View) -> Reply:
        if not view.calls:
            number = view.prompt.split()[0]
            command = (
                f"(python3 ~/target.py {view.prompt} >/dev/null 2>&1 &); "
                f"until [ -e ~/ready-{number} ]; do sleep 0.05; done"
            )
            return reply(tool("bash", command=command), screenshot())
        return ColorTarget()(view)


async def test_every_place_is_hit(bench: OpenBench, desktop: str) -> None:
    dice = random.Random(20260801)
    async with bench(desktop) as b:
        b.api.policy = LaunchThenClick()
        await b.put("target.py", (WINDOWS / "target.py").read_bytes())
        hits = 0
        for number in range(PLACES):
            x, y = dice.randrange(0, 1280 - 140), dice.randrange(30, 800 - 130)
            seen = await chat(b.server.ws_url, b.session["id"], f"{number} {x} {y}")
            assert seen[-1]["type"] == "agent_response", seen[-1]
            confirmed = await b.get(f"clicked-{number}")
            hits += confirmed is not None
        assert b.api.refusals == []
        assert hits == PLACES


async def test_typed_text_arrives_exactly(bench: OpenBench, desktop: str) -> None:
    async with bench(desktop) as b:
        start = "(python3 ~/editor.py >/dev/null 2>&1 &); until [ -e ~/editor-ready ]; do sleep 0.05; done"
        b.api.policy = Script(
            [reply(tool("bash", command=start), screenshot()), reply(member("type", text=TEXT), screenshot())]
        )
        await b.put("editor.py", (WINDOWS / "editor.py").read_bytes())
        seen = await chat(b.server.ws_url, b.session["id"], "type it")
        assert seen[-1]["type"] == "agent_response", seen[-1]
        assert await b.get("typed.txt") == TEXT.encode()
        assert b.api.refusals == []
