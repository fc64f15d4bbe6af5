"""Where each rule of the stand-in comes from. ``python -m tests.messages_api.rules`` writes ``RULES.md``.

A rule with an SDK file quotes it: a test looks for the words in the installed SDK, so a new version of the SDK whose
words have changed fails until the rule was read again. The other rules are from pages of the documentation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = "https://platform.claude.com/docs/en/"
USE = f"{PAGE}agents-and-tools/tool-use/computer-use-tool"
TOOLS = f"{PAGE}agents-and-tools/tool-use/implement-tool-use"
VISION = f"{PAGE}build-with-claude/vision"
ERRORS = f"{PAGE}api/errors"
BUDGETS = f"{PAGE}build-with-claude/task-budgets"
STRUCTURED = f"{PAGE}build-with-claude/structured-outputs"
FORMAT = "beta/beta_json_output_format_param.py"
CREATE = "beta/message_create_params.py"
TOOLSET_ENTRY = "beta/beta_computer_toolset_20260801_param.py"
MEMBERS = "beta/beta_computer_toolset_configs_param.py"
BINDING = "beta/beta_thinking_block_binding_param.py"


@dataclass(frozen=True)
class Rule:
    """``source`` is a file below ``anthropic/types`` (then ``words`` is a quotation) or the address of a page."""

    source: str
    words: str

    @property
    def quoted(self) -> bool:
        return self.source.endswith(".py")


ENTRY = Rule(TOOLSET_ENTRY, "it carries only ``type``, ``configs``, and ``cache_control``")
UNKNOWN = Rule(MEMBERS, "Unknown keys are rejected: the field set is this toolset version's complete member set.")
ORDER = Rule(TOOLS, "Tool results come first in the user message, one for each call, in the calls' order.")
ANSWERED = Rule(TOOLS, "Each tool_use block needs a tool_result block in the next message.")
ECHO = Rule("beta/beta_tool_result_block_param.py", "the toolset family of the paired tool_use.")
FAILED = Rule("beta/beta_tool_result_block_param.py", "is_error: bool")
SIDE = Rule(
    "image_dimensions_too_large_error.py",
    "The longest side of one or more images in the request exceeds the image size limit.",
)
THINKING = Rule(
    CREATE, "Which `type` values are accepted, and what happens when you omit `thinking`, depend on the model."
)
EFFORT = Rule(f"{PAGE}build-with-claude/thinking", "disabled and between_tools are accepted up to effort high.")
FORCED = Rule(
    f"{PAGE}build-with-claude/thinking", "Models that always think between tools refuse a forced tool choice."
)
UNIQUE = Rule(USE, "A request has one entry of a toolset, and no other tool named computer.")
NONEMPTY = Rule(ERRORS, "All messages must have non-empty content; text blocks must contain non-whitespace text.")
PREFILL = Rule(CREATE, "creating a message that ends with a partial `assistant` response returns a 400 error.")

RULES: dict[str, Rule] = {
    "missing result": ANSWERED,
    "missing result, text instead": ANSWERED,
    "extra result": ANSWERED,
    "result twice": ANSWERED,
    "result without a call": ANSWERED,
    "text before the results": ORDER,
    "results misordered": ORDER,
    "toolset_name missing": ECHO,
    "toolset_name wrong": ECHO,
    "toolset_name on another tool": ECHO,
    "error with an image": FAILED,
    "error without content": FAILED,
    "empty assistant message": NONEMPTY,
    "empty text": NONEMPTY,
    "prefill": PREFILL,
    "assistant first": Rule(ERRORS, "The first message must use the user role."),
    "same call twice": Rule(ERRORS, "tool_use ids must be unique."),
    "bad role": Rule(CREATE, "Each input message must be an object with a `role` and `content`."),
    "no base64": Rule("beta/beta_base64_image_source_param.py", 'type: Required[Literal["base64"]]'),
    "not an image": Rule(VISION, "JPEG, PNG, GIF and WebP are supported."),
    "wrong media type": Rule(
        "beta/beta_base64_image_source_param.py", '["image/jpeg", "image/png", "image/gif", "image/webp"]'
    ),
    "oversized in a toolset result": Rule(
        USE, "An image in a toolset's result that exceeds the model's size is an error; it is never scaled down."
    ),
    "image told not to be scaled": Rule(
        "beta/beta_image_transformations_param.py",
        '`"error"` instead rejects the request with a 400 error naming the image\'s dimensions',
    ),
    "21 images, one over 2000": SIDE,
    "over 8000": SIDE,
    "601 images": Rule(VISION, "At most 600 images in a request, 100 on models with a context of 200k tokens."),
    "100,001 messages": Rule(CREATE, "There is a limit of 100,000 messages in a single request."),
    "forged thinking": Rule(
        "beta/beta_thinking_block_param.py",
        "Thinking blocks must be passed back unmodified and in their original order; a modified block results in a 400",
    ),
    "five markers": Rule(f"{PAGE}build-with-claude/prompt-caching", "At most four cache breakpoints in a request."),
    "old tool on a new model": Rule(USE, "Models from 5.5 on reject computer_20251124."),
    "toolset on an old model": Rule(USE, "The toolset is accepted by the models of its table only."),
    "old tool without its header": Rule(USE, "computer_20251124 needs the header computer-use-2025-11-24."),
    "name on the toolset": ENTRY,
    "display on the toolset": ENTRY,
    "unknown member": UNKNOWN,
    "unknown member field": UNKNOWN,
    "uneven defer_loading": Rule(USE, "defer_loading must be equal on every enabled member."),
    "no member left": Rule(USE, "At least one member must be enabled."),
    "two toolsets": UNIQUE,
    "another tool named computer": UNIQUE,
    "a tool whose input is no object": Rule("beta/beta_tool_param.py", 'type: Required[Literal["object"]]'),
    "choice names a member": Rule(USE, "tool_choice cannot name a toolset or a member of one."),
    "forced choice": FORCED,
    "disabled thinking": THINKING,
    "thinking budget": THINKING,
    "budget below 1,024": Rule(
        "beta/beta_thinking_config_enabled_param.py", "Must be ≥1024 and less than `max_tokens`."
    ),
    "between_tools at max": EFFORT,
    "haiku disabled at xhigh": EFFORT,
    "unknown effort": Rule(
        "beta/beta_output_config_param.py", "Valid values are `low`, `medium`, `high`, `xhigh`, or `max`."
    ),
    "format without its type": Rule(FORMAT, 'type: Required[Literal["json_schema"]]'),
    "format without a schema": Rule(FORMAT, "schema: Required[Dict[str, object]]"),
    "format on a model without": Rule(STRUCTURED, "Structured outputs are available from the 4.5 models on."),
    "format beside a prefill": Rule(STRUCTURED, "Message prefilling is incompatible with JSON outputs."),
    "an open object in a format": Rule(STRUCTURED, "additionalProperties must be set to false for objects."),
    "a bound in a format": Rule(
        STRUCTURED, "Numerical and string constraints are not supported; such a schema is answered with a 400."
    ),
    "a long minimum in a format": Rule(STRUCTURED, "minItems is supported with the values 0 and 1 only."),
    "a recursive format": Rule(STRUCTURED, "Recursive schemas are not supported."),
    "budget without its beta": Rule(BUDGETS, "Task budgets need the beta task-budgets-2026-03-13."),
    "budget on a model without": Rule(BUDGETS, "The page lists the models that take a task budget."),
    "budget below its minimum": Rule(BUDGETS, "A task budget has at least 20,000 tokens."),
    "budget of another kind": Rule(
        "beta/beta_token_task_budget_param.py", "The budget type. Currently only 'tokens' is supported."
    ),
    "updates without its beta": Rule(
        f"{PAGE}build-with-claude/thinking", "display updates needs the beta thinking-display-updates-2026-08-18."
    ),
    "context_management without its beta": Rule(
        f"{PAGE}build-with-claude/context-editing", "Context editing needs the beta context-management-2025-06-27."
    ),
    "unknown field": Rule(ERRORS, "Extra inputs are not permitted."),
    "max_tokens beyond the model": Rule(CREATE, "Different models have different maximum values for this parameter."),
    "system message on a model without": Rule(
        f"{PAGE}api/messages", "System messages are accepted by newer models only."
    ),
    "empty summary": Rule("beta/beta_compaction_block_param.py", "Empty string content is not allowed."),
    # Tests of their own, see test_stand_in.py
    "compaction beside context_management": Rule(CREATE, "Cannot be combined with `context_management`."),
    "compaction alone in its reply": Rule(CREATE, "the response holds only the resulting `compaction` block"),
    "changed summary": Rule(
        "beta/beta_compaction_block_param.py", "The block's signature as returned, to be sent back verbatim"
    ),
    "thinking after a changed history": Rule(BINDING, '"error" fails the request with a 400 error.'),
    "thinking dropped when asked": Rule(
        BINDING,
        "removes the failing blocks and the request proceeds; each removal is reported in `input_transformations`.",
    ),
    "clearing below its minimum": Rule(
        "beta/beta_clear_tool_uses_20250919_edit_param.py",
        "Context will only be modified if at least this many tokens can be removed.",
    ),
    "an answer that does not fit its format": Rule(
        STRUCTURED, "The answer matches the schema, except after a refusal or when it is cut at max_tokens."
    ),
    "over 32 MB": Rule(ERRORS, "A request of the Messages API has at most 32 MB."),
}


def plain(text: str) -> str:
    """Return ``text`` with its white space as single spaces, as quotations are compared."""
    return re.sub(r"\s+", " ", text)


def table() -> str:
    """Return the page: a line for each rule."""
    lines = [
        "# Rules of the stand-in",
        "",
        "Made by `python -m tests.messages_api.rules`. Each rule has a test in `test_stand_in.py`; the words of the",
        "SDK are quotations, those of pages are not.",
        "",
        "| The stand-in refuses, or keeps to | Source | Words |",
        "|---|---|---|",
    ]
    for name, rule in RULES.items():
        source = f"`anthropic/types/{rule.source}`" if rule.quoted else rule.source
        words = f'"{rule.words}"' if rule.quoted else rule.words
        lines.append(f"| {name} | {source} | {words.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("RULES.md").write_text(table())
