"""Every setting once: name, default, meaning.

Each is settable as ``c.CambioLab.<name>`` in a Jupyter configuration file, ``--CambioLab.<name>=...`` on a command line
and ``CAMBIO_LAB_<NAME>`` in the environment. :func:`resolve` is the one place that says which is stronger, for the
server, every command and experiments. ``docs/settings.md`` is checked against this table.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .errors import ConfigurationError, StoreUnavailable


def _setting(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Settings:
    """The whole configuration of one server. Times are seconds, sizes bytes unless the name says otherwise."""

    # Model
    model: str = _setting("claude-sonnet-5-5", "Model of a session that names none; `demo` needs no key.")
    platform: str = _setting("anthropic", "Where the model runs: anthropic, aws, bedrock, google, foundry.")
    base_url: str = _setting("", "Messages API address; empty: the SDK's own (or ANTHROPIC_BASE_URL).")
    effort: str = _setting("medium", "Default effort: low, medium, high, xhigh, max.")
    max_tokens: int = _setting(16_000, "Largest reply of the model in tokens, thinking included.")
    model_retries: int = _setting(8, "Attempts after the first before a turn fails with the service's error.")
    model_stall: float = _setting(120.0, "Seconds without a byte of a reply before it is dropped and asked again.")
    # Limits of a session
    max_steps: int = _setting(200, "Tool calls in one turn.")
    max_cost_usd: float = _setting(10.0, "Money one session may spend.")
    max_turn_seconds: float = _setting(3600.0, "Wall time of one turn.")
    max_turn_tokens: int = _setting(0, "Tokens (input and output) of one turn; 0: no limit.")
    task_budget: int = _setting(0, "Tokens that the model is told it has for a turn, at least 20000; 0: not told.")
    session_timeout: float = _setting(4 * 3600.0, "Life of a session that names no `timeout`; 0: no limit.")
    idle_timeout: float = _setting(0.0, "A session without message, viewer or socket for this long ends; 0: never.")
    approval: str = _setting("never", "Default approval policy: never, risky, always.")
    approval_timeout: float = _setting(300.0, "No answer within this many seconds is a denial.")
    ask_user: bool = _setting(False, "Let the agent ask people questions and hand the desktop over to them.")
    ask_timeout: float = _setting(900.0, "Seconds that the agent waits for an answer before it goes on without.")
    # Desktops
    desktop: str = _setting(
        "auto", "docker, sandbox, local (not isolated), or auto: Docker if an engine answers, else sandbox."
    )
    display: str = _setting("1280x800", "Screen size in pixels.")
    image: str = _setting("cambio-lab-desktop", "The image's name, without tag; with a slash it is pulled first.")
    dockerfile: str = _setting("", "A Dockerfile (`ARG BASE`, `FROM $BASE`) that extends the desktop's image.")
    sandbox_rootfs: bool = _setting(
        True, "Run sandboxes on the image's files where `cambio-lab image build --rootfs` has unpacked them."
    )
    pool_size: int = _setting(1, "Desktops kept ready.")
    max_desktops: int = _setting(32, "Desktops at once; one more is refused with 503.")
    network: str = _setting("open", "Default network of a desktop: open or none.")
    desktop_memory: int = _setting(2 * 1024**3, "Memory limit of a desktop.")
    desktop_cpus: float = _setting(2.0, "CPU limit of a container.")
    desktop_pids: int = _setting(512, "Process limit of a desktop.")
    desktop_tmp: int = _setting(512 * 1024**2, "Size limit of a desktop's home, /tmp and /dev/shm, each.")
    image_format: str = _setting("png", "Screenshots: png, jpeg or webp.")
    settle_quiet: float = _setting(0.08, "Seconds without damage that count as settled.")
    settle_cap: float = _setting(2.0, "Longest wait for the screen to settle.")
    primary_paste: bool = _setting(False, "Let the agent's middle click paste the selected text.")
    shell_timeout: float = _setting(120.0, "Time limit of one shell command of the agent.")
    shell_output: int = _setting(30_000, "Characters of shell output that the model sees.")
    max_file_bytes: int = _setting(256 * 1024**2, "Largest file sent to or from a desktop.")
    # Server
    data_dir: str = _setting("", "Database, screenshots; empty: `cambio_lab` in Jupyter's data directory.")
    redis_url: str = _setting("", "Share the rate limits through this Redis; empty: in memory.")
    rate_general: str = _setting("100/minute", "Requests per client address; empty: no limit.")
    rate_create: str = _setting("10/minute", "Session creations per client address; empty: no limit.")
    rate_websocket: str = _setting("5/minute", "Connections to /ws per client address; empty: no limit.")
    rate_refused: str = _setting(
        "300/minute", "Requests without a valid token or from a page elsewhere; empty: no limit."
    )
    webhook_url: str = _setting(
        "", 'Told by POST of `{"text": ...}` (as Slack takes it) when an agent waits for a person; empty: nothing.'
    )
    heartbeat: float = _setting(30.0, "Seconds between heartbeats on /ws.")
    keep_sessions: bool = _setting(
        True, "Keep sessions when the server stops, to go on at its next start, where their desktop can outlive it."
    )
    max_body: int = _setting(1024 * 1024, "Largest JSON body of a request.")
    queue_bytes: int = _setting(1024**2, "Events waiting for one slow reader before it must resynchronise.")
    # Records
    record: str = _setting("", "Default recording mode of bound sessions: once, none, all.")
    record_human: str = _setting(
        "actions", "What is recorded of people's mouse and keyboard: actions (no typed text), full, off."
    )
    max_record_mb: float = _setting(1000.0, "Megabytes recorded of one session; its turn ends there. 0: no limit.")
    max_records_mb: float = _setting(
        20_000.0, "Megabytes of all records; the oldest ended runs that are not pinned are removed first. 0: no limit."
    )
    runs_max_age_days: float = _setting(0.0, "`runs prune` removes older ones; 0: keep.")
    runs_max_bytes: int = _setting(0, "`runs prune` removes the oldest beyond this much disk; 0: keep.")


SECTION = "CambioLab"
FILES = ("jupyter_cambio_lab_config", "jupyter_server_config")
"""Jupyter's configuration files that the server reads, the strongest last."""


