"""What a client can choose from: the model table and the defaults of a new session; and a session's record."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from typing import Any

from ..settings import Settings
from .rest import Rest

SHOWN = (
    *("model", "platform", "effort", "approval", "approval_timeout", "desktop", "display", "network", "image_format"),
    *("max_steps", "max_cost_usd", "max_turn_seconds", "max_turn_tokens", "session_timeout", "idle_timeout"),
    *("max_desktops", "max_file_bytes", "heartbeat", "record"),
)
"""Settings that a client may see; the others are nobody's business but the server's."""
assert set(SHOWN) <= {item.name for item in fields(Settings)}


class Models(Rest):
    """``/cambio/models``"""

    async def get(self) -> None:
        from ..agent.models import describe  # the agent's modules are loaded by the start hook, off the loop

        await self.services.registry()
        self.write_json({"models": describe(), "default": self.services.settings.model})


class Defaults(Rest):
    """``/cambio/defaults``"""

    async def get(self) -> None:
        settings = self.services.settings
        found: dict[str, Any] = {name: getattr(settings, name) for name in SHOWN}
        await self.services.registry()
        self.write_json({**found, "desktop_kind": self.services.desktop_kind})


class Run(Rest):
    """``/sessions/{session_id}/run``: the recorded run as a ``.cambio`` file."""

    async def get(self, session_id: str) -> None:
        from ..recording.collect import collect
        from ..recording.run_file import packed

        data = await asyncio.to_thread(packed, await collect(await self.services.store(), session_id))
        self.set_header("Content-Type", "application/zip")
        self.set_header("Content-Disposition", f'attachment; filename="{session_id}.cambio"')
        self.finish(data)
