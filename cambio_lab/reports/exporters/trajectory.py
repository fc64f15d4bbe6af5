"""A run as plain data for training and analysis: JSON Lines and images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...recording.contents import SUFFIXES, dump
from . import only

if TYPE_CHECKING:
    from ..run import Run


class TrajectoryExporter:
    """JSON Lines for programs."""

    summary = "a folder with trajectory.jsonl, one line a step, and images/"
    suffixes = ()

    def write(self, runs: Sequence[Run], target: Path) -> None:
        trajectory(only(runs), target)


def trajectory(run: Run, directory: Path) -> Path:
    """Write ``trajectory.jsonl`` and ``images/``; the path of the first.

    A line is ``{step, turn, instruction, thought, action: {tool, arguments}, observation: {text, image, status},
    times_ms, tokens, cost_usd}``; ``image`` is a path relative to the file.
    """
    images = directory / "images"
    images.mkdir(parents=True, exist_ok=True)
    for digest, media_type in run.contents.screenshots.items():
        data = run.contents.find(digest)
        if data is not None:
            (images / f"{digest}{SUFFIXES[media_type]}").write_bytes(data)
    prompts = run.prompts
    lines = []
    for row in run.rows:
        digest = row["screenshot"]
        suffix = SUFFIXES.get(run.contents.screenshots.get(digest, ""), "") if digest else ""
        lines.append(
            dump(
                {
                    "step": row["step"],
                    "turn": row["turn"],
                    "instruction": prompts[row["turn"] - 1] if 0 < row["turn"] <= len(prompts) else "",
                    "thought": row["said"],
                    "action": {"tool": row["action"], "arguments": row["arguments"]},
                    "observation": {
                        "text": row["text"],
                        "image": f"images/{digest}{suffix}" if suffix else None,
                        "status": row["status"],
                    },
                    "times_ms": {name: row[f"{name}_ms"] for name in ("model", "action", "settle", "encode", "total")},
                    "tokens": {
                        name: row[f"{name}_tokens"]
                        for name in ("input", "output", "cache_read", "cache_write", "thinking")
                    },
                    "cost_usd": row["cost_usd"],
                }
            )
        )
    path = directory / "trajectory.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
