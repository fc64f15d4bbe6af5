"""What a message asks, checked: its text, its metadata, and the options of its turn: the answer's schema and images.

A client uploads an image and then names it in a message by its digest. It is decoded and encoded again, as large as the
model sees, and stored as a file; a photo's metadata (place, camera) is dropped.
"""

from __future__ import annotations

import asyncio
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from cambio_lab.agent.models import ImageLimits
from cambio_lab.agent.options import AnswerSchema, TurnOptions
from cambio_lab.agent.tools import MEMBERS
from cambio_lab.desktop.base import Screenshot, Size
from cambio_lab.desktop.screen import fit_model
from cambio_lab.errors import InvalidRequest
from cambio_lab.recording.placeholders import Mask
from cambio_lab.store import Store

from .agent import SecretTools

if TYPE_CHECKING:
    from PIL import Image

    from .session import Session

NO_SECRETS = Mask()
MAX_CONTENT, MAX_METADATA_BYTES = 200_000, 64_000
MAX_CALLS = 20
"""That one message may make itself."""
MAX_OPTION = 1_000_000_000
"""Of a number among a message's options; more tokens, seconds or dollars mean nothing."""
Option = Annotated[float, Field(ge=0, le=MAX_OPTION)]
WholeOption = Annotated[int, Field(ge=0, le=MAX_OPTION)]


class Checked(BaseModel):
    """A model of ours: unknown keys, NaN and numbers that are text are refused; errors quote no value."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    @classmethod
    def check(cls, values: Mapping[str, Any], where: str) -> Self:
        """Return the model; :class:`InvalidRequest` names every unknown or wrong key, with ``where`` before it."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            wrong: dict[str, object] = {f"{where}.{problem['loc'][0]}": words(problem) for problem in error.errors()}
        hint = f"Known keys: {', '.join(cls.model_fields)}." if "unknown" in wrong.values() else ""
        raise InvalidRequest(f"{where} is not valid: {listed(wrong)}.", hint=hint, details=wrong)


class DirectCall(Checked):
    """One call that a client makes itself."""

    name: Literal[tuple(sorted(MEMBERS))]  # type: ignore[valid-type]
    input: dict[str, Any] = {}


class MessageOptions(Checked):
    """``metadata.options``: what one message changes for its own turn."""

    model: str | None = None
    effort: str | None = None
    thinking: str | None = None
    max_tokens: WholeOption | None = None
    max_steps: WholeOption | None = None
    max_cost_usd: Option | None = None
    max_turn_tokens: WholeOption | None = None
    max_turn_seconds: Option | None = None
    answer_schema: dict[str, Any] | None = None
    calls: list[DirectCall] | None = Field(None, min_length=1, max_length=MAX_CALLS)


def check_content(content: object) -> str:
    """Return a message's text; :class:`InvalidRequest` when it is none, empty or too long."""
    if not isinstance(content, str):
        raise invalid("content", "must be text")
    if not content.strip():
        raise invalid("content", "must not be empty")
    if len(content) > MAX_CONTENT:
        raise invalid("content", f"must have at most {MAX_CONTENT} characters")
    if any(0xD800 <= ord(character) <= 0xDFFF for character in content):
        raise invalid("content", "must be valid Unicode: it has a lone surrogate")
    return content


def check_metadata(metadata: object, mask: Mask = NO_SECRETS) -> dict[str, Any]:
    """Return a message's metadata as it is stored, without values of secrets; ``None`` is none."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping) or not all(isinstance(key, str) for key in metadata):
        raise invalid("metadata", "must be an object")
    try:
        size = len(json.dumps(dict(metadata), allow_nan=False).encode())
        masked: dict[str, Any] = mask.json(dict(metadata))
    except (TypeError, ValueError, RecursionError):
        raise invalid("metadata", "must be JSON") from None
    if size > MAX_METADATA_BYTES:
        raise invalid("metadata", f"must have at most {MAX_METADATA_BYTES} bytes")
    return masked


def turn_options(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``metadata.options``: model, effort, thinking, limits and the answer's schema for this turn alone."""
    options = metadata.get("options")
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise invalid("metadata.options", "must be an object")
    return MessageOptions.check(options, "metadata.options").model_dump(exclude_none=True)


def listed(wrong: Mapping[str, object]) -> str:
    """Return every wrong field with what is wrong with it, in one line."""
    return "; ".join(f"{name.removeprefix('config.')}: {wrong[name]}" for name in sorted(wrong))


_WORDS = {
    "extra_forbidden": "unknown",
    "string_type": "must be text",
    "string_unicode": "must be valid Unicode",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a number",
    "string_too_long": "at most {max_length} characters",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be one of {expected}",
    "value_error": "{error}",
}


def words(problem: ErrorDetails) -> str:
    """Return what is wrong in plain words; what pydantic says where we have none."""
    words = _WORDS.get(problem["type"], problem["msg"])
    return words.format(**problem.get("ctx", {})).replace("'", "").replace(" or ", ", ")


