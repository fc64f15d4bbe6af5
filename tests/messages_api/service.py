"""From a checked request to a message: signing, ids, usage, money. Knows nothing of HTTP."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import fields, history, images, prompt, structured
from .binding import Signer, chain, digest, strip
from .models import Model, cost_usd
from .policies import Echo, Policy, View
from .refusal import Refused
from .replies import Block, Reply, reply

MAX_REQUEST = 32 * 1024 * 1024


@dataclass
class Answer:
    """A whole message and what its stream ends with."""

    message: dict[str, Any]
    final: dict[str, Any]


@dataclass
class Service:
    """One account of the stand-in: a policy, a prompt cache, a bill."""

    policy: Policy = field(default_factory=Echo)
    key: str = "test-key"
    cache: prompt.PromptCache = field(default_factory=prompt.PromptCache)
    signer: Signer = field(default_factory=Signer)
    measured: images.Measured = field(default_factory=images.Measured)
    spent_usd: float = 0.0
    usages: list[dict[str, Any]] = field(default_factory=list)

    def check(self, body: dict[str, Any], betas: set[str]) -> tuple[Model, list[dict[str, Any]], list[dict[str, Any]]]:
        """Refuse what the service refuses: the model, the live messages, dropped thinking blocks."""
        model = fields.check(body, betas)
        messages = history.live(history.normalise(body["messages"]))
        tools = body.get("tools") or []
        history.check(messages, tools, model)
        images.check(history.normalise(body["messages"]), tools, model, self.measured)
        return model, messages, self.signer.check(body, messages, model)

    def answer(self, body: dict[str, Any], betas: set[str]) -> Answer:
        """The next message of this conversation; :class:`~tests.messages_api.refusal.Refused` as the service would."""
        model, messages, dropped = self.check(body, betas)
        shown, edits = prompt.apply_edits(body, messages, model, self.measured)
        pieces = prompt.pieces(body, shown, model, self.measured)
        total = sum(piece.tokens for piece in pieces)
        if total > model.max_input_tokens:
            raise Refused(f"prompt is too long: {total} tokens > {model.max_input_tokens} maximum")
        iterations: list[dict[str, Any]] = []
        compaction: list[Block] = []
        if body.get("compaction") is not None or edits.compact:
            block, iteration = self._compact(View(body, shown), total)
            if body.get("compaction") is not None:
                block["signature"] = self.signer.sign(model.id, "compaction", block["content"])
            compaction = [block]
            messages = shown = [{"role": "assistant", "content": [block]}]
            iterations.append(iteration)
            pieces = prompt.pieces(body, shown, model, self.measured)
        pause = any(
            edit.get("pause_after_compaction") for edit in (body.get("context_management") or {}).get("edits", ())
        )
        if compaction and (pause or body.get("compaction") is not None):
            given = Reply([], "compaction")
        else:
            given = self.policy(View(copy.deepcopy(body), shown))
        structured.keeps_to(body, given.blocks, given.reason())
        blocks = self._finish(given.blocks, body, messages, model)
        usage = self._usage(pieces, compaction + blocks, given, model, iterations)
        message = {
            "id": "msg_" + digest(strip(messages), len(self.usages))[:24],
            "type": "message",
            "role": "assistant",
            "model": model.id,
            "content": compaction + blocks,
            "stop_reason": given.reason(),
            "stop_sequence": None,
            "usage": usage,
        }
        final: dict[str, Any] = {"stop_reason": given.reason(), "usage": usage, "stop_details": given.stop_details}
        if body.get("context_management") is not None:
            final["context_management"] = {"applied_edits": edits.applied}
        if "thinking-binding-controls-2026-08-01" in betas:
            message["input_transformations"] = dropped
        return Answer(message, final)

    def count(self, body: dict[str, Any], betas: set[str]) -> int:
        """Answer of ``POST /v1/messages/count_tokens``."""
        model, messages, _ = self.check({"max_tokens": 1, **body}, betas)
        return sum(piece.tokens for piece in prompt.pieces(body, messages, model, self.measured))

    @staticmethod
    def _compact(view: View, total: int) -> tuple[Block, dict[str, Any]]:
        summary = view.summarise()
        usage = {
            "type": "compaction",
            "input_tokens": total,
            "output_tokens": prompt.text_tokens(summary) + 200,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        }
        return {"type": "compaction", "content": summary}, usage

    def _finish(
        self, blocks: list[Block], body: dict[str, Any], messages: list[dict[str, Any]], model: Model
    ) -> list[Block]:
        """Ids for calls and signatures for thoughts, over everything before each block."""
        *_, (_, _, before, _) = chain(body, messages)
        result = []
        for index, block in enumerate(blocks):
            block = dict(block)
            if block["type"] == "thinking" and "signature" not in block:
                if ((body.get("thinking") or {}).get("display") or "omitted") == "omitted":
                    block["thinking"] = ""
                block["signature"] = self.signer.sign(model.id, before, block["thinking"])
            elif block["type"] == "tool_use" and "id" not in block:
                block = {"type": "tool_use", "id": f"toolu_{digest(before, index)[:24]}", **block}
            before = digest(before, "assistant", strip(block))
            result.append(block)
        return result

    def _usage(
        self,
        pieces: list[prompt.Piece],
        blocks: list[Block],
        given: Reply,
        model: Model,
        iterations: list[dict[str, Any]],
    ) -> dict[str, Any]:
        thinking = sum(prompt.text_tokens(block["thinking"]) for block in given.blocks if block["type"] == "thinking")
        output = given.output_tokens
        if output is None:
            output = 1 + sum(
                prompt.text_tokens(block.get("text") or json.dumps(block.get("input", "")))
                for block in blocks
                if block["type"] in {"text", "tool_use"}
            )
        usage: dict[str, Any] = {
            **self.cache.charge(pieces, model),
            "output_tokens": output + thinking,
            "output_tokens_details": {"thinking_tokens": thinking},
            "service_tier": "standard",
        }
        if iterations:
            inner = {name: usage[name] for name in usage if name.endswith("input_tokens")}
            usage["iterations"] = [*iterations, {"type": "message", "output_tokens": output + thinking, **inner}]
        self.usages.append(usage)
        self.spent_usd += cost_usd(model, usage)
        return usage


def betas_of(headers: Mapping[str, str]) -> set[str]:
    return {name.strip() for name in headers.get("anthropic-beta", "").split(",") if name.strip()}


def refusal_reply(category: str | None = "cyber") -> Reply:
    """A reply that the service's classifiers stopped."""
    return reply(stop_reason="refusal", stop_details={"type": "refusal", "category": category, "explanation": None})
