"""What clients ask for, checked: a session's name and ``config``.

The server's settings fill in what a config does not give.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from cambio_lab.agent.models import notice, retired
from cambio_lab.agent.options import AgentOptions
from cambio_lab.agent.tools import parse_policy
from cambio_lab.desktop import Kind
from cambio_lab.desktop.base import Size
from cambio_lab.desktop.provider import DesktopOptions, domains
from cambio_lab.errors import InvalidRequest
from cambio_lab.recording.placeholders import NAME, Mask
from cambio_lab.settings import Settings

from .message import NO_SECRETS, Checked, invalid, listed

MIN_SIDE, MAX_SIDE = 320, 4096
MAX_SECONDS = 10 * 365 * 86_400
MAX_NAME = 200
SHORTEST_SECRET, LONGEST_SECRET, MOST_SECRETS = 4, 1000, 50
_DISPLAY = re.compile(r"([1-9]\d{2,3})x([1-9]\d{2,3})")


def _without_null(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain a null character")
    return text


Text = Annotated[str, Field(max_length=1000), AfterValidator(_without_null)]
LongText = Annotated[str, Field(max_length=100_000), AfterValidator(_without_null)]
Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS)]
Count = Annotated[int, Field(ge=1, le=MAX_SECONDS)]


class Fork(Checked):
    """The step of a recorded run that a session continues from; without it, the conversation goes on elsewhere."""

    run: str
    step: Annotated[int, Field(ge=0)] | None = None


class AllowList(Checked):
    """The hosts that a desktop can reach."""

    allow: list[str]


def Refuses(problem: Callable[[Any], str | None]) -> BeforeValidator:
    """Refuse a value of which ``problem`` says what is wrong; ``None`` is a key that was not given."""

    def check(value: Any) -> Any:
        if value is not None and (words := problem(value)):
            raise ValueError(words)
        return value

    return BeforeValidator(check)


def display_problem(value: Any) -> str | None:
    """Return what is wrong with a display, or ``None``."""
    found = _DISPLAY.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return "must be WIDTHxHEIGHT in pixels, such as 1280x800"
    if not all(MIN_SIDE <= int(side) <= MAX_SIDE for side in found.groups()):
        return f"each side must be between {MIN_SIDE} and {MAX_SIDE} pixels"
    return None


def _approval_problem(value: Any) -> str | None:
    try:
        parse_policy(value)
    except InvalidRequest as error:
        return error.message
    return None


def _network_problem(value: Any) -> str | None:
    if value in ("open", "none"):
        return None
    if not isinstance(value, dict) or set(value) != {"allow"} or not isinstance(value["allow"], list):
        return 'must be open, none or {"allow": [host, ...]}'
    try:
        domains(value["allow"])
    except ValueError as error:
        return str(error)[:300]
    return None


def _fork_problem(value: Any) -> str | None:
    try:
        Fork.model_validate(value)
    except ValidationError:
        return 'must be {"run": a session\'s id or a .cambio file, "step": a number from 0, or none}'
    return None


def check_secrets(value: Any) -> str | None:
    """What is wrong with ``config.secrets``, never quoting a value. A list of names stands for lost values."""
    if isinstance(value, list):
        value = {name if isinstance(name, str) else f"{name!r}!": "x" * SHORTEST_SECRET for name in value}
    if not isinstance(value, dict) or len(value) > MOST_SECRETS:
        return f"must be an object of at most {MOST_SECRETS} names and values"
    if any(not isinstance(name, str) or not re.fullmatch(NAME, name) for name in value):
        return "names must be letters, digits and underscores"
    if any(not isinstance(text, str) or not SHORTEST_SECRET <= len(text) <= LONGEST_SECRET for text in value.values()):
        return f"values must be text of {SHORTEST_SECRET} to {LONGEST_SECRET} characters"
    if any(0xD800 <= ord(character) <= 0xDFFF for text in value.values() for character in text):
        return "values must be valid Unicode"
    return None


def about(description: str, *examples: Any, **schema: Any) -> Any:
    """Describe a field for the API's description; ``schema`` says what functions among its checks accept."""
    if "enum" in schema:
        schema["enum"] = [*schema["enum"], None]
    return Field(
        None, description=description or None, examples=list(examples) or None, json_schema_extra=schema or None
    )


