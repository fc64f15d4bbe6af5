"""What people do, as part of the session: steps on the desktop, answers to the agent's questions; the webhook."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import urllib.request
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

from cambio_lab.agent.extras import LONGEST_ANSWER
from cambio_lab.agent.gate import QueuedMessage
from cambio_lab.agent.tools import COMPUTER, HAND_OVER, NOTE, image_fields
from cambio_lab.desktop.base import Size
from cambio_lab.desktop.keys import HumanAction
from cambio_lab.errors import CambioError, ConfigurationError, InvalidRequest
from cambio_lab.events import QuestionAsked, ToolFinished
from cambio_lab.recording.recorder import HumanCall
from cambio_lab.store import new_message_id

if TYPE_CHECKING:
    from .session import Session

logger = logging.getLogger(__name__)
KEEP_SECONDS = 5.0
VERBS = {
    "left_click": "clicked", "double_click": "clicked", "triple_click": "clicked", "right_click": "clicked",
    "middle_click": "clicked", "left_click_drag": "dragged", "scroll": "scrolled", "key": "pressed keys",
    "type": "typed",
}  # fmt: skip
COUNTED = frozenset({"clicked", "dragged"})


class HumanSteps:
    """Of one session. ``record`` decides how much is kept: ``actions``, ``full`` (text as well) or ``off``."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = asyncio.Lock()
        self._tasks = 0
        self._idle = asyncio.Event()
        self._verbs: Counter[str] = Counter()

    async def recorded(self) -> None:
        """Wait until all of it is kept."""
        if self._tasks:
            with suppress(TimeoutError):
                async with asyncio.timeout(KEEP_SECONDS):
                    await self._idle.wait()

    def record(self, actions: Sequence[HumanAction]) -> Coroutine[Any, Any, None]:
        """Note what a viewer did for the agent; the coroutine, which the caller runs, keeps it."""
        session = self._session
        mode = session.config.record_human or session.context.settings.record_human
        if mode != "off":
            self._tell(actions)
        self._tasks += 1
        self._idle.clear()
        return self._record(actions if mode != "off" else [], full=mode == "full")

    async def _record(self, actions: Sequence[HumanAction], *, full: bool) -> None:
        try:
            if actions:
                async with self._lock:
                    await self._keep_all(actions, full=full)
        finally:
            self._tasks -= 1
            if not self._tasks:
                self._idle.set()

    async def _keep_all(self, actions: Sequence[HumanAction], *, full: bool) -> None:
        """Keep each action, and one screenshot after the last."""
        session = self._session
        image = None
        with suppress(CambioError, TimeoutError):  # a desktop that is gone shows nothing
            async with asyncio.timeout(KEEP_SECONDS):
                image = await session.bare_desktop.screenshot()
        for action in actions:
            seen = image if action is actions[-1] else None
            arguments, call = self._call(action, full=full)
            step = await session.agent.human_step(call, seen)
            name = f"human_{uuid4().hex}"
            about = (name, action.tool, COMPUTER, arguments, step, False, "")
            event = ToolFinished(*about, actor="human", **image_fields(seen))
            session.require_live()
            await session.keep_step(event, session.step_row(event, actor="human"))

    def _call(self, action: HumanAction, *, full: bool) -> tuple[dict[str, Any], HumanCall | None]:
        """Return the step's arguments, and the call that does the same; there is none without the typed text."""
        session, arguments = self._session, dict(action.arguments)
        screen, image = session.bare_desktop.true_size, session.bare_desktop.size
        for name in ("coordinate", "start_coordinate"):
            if name in arguments:
                arguments[name] = _scaled(arguments[name], screen, image)
        if action.tool == "type":
            arguments["text"] = session.mask.text(arguments["text"])
            if not full:
                return {"characters": len(arguments["text"])}, None
        at = session.clock.time() - (time.monotonic() - action.ended)
        return arguments, HumanCall(*_performed(action.tool, arguments), at)

    def _tell(self, actions: Sequence[HumanAction]) -> None:
        """Have one line about all of it told to the agent before its next request."""
        session = self._session
        if session.gate.note is None:
            self._verbs.clear()
        self._verbs.update(VERBS[action.tool] for action in actions)
        times = {verb: f" {count} times" if count > 1 else " once" for verb, count in self._verbs.items()}
        done = [verb + (count if verb in COUNTED else "") for verb, count in times.items()]
        listed = done[0] if len(done) == 1 else f"{', '.join(done[:-1])} and {done[-1]}"
        when = "While you were paused" if session.life.working else "Since your last turn"
        session.gate.note = QueuedMessage(
            new_message_id(), f"{NOTE}{when} the user {listed} on the desktop.", note=True
        )


