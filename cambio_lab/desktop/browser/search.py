"""Find elements by a description in words, without a model: shared words, weighted."""

from __future__ import annotations

import re
from collections.abc import Sequence

Found = tuple[int, str, str, str, bool]
"""Reference number, role, name, other words, and whether it is interactive."""

_ROLES = {
    "button": {"button"},
    "link": {"link"},
    "field": {"textbox", "searchbox", "spinbutton", "password", "combobox", "date", "time"},
    "input": {"textbox", "searchbox", "spinbutton", "password", "combobox", "date", "time"},
    "box": {"textbox", "searchbox", "checkbox"},
    "bar": {"searchbox", "textbox", "navigation"},
    "search": {"searchbox"},
    "checkbox": {"checkbox"},
    "dropdown": {"combobox", "listbox"},
    "select": {"combobox", "listbox"},
    "menu": {"menuitem", "combobox", "navigation", "list"},
    "radio": {"radio"},
    "heading": {"heading"},
    "title": {"heading"},
    "image": {"image"},
    "icon": {"image", "button"},
    "table": {"table"},
    "tab": {"tab"},
    "slider": {"slider"},
    "password": {"password"},
    "upload": {"file"},
    "date": {"date", "datetime"},
}
_IGNORED = {"a", "an", "the", "of", "for", "to", "in", "on", "with", "and", "or", "that", "element", "page", "all"}


def words(text: str) -> list[str]:
    """Split into lower-case words, also at ``camelCase`` and ``snake_case``."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    return re.findall(r"[^\W_]+", spaced.lower())


def rank(query: str, found: Sequence[Found], most: int) -> list[Found]:
    """Return at most ``most`` of ``found``, best first; those that share no word with ``query`` are left out."""
    asked = [word for word in words(query) if word not in _IGNORED] or words(query)
    scored = [(score, -number, item) for number, item in enumerate(found) if (score := _score(query, asked, item)) > 0]
    scored.sort(key=lambda entry: entry[:2], reverse=True)
    best = scored[0][0] if scored else 0.0
    return [item for score, _, item in scored if score >= 0.3 * best][:most]


def _score(query: str, asked: Sequence[str], item: Found) -> float:
    _, role, name, other, interactive = item
    named, others = words(name), words(other)
    score = 0.0
    for word in asked:
        if word in named:
            score += 3.0
        elif len(word) > 3 and any(one.startswith(word) or word.startswith(one) for one in named if len(one) > 3):
            score += 2.0
        elif word in others:
            score += 1.5
        if role in _ROLES.get(word, ()) or word == role:
            score += 1.5
    if score and name and name.lower() in query.lower():
        score += 2.0
    if score > 1.5 and named:  # a short name that matches says more than a long one
        score += 1.0 / len(named)
    return score + 0.3 if score and interactive else score
