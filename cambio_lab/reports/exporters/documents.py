"""Files for people: the run file, a page that needs no server, and a Markdown report with its images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from ...recording import drawing, images_of
from ...recording.rows import describe
from ...usage import duration
from . import only

if TYPE_CHECKING:
    from ..run import Run

WIDTH = 960
ASKING = frozenset({"ask_user", "hand_over"})
_MARKUP = re.compile(r"[\\`*_{}\[\]()#+\-.!|~:@$^=]")


class CambioExporter:
    """The run file, which holds everything."""

    summary = "the run file: can be replayed, compared and continued"
    suffixes = (".cambio",)

    def write(self, runs: Sequence[Run], target: Path) -> None:
        only(runs).save(target)


class HtmlExporter:
    """The viewer as a page of its own."""

    summary = "a page with screenshots, actions and transcript; needs no server"
    suffixes = (".html", ".htm")

    def write(self, runs: Sequence[Run], target: Path) -> None:
        only(runs).to_html(target)


class MarkdownExporter:
    """A report for people."""

    summary = "a report; its screenshots lie in a folder beside it"
    suffixes = (".md",)

    def write(self, runs: Sequence[Run], target: Path) -> None:
        markdown(only(runs), target)


def markdown(run: Run, path: Path | None = None) -> str:
    """Return the report; with a ``path`` it is written there, its screenshots into ``<name>_images`` beside it."""
    folder = path.with_name(f"{path.stem}_images") if path is not None else None
    lines = [f"# {escape(run.name)}", "", *_facts(run), ""]
    scenes = drawing.scenes(run.rows)
    images = {scene.digest: _drawn(run, folder, scene, f"{scene.index:04d}") for scene in scenes if scene.digest}
    status = {row["tool_use_id"]: row["status"] for row in run.contents.steps}
    for event in run.contents.events:
        kind = event["kind"]
        if kind in ("UserMessage", "MessageDelivered"):
            title = "## Asked" if kind == "UserMessage" else "## Added during the turn"
            title = "## Told to the agent" if event.get("note") else title
            lines += [title, "", *_quote(event["content"]), ""]
            for image in images_of(event):
                name = f"sent-{image['sha256'][:12]}"
                if address := _drawn(run, folder, drawing.Scene(0, image["sha256"]), name):
                    lines += [f"![sent with the message]({address})", ""]
        elif said := event["text"] if kind == "ModelReplied" else event.get("unfinished"):
            lines += [*_quote(said), ""]
        elif kind == "ToolFinished":
            words = "A person: " if event.get("actor") == "human" else ""
            words += describe(event["tool"], event["arguments"])[:300]
            words += describe("", {}, status.get(event["tool_use_id"], "completed"))
            took = event["timing"]["total"]
            lines += [f"{event['step']}. {escape(words)}{f' ({duration(took)})' if took else ''}", ""]
            if event["tool"] in ASKING:
                lines += [*_quote(event["text"]), ""]
            if address := images.get((event.get("image") or {}).get("sha256", ""), ""):
                lines += [f"   ![after step {event['step']}]({address})", ""]
        elif kind == "TurnFailed":
            lines += ["## Failed", "", *_quote(f"{event['error']} {event['details']}"), ""]
    text = "\n".join(lines)
    if path is not None:
        path.write_text(text, encoding="utf-8")
    return text


def _drawn(run: Run, folder: Path | None, scene: drawing.Scene, name: str) -> str:
    """Write the scene's image into ``folder``; return its address, empty where there is none."""
    data = drawing.draw_scene(scene, run.contents.find, WIDTH) if folder is not None else b""
    if folder is None or not data:
        return ""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jpg").write_bytes(data)
    return quote(f"{folder.name}/{name}.jpg")


def _facts(run: Run) -> list[str]:
    usage = run.usage
    return [
        "| | |",
        "|---|---|",
        f"| Model | {escape(run.model)} |",
        f"| Steps | {len(run.rows)} |",
        f"| Time | {run.seconds:.1f} s |",
        f"| Tokens in, read from cache, written to cache, out | {usage.input_tokens}, {usage.cache_read_input_tokens}, "
        f"{usage.cache_creation_input_tokens}, {usage.output_tokens} |",
        f"| Cost | ${usage.cost_usd:.4f} |",
    ]


def escape(words: str) -> str:
    """Return one line in which nothing is markup: no HTML, link, image, formula, table or heading."""
    text = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    return _MARKUP.sub(r"\\\g<0>", text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def _quote(words: str) -> list[str]:
    return [f"> {escape(line)}" for line in words.splitlines() or [""]]
