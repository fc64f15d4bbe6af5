"""The tools that every session has, for its model's version of the computer tool."""

from __future__ import annotations

from collections.abc import Callable

from ...desktop.base import Desktop
from ..client import ToolsetParts
from ..gate import Gate
from ..models import TOOLSET, ModelInfo
from ..options import AgentOptions
from .bash import BashTool
from .call import Tool
from .computer import ComputerTool
from .editor import EditorTool
from .legacy_computer import LegacyComputerTool


def make_tools(
    info: ModelInfo, options: AgentOptions, desktop: Callable[[], Desktop], gate: Gate, parts: ToolsetParts
) -> list[Tool]:
    """Computer, shell and editor. ``desktop`` is asked at each call: it may be had back after a restart."""
    computer: Tool
    if info.tool == TOOLSET:
        computer = ComputerTool(desktop, gate.admitted, parts)
    else:
        computer = LegacyComputerTool(desktop, gate.admitted, info.tool)
    bash = BashTool(desktop, timeout=options.shell_timeout, limit=options.shell_output)
    return [computer, bash, EditorTool(desktop, limit=options.shell_output)]