def resolve(flags: Mapping[str, Any] | None = None, configured: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings: defaults, Jupyter's files, environment, command line (``flags``), the strongest last.

    ``configured`` is what the files say where they have been read already. Raises :class:`ConfigurationError` naming
    the setting when a value is of the wrong type.
    """
    try:
        found = _from_files() if configured is None else configured
        return Settings(**{**found, **read_environment(), **(flags or {})})
    except ValueError as error:
        raise ConfigurationError(f"{error}.") from None


def read_flags(arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The settings among ``arguments`` (``--CambioLab.model=demo``), and the arguments that are none."""
    kinds = {f"--{SECTION}.{item.name}": (item.name, type(item.default)) for item in fields(Settings)}
    found: dict[str, Any] = {}
    rest = []
    for argument in arguments:
        option, equals, text = argument.partition("=")
        if equals and option in kinds:
            name, kind = kinds[option]
            found[name] = convert(option, text, kind)
        else:
            rest.append(argument)
    return found, rest


def data_directory(settings: Settings) -> Path:
    """Where the database and the screenshots are."""
    from jupyter_core.paths import jupyter_data_dir

    return Path(settings.data_dir or Path(jupyter_data_dir()) / "cambio_lab")


def _from_files() -> dict[str, Any]:
    from jupyter_core.application import JupyterApp

    app = JupyterApp()
    for name in FILES:
        app.config_file_name = name
        app.load_config_file()
    section = app.config.get(SECTION, {})
    return {
        item.name: _checked(item.name, section[item.name], type(item.default))
        for item in fields(Settings)
        if item.name in section
    }


def _checked(name: str, value: Any, kind: type) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"c.{SECTION}.{name} is {value!r}: set it to a {kind.__name__}")
    return value


def read_environment() -> dict[str, Any]:
    """The settings that ``CAMBIO_LAB_<NAME>`` variables give, converted to their types.

    Raises ``ValueError`` naming the variable when a value does not convert.
    """
    variables = [(f"CAMBIO_LAB_{item.name.upper()}", item.name, type(item.default)) for item in fields(Settings)]
    return {name: convert(key, os.environ[key], kind) for key, name, kind in variables if key in os.environ}


def convert(name: str, text: str, kind: type) -> Any:
    """``text`` as a ``bool``, ``int``, ``float`` or ``str``; ``name`` is for the error."""
    if kind is bool:
        if text.lower() in {"1", "true", "yes", "on"}:
            return True
        if text.lower() in {"0", "false", "no", "off", ""}:
            return False
        raise ValueError(f"{name} is {text!r}: set it to true or false")
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}: set it to a {kind.__name__}") from None


def identity(directory: Path) -> str:
    """Return the id of the server whose data directory this is, the same at each start.

    A copy of the directory has the same id: start a server on one of the two only, or delete ``server-id`` in the
    copy. Raises :class:`StoreUnavailable` when the disk does not take it.
    """
    path = directory / "server-id"
    try:
        found = path.read_text().strip() if path.exists() else ""
        if not found:
            found = uuid.uuid4().hex
            new = path.with_name(f"{path.name}.new")  # whole or not at all: a killed server must leave no empty id
            new.write_text(found)
            new.replace(path)
    except OSError as error:
        raise StoreUnavailable("The data directory cannot be written to.", hint=f"Its disk says: {error}.") from error
    return found
