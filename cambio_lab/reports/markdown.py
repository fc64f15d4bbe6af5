"""A run as a Markdown report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..recording import drawing
from ..recording.rows import describe

if TYPE_CHECKING:
    from .run import Run

WIDTH = 960


def markdown(run: Run, path: Path | None = None) -> str:
    """The report; with a ``path`` it is written there, and its pictures into ``<name>_images`` beside it."""
    folder = path.with_name(f"{path.stem}_images") if path is not None else None
    lines = [f"# {_plain(run.name)}", "", *_facts(run), ""]
    scenes = drawing.scenes(run.rows)
    pictures: dict[str, str] = {}
    if folder is not None and path is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for scene in scenes:
            data = run.contents.find(scene.digest) if scene.digest else None
            if data and scene.digest:
                name = f"{scene.index:04d}.jpg"
                (folder / name).write_bytes(drawing.draw(data, scene.steps, WIDTH))
                pictures[scene.digest] = f"{folder.name}/{name}"
    for event in run.contents.events:
        kind = event["kind"]
        if kind == "UserMessage":
            lines += ["## Asked", "", *_quote(event["content"]), ""]
        elif kind == "ModelReplied" and event["text"]:
            lines += [*_quote(event["text"]), ""]
        elif kind == "ToolFinished":
            words = describe(event["tool"], event["arguments"])
            lines += [f"{event['step']}. `{_plain(words)[:300]}` ({event['timing']['total']:.0f} ms)", ""]
            digest = (event.get("image") or {}).get("sha256")
            if digest in pictures:
                lines += [f"   ![after step {event['step']}]({pictures[digest]})", ""]
        elif kind == "TurnFailed":
            lines += ["## Failed", "", *_quote(f"{event['error']} {event['details']}"), ""]
    text = "\n".join(lines)
    if path is not None:
        path.write_text(text, encoding="utf-8")
    return text


def _facts(run: Run) -> list[str]:
    usage = run.usage
    return [
        "| | |",
        "|---|---|",
        f"| Model | {_plain(run.model)} |",
        f"| Steps | {len(run.rows)} |",
        f"| Time | {run.seconds:.1f} s |",
        f"| Tokens in, read from cache, written to cache, out | {usage.input_tokens}, {usage.cache_read_input_tokens}, "
        f"{usage.cache_creation_input_tokens}, {usage.output_tokens} |",
        f"| Cost | ${usage.cost_usd:.4f} |",
    ]


def _plain(words: str) -> str:
    """One line that cannot become markup."""
    return " ".join(words.replace("`", "'").replace("|", "/").replace("<", "‹").replace(">", "›").split())


def _quote(words: str) -> list[str]:
    return [f"> {line.replace('<', '&lt;')}" for line in words.splitlines() or [""]]
