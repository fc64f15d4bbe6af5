"""The settings of a session as its creator gives them; :meth:`.Workbench.create_session` says what each means."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])


class SessionOptions(TypedDict, total=False):
    """What is left out, or ``None``, follows the server's settings."""

    model: str | None
    approval: Literal["never", "risky", "always"] | list[str] | None
    tools: Sequence[str | Callable[..., Any]] | None
    system: str | None
    max_cost_usd: float | None
    max_steps: int | None
    max_messages: int | None
    timeout: float | None
    idle_timeout: float | None
    network: Literal["open", "none"] | dict[str, list[str]] | None
    display: str | None
    desktop: Literal["auto", "docker", "sandbox", "local"] | None
    image: str | None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None
    thinking: Literal["on", "off", "between_tools"] | None
    platform: str | None
    max_tokens: int | None
    max_turn_seconds: float | None
    max_turn_tokens: int | None
    task_budget: int | None
    approval_timeout: float | None
    ask_user: bool | None
    ask_timeout: float | None
    record_human: Literal["actions", "full", "off"] | None
    image_format: Literal["png", "jpeg", "webp"] | None
    observe: list[Literal["screenshot", "ax"]] | None
    secrets: dict[str, str] | list[str] | None
    record: str | Path | None
    record_mode: Literal["once", "none", "all"] | None
    fork: Mapping[str, Any] | None


def spelled_out(method: Method) -> Method:
    """Let ``help()``, completion and checks of arguments see the options of ``method`` as parameters of its own."""
    signature = inspect.signature(method)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
        for name, hint in typing.get_type_hints(SessionOptions).items()
    ]
    vars(method)["__signature__"] = signature.replace(parameters=[*own, *options])
    return method
