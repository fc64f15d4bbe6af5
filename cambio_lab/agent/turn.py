"""What one turn knows while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..events import TurnFailed, TurnFinished
from . import models
from .limits import Limits
from .options import AgentOptions
from .tools.call import Call, Tool


@dataclass
class Turn:
    """From a person's message to the one event that ends it."""

    options: AgentOptions
    info: models.ModelInfo
    limits: Limits
    system: str
    first_step: int
    """How many calls the session had made before this turn."""
    first_message: int
    """Where this turn's own messages begin in the history; a refusal takes them out again."""
    max_tokens: int
    tools: Sequence[Tool] = ()
    definitions: list[dict[str, Any]] = field(default_factory=list)
    done: bool = False
    calls: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """What the agent has said since its last call."""
    partial: list[str] = field(default_factory=list)
    """What has arrived of the reply that is being written."""
    said_before: str = ""
    nudges: int = 0
    cut_replies: int = 0
    folds: int = 0
    stop_reason: str = "end_turn"

    @property
    def step(self) -> int:
        """The number of the latest call, counted over the whole session."""
        return self.first_step + self.limits.steps

    @property
    def text(self) -> str:
        """The final text: everything since the last call."""
        return "".join([*self.said, *self.partial])

    def tool_for(self, call: Call) -> Tool | None:
        return next((tool for tool in self.tools if tool.serves(call)), None)

    def count(self, call: Call, member: str) -> int:
        """Note a call, whether or not it will run; its step number."""
        self.calls.append(member)
        self.limits.steps += 1
        return self.step

    def act(self) -> None:
        """Calls are about to run: what was said before them is no longer the final text."""
        self.said_before = self.text or self.said_before
        self.said.clear()

    def finished(self, *, stopped: bool = False, limit: str | None = None) -> TurnFinished:
        text = self.text
        cut_short = stopped or limit is not None
        return TurnFinished(
            text=text if text or not cut_short else self.said_before,
            tool_calls=list(self.calls),
            processing_time=self.limits.elapsed,
            usage=self.limits.used,
            stopped=stopped,
            limit=limit,
            needs_input=not cut_short and asks(text),
            stop_reason="stopped" if stopped else self.stop_reason,
        )

    def failed(self, error: str, details: str, *, fatal: bool = False, kind: str = "") -> TurnFailed:
        return TurnFailed(
            error=error,
            details=details,
            processing_time=self.limits.elapsed,
            usage=self.limits.used,
            tool_calls=list(self.calls),
            fatal=fatal,
            kind=kind,
        )


ASKING = (
    "let me know",
    "please confirm",
    "please tell me",
    "please provide",
    "please choose",
    "would you like",
    "do you want",
    "should i ",
    "shall i ",
    "could you ",
    "can you confirm",
    "waiting for your",
    "need your ",
    "which one should",
    "how should i",
    "how would you like",
)
COURTESY = ("anything else", "any questions", "if you need", "if you'd like", "if you would like", "if you want")


def asks(text: str) -> bool:
    """Whether a final text leaves the user with a question to answer; a closing courtesy is none."""
    paragraphs = [part for part in text.strip().split("\n\n") if part.strip()]
    if not paragraphs:
        return False
    last = paragraphs[-1].strip().lower().replace("’", "'")
    sentence = last.rstrip("*_`\"') \n").replace("!", ".").rsplit(". ", 1)[-1]
    if any(phrase in sentence for phrase in COURTESY):
        return False
    return sentence.endswith("?") or any(phrase in sentence for phrase in ASKING)