def _performed(tool: str, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the desktop's method for an action, and its arguments."""
    point = arguments.get("coordinate")
    match tool:
        case "type":
            return "type_text", {"text": arguments["text"]}
        case "key":
            return "key", {"combo": arguments["text"]}
        case "scroll":
            about = {"direction": arguments["scroll_direction"], "amount": arguments["scroll_amount"]}
            return "scroll", {**about, "point": point}
        case "left_click_drag":
            return "drag", {"start": arguments["start_coordinate"], "end": point}
    button = {"right_click": "right", "middle_click": "middle"}.get(tool, "left")
    return "click", {"button": button, "point": point, "count": {"double_click": 2, "triple_click": 3}.get(tool, 1)}


def _scaled(point: Sequence[int], screen: Size, image: Size) -> list[int]:
    scaled = ((at * most // of, most) for at, of, most in zip(point, screen, image, strict=True))
    return [max(0, min(most - 1, at)) for at, most in scaled]


def check_answer(question: QuestionAsked, text: str) -> str:
    """Return ``text`` trimmed; :class:`InvalidRequest` when it is no answer to ``question``."""
    words, problem = text.strip(), ""
    if len(words) > LONGEST_ANSWER:
        problem = f"must have at most {LONGEST_ANSWER} characters"
    elif not words and question.tool != HAND_OVER:
        problem = "must not be empty"
    elif not question.free_text and words not in question.choices:
        problem = f"must be one of {', '.join(question.choices)}"
    if problem:
        raise InvalidRequest(f"The answer {problem}.", details={"text": problem})
    return words


WEBHOOK_SECONDS = 10.0
MOST_NOTIFICATIONS = 20
"""Messages that wait for a slow service; more are dropped, with a line in the log."""
LONGEST_NOTIFICATION = 3_000


class Webhook:
    """Posts ``{"text": ...}``, as Slack, Mattermost and Discord's Slack address take it; :meth:`run` sends."""

    def __init__(self, url: str) -> None:
        """``url`` may be a secret: it is in no log."""
        if url and urlsplit(url).scheme not in ("http", "https"):
            raise ConfigurationError("webhook_url must begin with https:// or http://.")
        self._url = url
        self._waiting: asyncio.Queue[str] = asyncio.Queue(MOST_NOTIFICATIONS)

    def notify(self, session: str, question: str, choices: Sequence[str] = ()) -> None:
        """Say that the agent of ``session`` asks ``question``. Without a URL, nothing happens."""
        if not self._url:
            return
        offered = f" ({' / '.join(choices)})" if choices else ""
        text = f"{escape(session)} asks: {escape(question + offered)[:LONGEST_NOTIFICATION]}"
        try:
            self._waiting.put_nowait(text)
        except asyncio.QueueFull:
            logger.warning("webhook too slow; message dropped")

    async def run(self) -> None:
        """Send what there is to say, one message after the other, until cancelled. A failure costs its message."""
        while True:
            text = await self._waiting.get()
            try:
                await asyncio.to_thread(self._post, text)
            except (OSError, ValueError) as error:  # urllib's errors name the URL's host at most
                logger.warning("webhook not reached: error=%s", type(error).__name__)

    def _post(self, text: str) -> None:
        body, headers = json.dumps({"text": text}).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url, body, headers, method="POST")
        with urllib.request.urlopen(request, timeout=WEBHOOK_SECONDS) as response:
            response.read(65_536)


def escape(text: str) -> str:
    """Return ``text`` without what Slack reads as links or as mentions: it may come from a desktop."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
