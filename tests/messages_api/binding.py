"""Thinking blocks are bound to what precedes them: a signature holds a digest of everything before the block."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

from .models import Model
from .refusal import Refused


def strip(value: Any) -> Any:
    """``value`` without cache markers (they may move) and nulls (they say nothing), images by digest."""
    if isinstance(value, dict):
        return {
            name: hashlib.sha256(inner.encode()).hexdigest() if name == "data" and len(inner) > 200 else strip(inner)
            for name, inner in value.items()
            if name != "cache_control" and inner is not None
        }
    return [strip(inner) for inner in value] if isinstance(value, list) else value


def digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def chain(body: dict[str, Any], messages: list[dict[str, Any]]) -> Iterator[tuple[int, int, str, dict[str, Any]]]:
    """``(message, block, digest of everything before it, block)`` for each block, and one last with an empty block."""
    system = body.get("system")
    before = digest(
        strip(body.get("tools") or []),
        strip([{"type": "text", "text": system}] if isinstance(system, str) else system or []),
    )
    for i, message in enumerate(messages):
        for j, block in enumerate(message["content"]):
            yield i, j, before, block
            before = digest(before, message["role"], strip(block))
    yield len(messages), 0, before, {}


class Signer:
    """Signs and checks thinking blocks with a secret of this server's."""

    def __init__(self, secret: bytes = b"stand-in") -> None:
        self._secret = secret

    def sign(self, model: str, before: str, thinking: str) -> str:
        payload = json.dumps([model, before, hashlib.sha256(thinking.encode()).hexdigest()]).encode()
        return base64.b64encode(self._mac(payload) + payload).decode()

    def check(self, body: dict[str, Any], messages: list[dict[str, Any]], model: Model) -> list[dict[str, Any]]:
        """Entries of ``input_transformations``; refuses forged blocks, and on bound models edited history."""
        binding = ((body.get("thinking") or {}).get("block_binding") or {}).get("prefix_mismatch_behavior", "error")
        dropped = []
        for i, j, before, block in chain(body, messages):
            path = f"messages.{i}.content.{j}"
            if block.get("type") == "compaction" and (signature := block.get("signature")) is not None:
                self._read({"signature": signature, "thinking": block["content"]}, path)
            if block.get("type") != "thinking":
                continue
            producer, bound_to = self._read(block, path)
            if producer == model.id and bound_to == before:
                continue
            if producer == model.id and model.bound and binding == "error":
                raise Refused(
                    f"{path}: this `thinking` block was created after a different conversation: the content before it "
                    "has changed since. Send the earlier messages, system and tools unchanged."
                )
            if producer != model.id or (model.bound and binding == "drop_block"):
                dropped.append({"type": "thinking_dropped", "message_index": i, "block_index": j})
        return dropped

    def _read(self, block: dict[str, Any], path: str) -> tuple[str, str]:
        try:
            raw = base64.b64decode(block["signature"], validate=True)
            if not hmac.compare_digest(raw[:32], self._mac(raw[32:])):
                raise ValueError("forged")
            producer, before, text = json.loads(raw[32:])
        except ValueError:
            raise Refused(f"{path}: Invalid `signature` in `thinking` block") from None
        if text != hashlib.sha256(block["thinking"].encode()).hexdigest():
            raise Refused(f"{path}: `thinking` blocks in the conversation cannot be modified")
        return str(producer), str(before)

    def _mac(self, payload: bytes) -> bytes:
        return hmac.new(self._secret, payload, hashlib.sha256).digest()
