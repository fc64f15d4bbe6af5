"""What a message asks: its text, its metadata, and the options of its turn: its images and the answer's schema."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cambio_lab.agent.answers import AnswerSchema
from cambio_lab.agent.options import TurnOptions
from cambio_lab.agent.tools.named import ExtraTools
from cambio_lab.recording.masking import Mask

from .checks import check_content, check_metadata, invalid, turn_options
from .images import Uploads
from .secrets import SecretTools


@dataclass(frozen=True, slots=True)
class Asked:
    """A message that was checked. ``queueable``: it may join a turn that runs."""

    text: str
    metadata: dict[str, Any]
    options: TurnOptions
    queueable: bool


async def check(
    content: object,
    metadata: object,
    fields: Mapping[str, Any],
    uploads: Uploads,
    *,
    mask: Mask,
    extra_tools: ExtraTools | None,
) -> Asked:
    """Return a message without values of secrets; ``fields`` are its others: ``answer_schema`` and ``images``.

    Raises :class:`~cambio_lab.errors.InvalidRequest` naming what is wrong.
    """
    text, extra = mask.text(check_content(content)), check_metadata(metadata, mask)
    schema = fields.get("answer_schema")
    if schema is not None:
        if not isinstance(schema, Mapping):
            raise invalid("answer_schema", "must be an object")
        await asyncio.to_thread(AnswerSchema, schema)
        turn_options(extra)
        extra = check_metadata({**extra, "options": {**(extra.get("options") or {}), "answer_schema": schema}})
    rows, images = await uploads.named(fields.get("images") or [])
    if rows:
        extra = check_metadata({**extra, "images": rows})
    tools = SecretTools(extra_tools, mask) if extra_tools and mask else extra_tools
    options = TurnOptions(**turn_options(extra), extra_tools=tools, images=images)
    return Asked(text, extra, options, queueable=schema is None and not images)
