"""A run as one sample of an inspect_ai log: its messages, and its events with their times.

Screenshots are attachments: each is in the sample once, however many messages and events show it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..events import Usage
from ..recording import Json
from ..recording.rows import usage_of
from . import time_text

if TYPE_CHECKING:
    from .run import Run

_STOP_REASONS = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "max_tokens", "refusal": "content_filter"}
_DECISIONS = {"approved": "approve", "denied": "reject", "timeout": "reject", "stopped": "terminate"}
_SANDBOX = {"run_command": "exec", "execute": "exec", "read_file": "read_file", "write_file": "write_file"}
_INFORMATION = frozenset(
    {"HumanInput", "ControlChanged", "PolicyChanged", "Retrying", "ConversationCleared", "HistoryDropped"}
)


def usage_json(usage: Usage) -> Json:
    """Return a ``ModelUsage``."""
    read, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens + read + written,
        "input_tokens_cache_read": read,
        "input_tokens_cache_write": written,
        "reasoning_tokens": usage.thinking_tokens,
        "total_cost": usage.cost_usd,
    }


class Transcript:
    """Messages, events and attachments of one run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.attachments: dict[str, str] = {}
        self.messages: list[Json] = []
        self._functions: dict[str, str] = {}
        self._said: dict[str, int] = {}
        """Index in ``messages`` of the reply that made a call, by the call's id."""
        # A refused request is taken out of the conversation: what was asked is shown all the same.
        asked = [{"role": "user", "content": prompt} for prompt in run.prompts]
        for number, message in enumerate(run.contents.messages or asked):
            self._add(f"{run.id[:8]}-{number}", message)
        self._start = min((event["time"] for event in run.contents.events), default=0.0)
        self.events = sorted(self._events(), key=lambda event: str(event["timestamp"]))

    # Messages

    def _add(self, identity: str, message: Json) -> None:
        content = message["content"]
        blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
        if message["role"] == "assistant":
            said = {"id": identity, "role": "assistant", "content": self._parts(blocks), "source": "generate"}
            calls = [block for block in blocks if block["type"] == "tool_use"]
            if calls:
                said["tool_calls"] = [_call(block["id"], block["name"], block["input"]) for block in calls]
            self._functions |= {call["id"]: call["name"] for call in calls}
            self._said |= {call["id"]: len(self.messages) for call in calls}
            self.messages.append(said)
            return
        results = [block for block in blocks if block["type"] == "tool_result"]
        self.messages += [self._tool_message(identity, block) for block in results]
        if rest := [block for block in blocks if block["type"] != "tool_result"]:
            self.messages.append({"id": identity, "role": "user", "content": self._parts(rest), "source": "input"})

    def _tool_message(self, identity: str, block: Json) -> Json:
        content: Any = block.get("content") or ""
        call = block["tool_use_id"]
        message = {
            "id": f"{identity}-{call}",
            "role": "tool",
            "content": content if isinstance(content, str) else self._parts(content),
            "tool_call_id": call,
            "function": self._functions.get(call, ""),
        }
        if block.get("is_error"):
            words = content if isinstance(content, str) else " ".join(part.get("text") or "" for part in content)
            message["error"] = {"type": "unknown", "message": words}
        return message

    def _parts(self, blocks: list[Json]) -> list[Json]:
        parts: list[Json] = []
        for block in blocks:
            if block["type"] == "text":
                parts.append({"type": "text", "text": block["text"]})
            elif block["type"] == "thinking":
                parts.append({"type": "reasoning", "reasoning": block["thinking"], "signature": block.get("signature")})
            elif block["type"] == "image":
                parts.append(self._image(block["source"]))
        return parts

    def _image(self, source: Json) -> Json:
        if source["type"] == "base64":
            return {"type": "image", "image": f"data:{source['media_type']};base64,{source['data']}"}
        digest = source["sha256"]
        if digest not in self.attachments:
            data = self.run.contents.find(digest)
            if data is None:
                return {"type": "text", "text": "[the screenshot was removed]"}
            self.attachments[digest] = f"data:{source['media_type']};base64,{base64.b64encode(data).decode()}"
        return {"type": "image", "image": f"attachment://{digest}"}

    # Events

    def _event(self, kind: str, time: float, **fields: Any) -> Json:
        start = max(0.0, time - self._start)
        return {"event": kind, "timestamp": time_text(time), "working_start": start, **fields}

    def _events(self) -> Iterator[Json]:
        yield self._event(
            "sample_init", self._start, sample={"input": "\n\n".join(self.run.prompts), "id": self.run.id}
        )
        started: dict[str, float] = {}
        asked: dict[str, Json] = {}
        request: Json | None = None
        for number, event in enumerate(self.run.contents.events):
            kind, time = event["kind"], event["time"]
            if kind == "RequestSent":
                request = event
            elif kind == "ModelReplied":
                request = None
                yield self._model(number, event)
            elif kind == "ToolStarted":
                started[event["tool_use_id"]] = time
            elif kind == "ToolFinished":
                yield self._tool(event, started.get(event["tool_use_id"]) or time)
            elif kind == "ApprovalRequested":
                asked[event["tool_use_id"]] = event
            elif kind == "ApprovalDecided" and event["tool_use_id"] in asked:
                yield self._approval(event, asked[event["tool_use_id"]])
            elif kind in _INFORMATION:
                data = {name: value for name, value in event.items() if name not in ("time", "sequence", "kind")}
                yield self._event("info", time, source=kind, data=data)
            elif kind == "TurnFailed":
                if request is not None:
                    yield self._unanswered(request, event)
                yield self._event("error", time, error=error_json(event))
        for call in self.run.contents.observations:
            if call["method"] in _SANDBOX:
                yield self._sandbox(call)

    def _model(self, number: int, event: Json) -> Json:
        index = self._reply_index(number)
        message = self.messages[index] if index is not None else {"role": "assistant", "content": event["text"]}
        seconds = event["model_ms"] / 1000
        choice = {"message": message, "stop_reason": _STOP_REASONS.get(event["stop_reason"], "unknown")}
        output = {"choices": [choice], "usage": usage_json(usage_of(event["usage"])), "time": seconds}
        return self._call_of_model(index or 0, event["time"] - seconds, event["time"], output)

    def _unanswered(self, request: Json, failure: Json) -> Json:
        message = error_json(failure)["message"]
        call = self._call_of_model(len(self.messages), request["time"], failure["time"], {"error": message})
        return call | {"error": message}

    def _call_of_model(self, seen: int, started: float, ended: float, output: Json) -> Json:
        """Return a model event that was sent the first ``seen`` messages; the log keeps those once."""
        return self._event(
            "model",
            started,
            model=self.run.model,
            input=[],
            input_refs=[[0, seen]] if seen else [],
            tools=[],
            tool_choice="auto",
            config={},
            output={"model": self.run.model, **output},
            completed=time_text(ended),
            working_time=max(0.0, ended - started),
        )

    def _reply_index(self, number: int) -> int | None:
        """Return where in ``messages`` the reply of event ``number`` is; it may have been cleared or summarised."""
        for event in self.run.contents.events[number + 1 :]:
            if event["kind"] in ("ToolStarted", "ToolFinished", "ApprovalRequested"):
                return self._said.get(event["tool_use_id"])
            if event["kind"] in ("ModelReplied", "TurnFinished", "TurnFailed"):
                break
        text = self.run.contents.events[number]["text"]
        replies = [(i, message["content"]) for i, message in enumerate(self.messages) if message["role"] == "assistant"]
        said = {"".join(part.get("text", "") for part in parts): i for i, parts in reversed(replies)}
        return said.get(text) if text else None

    def _tool(self, event: Json, started: float) -> Json:
        result: Any = event["text"]
        if image := event.get("image"):
            text = [{"type": "text", "text": event["text"]}] if event["text"] else []
            result = [*text, self._image({"type": "cambio_picture", **image})]
        failed = {"error": {"type": "unknown", "message": event["text"]}, "failed": True} if event["is_error"] else {}
        return self._event(
            "tool",
            started,
            id=event["tool_use_id"],
            function=event["tool"],
            arguments=event["arguments"],
            result=result,
            completed=time_text(event["time"]),
            working_time=event["timing"]["total"] / 1000,
            **failed,
        )

    def _approval(self, event: Json, request: Json) -> Json:
        return self._event(
            "approval",
            event["time"],
            message=request["shown"],
            call=_call(event["tool_use_id"], request["tool"], request["arguments"]),
            approver=event["by"] or "human",
            decision=_DECISIONS[event["verdict"]],
            explanation=event["verdict"],
        )

    def _sandbox(self, call: Json) -> Json:
        arguments, result = call["arguments"], call.get("result", {})
        action = _SANDBOX[call["method"]]
        command = result.get("command", {})
        fields: Json = {"file": arguments.get("path")}
        if action == "exec":
            fields = {"cmd": str(arguments.get("command", "")), "result": command.get("exit_code")}
            fields["output"] = command.get("stdout", "") + command.get("stderr", "")
        ended = time_text(call["at"] + call["ms"] / 1000)
        return self._event("sandbox", call["at"], action=action, completed=ended, **fields)


def _call(identity: str, name: str, arguments: Json) -> Json:
    return {"id": identity, "function": name, "arguments": arguments, "type": "function"}


def error_json(event: Json) -> Json:
    """Return an ``EvalError`` of a failed turn."""
    return {"message": f"{event['error']} {event['details']}".strip(), "traceback": "", "traceback_ansi": ""}