def invalid(field: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"{field} {problem}.", details={field: problem})


async def checked(
    session: Session, content: object, metadata: object, fields: Mapping[str, Any]
) -> tuple[str, dict[str, Any], TurnOptions]:
    """Return a message's text and metadata, without values of secrets, and what its turn is to be like.

    ``fields`` are its others: ``answer_schema`` and ``images``. Raises :class:`~cambio_lab.errors.InvalidRequest`
    naming what is wrong.
    """
    mask, tools = session.mask, session.extra_tools
    text, extra = mask.text(check_content(content)), check_metadata(metadata, mask)
    schema = fields.get("answer_schema")
    if schema is not None:
        if not isinstance(schema, Mapping):
            raise invalid("answer_schema", "must be an object")
        await asyncio.to_thread(AnswerSchema, schema)
        turn_options(extra)
        extra = check_metadata({**extra, "options": {**(extra.get("options") or {}), "answer_schema": schema}})
    rows, images = await session.uploads.named(fields.get("images") or [])
    if rows:
        extra = check_metadata({**extra, "images": rows})
    offered = SecretTools(tools, mask) if tools and mask else tools
    return text, extra, TurnOptions(**turn_options(extra), extra_tools=offered, images=images)


MOST, MOST_WAITING = 20, 100
"""Images of one message, and uploaded ones of a session that no message needs to name."""
MAX_UPLOAD_BYTES, MAX_PIXELS = 20 * 1024**2, 50_000_000
MAX_PNG_BYTES = 2_000_000
"""A larger one becomes a JPEG."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF")


class Uploads:
    """The images of one session that its messages may name."""

    def __init__(self, store: Store, limits: ImageLimits) -> None:
        self._store = store
        self._limits = limits
        self._waiting: dict[str, dict[str, Any]] = {}

    async def take(self, data: bytes) -> dict[str, Any]:
        """Store an image; return ``sha256``, ``media_type``, ``width`` and ``height`` of what is stored."""
        encoded, media_type, size = await asyncio.to_thread(fit, data, self._limits)
        sha256 = await self._store.screenshots.put(encoded, media_type)
        found = {"sha256": sha256, "media_type": media_type, "width": size.width, "height": size.height}
        self._waiting[sha256] = found
        while len(self._waiting) > MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
        return found

    async def named(self, digests: object) -> tuple[list[dict[str, Any]], list[tuple[bytes, str]]]:
        """Return what a message's ``images`` are, as they are noted and as they are sent to the model."""
        if not isinstance(digests, Sequence) or isinstance(digests, str) or len(digests) > MOST:
            raise invalid("images", f"must be a list of at most {MOST} digests")
        rows, contents = [], []
        for digest in digests:
            row = self._waiting.get(digest) if isinstance(digest, str) else None
            found = await self._store.screenshots.read(row["sha256"]) if row else None
            if row is None or found is None:
                raise invalid("images", "names an image that was not uploaded to this session")
            rows.append(row)
            contents.append(found)
        return rows, contents

    async def screenshot(self, digest: str) -> Screenshot:
        """Return an uploaded image as a function's result has it."""
        [row], [(data, media_type)] = await self.named([digest])
        return Screenshot(data, media_type, row["width"], row["height"])


def fit(data: bytes, limits: ImageLimits) -> tuple[bytes, str, Size]:
    """Return an image of unknown origin as the model takes it: its bytes, media type and size."""
    from PIL import Image, ImageOps

    if len(data) > MAX_UPLOAD_BYTES:
        raise InvalidRequest(f"The image has more than {MAX_UPLOAD_BYTES} bytes.", details={"image": "too large"})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is tighter
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise InvalidRequest(
                        f"The image has {image.width}x{image.height} pixels; the limit is {MAX_PIXELS} in all.",
                        details={"image": "too large"},
                    )
                photo = image.format == "JPEG"
                upright = ImageOps.exif_transpose(image).convert("RGB" if photo else "RGBA")
    except InvalidRequest:
        raise
    except Exception as error:  # what Pillow raises for hostile bytes has no common base
        raise InvalidRequest(
            f"The image cannot be decoded ({type(error).__name__}).",
            hint="PNG, JPEG, WebP and GIF are known.",
            details={"image": "cannot be decoded"},
        ) from None
    size = fit_model(Size(*upright.size), min(limits.edge, limits.many_edge), limits.tokens)
    if size != upright.size:
        upright = upright.resize(size, Image.Resampling.LANCZOS)
    return *_encode(upright, photo), size


def _encode(image: Image.Image, photo: bool) -> tuple[bytes, str]:
    out = io.BytesIO()
    if not photo:
        image.save(out, "PNG")
        if out.tell() <= MAX_PNG_BYTES:
            return out.getvalue(), "image/png"
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=90)
    return out.getvalue(), "image/jpeg"
