"""Runs as inspect_ai logs, read by inspect_ai itself and by its viewer."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.async_api import async_playwright, expect

from cambio_lab.reports import Run
from tests.conftest import CHROMIUM, CHROMIUM_FLAGS
from tests.live_server import free_port
from tests.recording.parts import Workshop

from .kinds import KINDS, run_of

inspect_log = pytest.importorskip("inspect_ai.log")
analysis = pytest.importorskip("inspect_ai.analysis")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_run_is_read_back(workshop: Workshop, tmp_path: Path, kind: str) -> None:
    run = await run_of(workshop, kind)
    path = tmp_path / "logs" / "x.eval"
    path.parent.mkdir()
    run.to_inspect(path)
    log = await asyncio.to_thread(inspect_log.read_eval_log, str(path))
    (sample,) = log.samples
    assert log.status == ("error" if kind == "failed" else "success")
    assert (sample.error is not None, sample.limit and sample.limit.type) == (
        kind == "failed",
        "operator" if kind == "stopped" else None,
    )
    assert sample.model_usage[run.model].total_cost == pytest.approx(run.usage.cost_usd)
    assert sample.model_usage[run.model].output_tokens == run.usage.output_tokens
    tools = [event for event in sample.events if event.event == "tool"]
    assert [(e.function, e.arguments) for e in tools] == [(row["action"], row["arguments"]) for row in run.rows]
    assert [e.timestamp.timestamp() for e in tools] == pytest.approx([row["started_at"] for row in run.rows], abs=0.05)
    models = [event for event in sample.events if event.event == "model"]
    replies = sum(event["kind"] == "ModelReplied" for event in run.contents.events)
    assert [event.error is None for event in models] == ([False] if kind == "failed" else [True] * replies)
    assert [len(event.input) for event in models] == sorted(len(event.input) for event in models)
    tables = await asyncio.to_thread(_tables, str(path.parent))
    assert tables["samples"].loc[0, "total_tokens"] == sample.model_usage[run.model].total_tokens
    identities = [message.id for message in sample.messages]
    assert len(set(identities)) == len(identities)
    assert list(tables["messages"]["message_id"]) == identities[: -1 if kind == "stopped" else None], (
        "messages_df leaves out results that no model call has seen"
    )
    assert tables["evals"].loc[0, "task_name"] == run.name and tables["evals"].loc[0, "model"] == run.model
    assert len(tables["events"]) == len(sample.events)


def _tables(folder: str) -> dict[str, Any]:
    names = {name: getattr(analysis, f"{name}_df") for name in ("samples", "messages", "evals", "events")}
    return {name: read(folder, quiet=True) for name, read in names.items()}


async def test_what_people_and_the_shell_did_are_events(workshop: Workshop, tmp_path: Path) -> None:
    run = await run_of(workshop, "desktop")
    run.to_inspect(tmp_path / "x.eval")
    (sample,) = (await asyncio.to_thread(inspect_log.read_eval_log, str(tmp_path / "x.eval"))).samples
    by_kind = {kind: [e for e in sample.events if e.event == kind] for kind in ("approval", "info", "sandbox")}
    assert [event.decision for event in by_kind["approval"]] == ["approve", "reject"]
    assert {event.source for event in by_kind["info"]} >= {"HumanInput", "PolicyChanged"}
    assert [(event.action, event.result, event.output) for event in by_kind["sandbox"]] == [("exec", 3, "shell\n")]
    whole = inspect_log.resolve_sample_attachments(sample, "full")
    shown = [part for message in whole.messages for part in message.content if getattr(part, "type", "") == "image"]
    assert shown and all(part.image.startswith("data:image/png;base64,") for part in shown)


async def test_screenshots_are_kept_once(workshop: Workshop, tmp_path: Path) -> None:
    run = await run_of(workshop, "desktop")
    saved = run.save(tmp_path / "x.cambio").stat().st_size
    run.to_inspect(tmp_path / "x.eval")
    run.to_inspect(tmp_path / "x.json")
    assert (tmp_path / "x.eval").stat().st_size < 1.5 * saved
    assert (tmp_path / "x.json").stat().st_size < 1.8 * saved  # base64
    assert json.loads((tmp_path / "x.json").read_text()) == run.to_inspect()
    run.to_inspect(tmp_path)
    named = [log for log in inspect_log.list_eval_logs(str(tmp_path)) if "_by-hand-and-agent_" in log.name]
    assert [log.task for log in named] == ["by-hand-and-agent"]


@pytest.mark.browser
async def test_inspect_view_shows_a_run(workshop: Workshop, tmp_path: Path) -> None:
    run = await run_of(workshop, "desktop")
    (tmp_path / "logs").mkdir()
    run.to_inspect(tmp_path / "logs")
    port = free_port()
    words = (sys.executable, "-m", "inspect_ai", "view", "--log-dir", str(tmp_path / "logs"), "--port", str(port))
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.DEVNULL)
    try:
        await _answers(f"http://127.0.0.1:{port}/")
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
            page = await browser.new_page(viewport={"width": 1440, "height": 1000})
            await page.goto(f"http://127.0.0.1:{port}/")
            await page.get_by_text(run.name).first.click(timeout=60_000)
            await expect(page.get_by_text("I look.").first).to_be_visible(timeout=60_000)
            image = page.locator('img[src^="data:image/png"]').first
            await expect(image).to_be_visible(timeout=30_000)
            assert await image.evaluate("image => image.naturalWidth") == 1280
            await page.screenshot(path=tmp_path / "inspect-view.png")
            await browser.close()
    finally:
        process.terminate()
        await process.wait()


async def _answers(url: str) -> None:
    async with asyncio.timeout(60), httpx2.AsyncClient() as client:
        while True:
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx2.TransportError:
                await asyncio.sleep(0.1)


async def test_without_the_package_json_is_written(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cambio_lab.errors import ConfigurationError

    run = await run_of(workshop, "failed")
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    run.to_inspect(tmp_path / "x.json")
    with pytest.raises(ConfigurationError, match="need inspect_ai"):
        run.export(tmp_path / "x.eval")
    assert isinstance(run, Run)
