"""Tell a chat or another service that an agent waits for a person: the setting ``webhook_url``."""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.request
from collections.abc import Sequence
from urllib.parse import urlsplit

from cambio_lab.errors import ConfigurationError

logger = logging.getLogger(__name__)
SECONDS = 10.0
MOST_WAITING = 20
"""Messages that wait for a slow service; more are dropped, with a line in the log."""
LONGEST = 3_000


class Webhook:
    """Posts ``{"text": ...}``, as Slack, Mattermost and Discord's Slack address take it; :meth:`run` sends."""

    def __init__(self, url: str) -> None:
        """``url`` may be a secret: it is in no log."""
        if url and urlsplit(url).scheme not in ("http", "https"):
            raise ConfigurationError("webhook_url must begin with https:// or http://.")
        self._url = url
        self._waiting: asyncio.Queue[str] = asyncio.Queue(MOST_WAITING)

    def notify(self, session: str, question: str, choices: Sequence[str] = ()) -> None:
        """Say that the agent of ``session`` asks ``question``. Without a URL, nothing happens."""
        if not self._url:
            return
        offered = f" ({' / '.join(choices)})" if choices else ""
        text = f"{escape(session)} asks: {escape(question + offered)[:LONGEST]}"
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
        with urllib.request.urlopen(request, timeout=SECONDS) as response:
            response.read(65_536)


def escape(text: str) -> str:
    """Return ``text`` without what Slack reads as links or as mentions: it may come from a desktop."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
