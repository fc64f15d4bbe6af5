"""schemathesis against the served description: every check, every operation, no surprise.

``CAMBIO_LAB_CASES`` sets the number of generated cases for each operation and phase (default: a quick look);
``python -m tests.api.test_contract 200`` runs the long form and prints how many cases there were.
"""

from __future__ import annotations

import asyncio
import collections
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig

from tests.live_server import LiveServer

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CASES = int(os.environ.get("CAMBIO_LAB_CASES", "6"))
ROOMS = 6
"""Desktops that the server may have at once: beyond that, 503 is the documented answer."""


def prepare(server: LiveServer, ended: str = "") -> list[str]:
    """Ids of a live session, twice, and of one that has ended (a new one unless it is given)."""
    with client_of(server) as client:
        prune(server, "")
        if not ended:
            ended = create(client, "ended")
            client.delete(f"/sessions/{ended}").raise_for_status()
        live = create(client, "live")
        client.put(f"/sessions/{live}/files/notes/hello.txt", content=b"hello").raise_for_status()
    return [live, live, ended]


def client_of(server: LiveServer) -> httpx2.Client:
    """A client without certificates, which take 100 ms to load and are made for each case."""
    return httpx2.Client(base_url=server.url, headers=server.headers, timeout=60, verify=False)


def prune(server: LiveServer, keep: str) -> None:
    """End what generated requests created, also those that a check sent by itself."""
    with client_of(server) as client:
        for row in client.get("/sessions", params={"status": "active"}).json()["sessions"]:
            if row["id"] != keep:
                client.delete(f"/sessions/{row['id']}")


def create(client: httpx2.Client, name: str) -> str:
    """A session; a busy machine may need a moment for its desktop."""
    for _ in range(20):
        response = client.post("/sessions", json={"name": name})
        if response.status_code == 200:
            return str(response.json()["id"])
        assert response.status_code == 503, response.text
        time.sleep(0.5)
    raise AssertionError(f"no desktop within 20 tries: {response.text}")


class Watched:
    """Runs cases of one schema and keeps the live session alive; counts what was answered."""

    def __init__(self, server: LiveServer, coverage: bool) -> None:
        self.server = server
        known = prepare(server)
        self.statuses: collections.Counter[str] = collections.Counter()
        self.calls = 0
        config = SchemathesisConfig.from_dict(
            {
                "headers": server.headers,
                "phases": {"stateful": {"enabled": False}, "coverage": {"enabled": coverage}},
                "checks": {
                    # Which models run where, and what a kind of desktop can do, no schema can say.
                    "positive_data_acceptance": {"expected-statuses": ["2xx", 304, 401, 403, 404, 409, 422, 503]},
                    # Documented: no desktop can be had.
                    "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", 503]},
                },
            }
        )
        served = schemathesis.openapi.from_url(f"{server.url}/cambio/openapi.yaml", config=config)
        self.schema = served.exclude(path="/metrics")  # Jupyter Server's own

        @self.schema.hook
        def map_path_parameters(context: Any, path_parameters: dict[str, Any]) -> dict[str, Any]:
            """Every second id is one that exists."""
            given = (path_parameters or {}).get("session_id")
            if isinstance(given, str) and UUID.fullmatch(given) and sum(given.encode()) % 2:
                path_parameters["session_id"] = known[sum(given.encode()) % len(known)]
            return path_parameters

        @self.schema.hook
        def after_call(context: Any, case: Any, response: Any) -> None:
            self.calls += 1
            self.statuses[f"{response.status_code}"] += 1
            if case.method == "POST":
                prune(server, known[0])
            if case.method == "DELETE" and response.status_code == 200 and "ended_at" in response.json():
                known[:] = prepare(server, ended=response.json()["session_id"])


def run(server: LiveServer, cases: int, *, coverage: bool = True) -> tuple[Watched, list[str]]:
    """The phases of schemathesis' own engine with all checks; what failed, in words.

    ``coverage`` adds a thousand cases, one for each boundary of each field.
    """
    from schemathesis import engine

    watched = Watched(server, coverage)
    watched.schema.config.generation.update(max_examples=cases)
    failures: dict[str, str] = {}
    for event in engine.from_schema(watched.schema).execute():
        if isinstance(event, engine.events.ScenarioFinished):
            for case_checks in event.recorder.checks.values():
                for check in case_checks:
                    if check.failure_info is not None:
                        failure = check.failure_info.failure
                        key = f"{event.label}: {check.name}: {failure.title}"
                        failures.setdefault(key, f"{key}\n{failure.message[:400]}\n{check.failure_info.code_sample}")
        if isinstance(event, engine.events.NonFatalError | engine.events.FatalError):
            failures.setdefault(str(event), str(getattr(event, "info", None) or getattr(event, "exception", event)))
    return watched, list(failures.values())


@pytest.fixture(scope="module")
def contract_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    yield from running(tmp_path_factory.mktemp("contract"))


def running(folder: Path) -> Iterator[LiveServer]:
    with asyncio.Runner() as runner:
        server = LiveServer(data_dir=folder, env={"CAMBIO_LAB_MAX_DESKTOPS": str(ROOMS)})
        runner.run(server.start())
        yield server
        runner.run(server.stop())


def test_the_description_is_true(contract_server: LiveServer) -> None:
    watched, failures = run(contract_server, CASES, coverage=False)
    print(watched.calls, dict(watched.statuses))
    assert not failures, "\n\n".join(failures)
    assert not [status for status in watched.statuses if status.startswith("5") and status != "503"]
    assert watched.calls > 100 and "Traceback" not in contract_server.log()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        for live in running(Path(name)):
            result, wrong = run(live, int(sys.argv[1]))
            print(f"{result.calls} calls: {dict(result.statuses)}; {len(wrong)} failures")
            print("\n\n".join(wrong))
            wrong += ["The log has a traceback."] * ("Traceback" in live.log())
            raise SystemExit(bool(wrong))