class SessionConfig(Checked):
    """What the creator of a session asked for; ``None`` where the server's setting holds.

    Documented: ``timeout`` (seconds of life) and ``max_messages`` (user messages). The others are ours.
    """

    timeout: Annotated[float, Field(ge=1, le=MAX_SECONDS)] | None = about(
        "Seconds until the session ends by itself.", 3600
    )
    max_messages: Count | None = about("User messages that the session takes.", 100)
    model: Text | None = about("A model of `GET /cambio/models`, or `demo`.", "claude-sonnet-5-5", "demo")
    platform: Text | None = about("Where the model runs.", enum=("anthropic", "aws", "bedrock", "google", "foundry"))
    system: LongText | None = about("Added to the agent's instructions.")
    desktop: Kind | None = about("Kind of desktop; a server may offer one only.")
    display: Annotated[str | None, Refuses(display_problem)] = about(
        "Screen in pixels, each side 320 to 4096.", "1280x800", pattern="^[1-9][0-9]{2,3}x[1-9][0-9]{2,3}$"
    )
    max_steps: Count | None = about("Tool calls in one turn.")
    max_cost_usd: Seconds | None = about("Money the session may spend, in US dollars.")
    max_tokens: Count | None = about("Tokens of one reply of the model.", minimum=1024)
    max_turn_seconds: Seconds | None = about("Wall time of one turn.")
    max_turn_tokens: Annotated[int, Field(ge=0, le=MAX_SECONDS)] | None = about("Tokens of one turn; 0: no limit.")
    task_budget: Count | None = about(
        "Tokens that the model is told it has for a turn (advice, no limit); 0: it is not told."
    )
    idle_timeout: Seconds | None = about("Seconds without a client after which the session ends; 0: never.")
    approval: Annotated[Literal["never", "risky", "always"] | list[str] | None, Refuses(_approval_problem)] = about(
        "Which actions wait for a person's approval: a policy, or a list of members of the toolset."
    )
    approval_timeout: Annotated[float, Field(ge=0.1, le=MAX_SECONDS)] | None = about(
        "Seconds after which no answer is a denial."
    )
    ask_user: bool | None = about("Whether the agent may ask people questions and hand the desktop over to them.")
    ask_timeout: Annotated[float, Field(ge=0.1, le=MAX_SECONDS)] | None = about(
        "Seconds after which the agent goes on without an answer."
    )
    record_human: Literal["actions", "full", "off"] | None = about(
        "What is recorded of people's mouse and keyboard: without the text they type, with it, or nothing."
    )
    network: Annotated[Literal["open", "none"] | AllowList | None, Refuses(_network_problem)] = about(
        "What a container may reach."
    )
    image: Text | None = about("Container image instead of the built-in one.")
    record: Text | None = about("File that the session is recorded to or replayed from.")
    record_mode: Literal["once", "none", "all"] | None = about("`once` replays where the file exists.")
    fork: Annotated[Fork | None, Refuses(_fork_problem)] = about("Continue a recorded run from one of its steps.")
    effort: Text | None = about("", enum=("low", "medium", "high", "xhigh", "max"))
    thinking: Text | None = about("", enum=("", "on", "off", "between_tools"))
    image_format: Text | None = about("Format of screenshots.", enum=("png", "jpeg", "webp"))
    tools: list[str] | None = about(
        "Of computer, browser, bash and editor, and optional members of the browser toolset.", ["browser", "bash"]
    )
    observe: list[Literal["screenshot", "ax"]] | None = about(
        "What is recorded of each step besides what the model is shown: the screen, the page's tree."
    )
    secrets: Annotated[dict[str, str] | list[str] | None, Refuses(check_secrets)] = Field(
        default=None, description="Values by name that the agent never sees.", repr=False
    )
    """See :mod:`.agent`."""

    @classmethod
    def parse(cls, given: Mapping[str, Any] | None) -> SessionConfig:
        """Check every key of ``given``; :class:`InvalidRequest` names all that are unknown or wrong.

        The value of a secret in ``system`` is replaced by its placeholder.
        """
        config = cls.check(given or {}, "config")
        return config.changed(system=config.mask().text(config.system)) if config.system else config

    def changed(self, **values: Any) -> SessionConfig:
        """Return a copy with other ``values``, which the caller has checked."""
        return self.model_copy(update=values)

    def mask(self) -> Mask:
        """Return what takes the values of the secrets out of everything that is said, stored or shown."""
        return Mask(self.secrets)

    def given(self) -> dict[str, Any]:
        """Return the keys that were given, as they are stored and shown; of secrets only the names."""
        found = self.model_dump(exclude_none=True)
        if self.secrets is not None:
            found["secrets"] = sorted(self.secrets)
        return found

    def desktop_options(self, settings: Settings) -> DesktopOptions:
        """Return what the session asks of its desktop."""
        network: Any = settings.network if self.network is None else self.network
        hosts: tuple[str, ...] = ()
        if isinstance(network, AllowList):
            network, hosts = "allow", tuple(network.allow)
        size = parse_display(self.display or settings.display)
        return DesktopOptions(size=size, network=network, allow_hosts=hosts, image=self.image)


def parse_display(text: str) -> Size:
    """Return ``1280x800`` as a size; :class:`InvalidRequest` when it is not one."""
    if problem := display_problem(text):
        raise InvalidRequest(f"display {problem}.", details={"display": problem})
    width, height = text.split("x")
    return Size(int(width), int(height))


def check_name(name: object, mask: Mask = NO_SECRETS) -> str | None:
    """Return a session's name, trimmed and masked; ``None`` stands for one that the server makes up."""
    if name is None:
        return None
    if not isinstance(name, str):
        raise invalid("name", "must be text")
    if len(name) > MAX_NAME:
        raise invalid("name", f"must have at most {MAX_NAME} characters")
    if any(ord(character) < 32 or 0xD800 <= ord(character) <= 0xDFFF for character in name):
        raise invalid("name", "must have no control characters")
    return mask.text(name).strip() or None


def check_creation(
    name: object, given: Mapping[str, Any] | None, settings: Settings
) -> tuple[str | None, SessionConfig, AgentOptions]:
    """Return a new session's name, config and agent options; :class:`InvalidRequest` names all that is wrong."""
    problems: list[InvalidRequest] = []
    config, options = SessionConfig(), None
    try:
        config = SessionConfig.parse(given)
        options = AgentOptions.from_settings(settings, config.given())
        if retired(options.model, options.platform, today := datetime.now(UTC).date()):
            raise invalid("model", f"cannot be used: {notice(options.model, options.platform, today)}")
    except InvalidRequest as error:
        problems.append(error)
    try:
        title = check_name(name, config.mask())
    except InvalidRequest as error:
        problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    if options is None or problems:
        wrong = {field: words for problem in problems for field, words in problem.details.items()}
        hint = " ".join(problem.hint for problem in problems if problem.hint)
        raise InvalidRequest(f"The session is not valid: {listed(wrong)}.", hint=hint, details=wrong)
    return title, config, options
