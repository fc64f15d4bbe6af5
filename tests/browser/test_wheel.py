"""The built wheel in an empty environment, without Node, apt or checkout: oldest and newest JupyterLab, a hub's URL."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.live_server import LiveServer

from .conftest import RESULTS
from .lab import LIVE, ROOT, command, kernel_ready, notebook, notebook_7, open_lab

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]


def run(*command: str | Path, **options: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=540, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT)
    (found,) = folder.glob("*.whl")
    print(f"{found.name}: {found.stat().st_size / 1e6:.2f} MB")
    return found


HIDDEN = ("node", "npm", "npx", "corepack", "apt", "dpkg")


def bare_programs(folder: Path) -> Path:
    """A directory of programs for ``PATH``: all of the system's but those of Node and apt."""
    folder.mkdir()
    for place in (Path("/usr/bin"), Path("/bin")):
        for program in place.iterdir():
            if not program.name.startswith(HIDDEN) and not (folder / program.name).exists():
                (folder / program.name).symlink_to(program)
    return folder


class InstalledServer(LiveServer):
    """``jupyter lab`` of another environment."""

    python: Path

    def _command_line(self) -> list[str]:
        return [str(self.python), *super()._command_line()[1:]]


@pytest.mark.parametrize("lab", ["newest", "4.4"])
async def test_pip_install_alone_shows_the_sidebar(page: Page, wheel: Path, tmp_path: Path, lab: str) -> None:
    venv = tmp_path / "venv"
    constraints = tmp_path / "constraints.txt"
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    free = ("jupyterlab=", "notebook=") if lab != "newest" else ()
    constraints.write_text("\n".join(line for line in lines if not line.startswith(free)))
    wanted = ["jupyterlab", "notebook"] if lab == "newest" else ["jupyterlab==4.4.*", "notebook==7.4.*"]
    await asyncio.to_thread(run, sys.executable, "-m", "venv", venv)
    pip = (venv / "bin" / "python", "-m", "pip", "install", "-q")
    await asyncio.to_thread(run, *pip, "-c", constraints, f"{wheel}[lab]", *wanted)
    path = f"{venv / 'bin'}:{bare_programs(tmp_path / 'programs')}"
    assert shutil.which("node", path=path) is shutil.which("apt-get", path=path) is None
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(ROOT / "notebooks/01-first-session.ipynb", work)
    environment = {"PATH": path, "HOME": str(tmp_path), "PYTHONPATH": "", "JUPYTER_PATH": "", "VIRTUAL_ENV": ""}
    shown = "--LabApp.expose_app_in_browser=True"
    server = InstalledServer(
        shown, data_dir=tmp_path / "data", command="lab", base_url="/user/ana/", cwd=work, env=environment
    )
    server.python = venv / "bin" / "python"
    await server.start()
    try:
        await page.goto(f"{server.url}/lab?token={server.token}")
        await page.locator('[data-id="cambio-lab-agents"]').click(timeout=60_000)
        await page.locator(".jp-Cambio-agents").get_by_role("button", name="New agent session").first.click()
        await page.locator(".jp-Dialog").get_by_role("button", name="Create").click()
        await page.locator(LIVE).wait_for(timeout=60_000)
        await expect(page.locator(".jp-Cambio-agents .jp-Cambio-agent")).to_have_count(1)
        version = await page.evaluate(
            "() => JSON.parse(document.querySelector('#jupyter-config-data').text).appVersion"
        )
        print(f"JupyterLab {version}, without Node")
        assert lab == "newest" or str(version).startswith("4.4")
        await open_lab(page, server, "tree/01-first-session.ipynb")
        await kernel_ready(page)
        await command(page, "notebook:run-all-cells")
        await page.locator(".jp-OutputArea").filter(has_text="The demo model: Hello!").last.wait_for(timeout=60_000)
        await page.locator(".jp-Cambio-panel").first.scroll_into_view_if_needed()
        await page.locator(LIVE).first.wait_for(timeout=60_000)
        RESULTS.mkdir(exist_ok=True)
        await page.screenshot(path=RESULTS / f"wheel-{lab}.png")
        notebook(
            work / "seven.ipynb",
            "from cambio_lab import Workbench\nlab = Workbench()\nawait lab.session([*await lab.sessions()][0]['id'])",
        )
        await notebook_7(page, server, "seven.ipynb")
        await page.locator(LIVE).wait_for(timeout=60_000)
    finally:
        await server.stop(60)
