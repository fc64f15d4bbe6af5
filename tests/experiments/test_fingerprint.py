"""A task's fingerprint: the same in every process, different for every change of what is asked."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from cambio_lab import Task, Verdict
from cambio_lab.experiments.task import comparable, fingerprint

PROGRAM = """
from cambio_lab import Task
WORDS = frozenset({"one", "two", "three"})
def helper(text): return text in {"x", "y", "z"}
def make(expected):
    def check(live, *, also={"a": {1, 2}}):
        return live.read("f") in {"apple", "pear", "plum"} and helper(expected) and expected in WORDS
    return check
print(Task("t", "m", check=make({"p", "q", "r"}), config={"network": "none"}).digest())
"""


def test_digest_is_the_same_for_every_hash_seed() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in range(8)
    }
    assert len(digests) == 1


def _closure(expected: Any) -> Callable[[Any], bool]:
    return lambda live: bool(live.read("f") == expected)


def _default(expected: Any) -> Callable[..., bool]:
    def check(live: Any, wanted: Any = expected, *, also: Any = expected) -> bool:
        return bool(live.read("f") == wanted == also)

    return check


class _Callable:
    def __init__(self, expected: Any) -> None:
        self.expected = expected

    def __call__(self, live: Any) -> bool:
        return bool(live.read("f") == self.expected)

    def method(self, live: Any) -> bool:
        return self(live)


@dataclass(frozen=True)
class _Data:
    expected: Any

    def __call__(self, live: Any) -> bool:
        return bool(live.read("f") == self.expected)


MAKERS: list[Callable[[Any], Callable[..., Any]]] = [
    _closure,
    _default,
    _Callable,
    _Data,
    lambda value: _Callable(value).method,
    lambda value: functools.partial(_closure(1), value),
    lambda value: functools.partial(_default(1), wanted=value),
    lambda value: _closure(_closure(value)),
]


@pytest.mark.parametrize("make", MAKERS)
def test_digest_follows_what_a_check_compares_with(make: Callable[[Any], Callable[..., Any]]) -> None:
    def digest(value: Any) -> str:
        return Task("t", "m", check=make(value)).digest()

    values: list[Any] = [1, 1.0, True, "1", b"1", (1,), [1], {1}, {1: 2}, {2: 1}, None, {"a": {"b": [2]}}]
    assert len({digest(value) for value in values}) == len(values)
    assert [digest(value) for value in values] == [digest(value) for value in values]


def test_digest_follows_functions_and_constants_of_the_same_module() -> None:
    def digest(text: str) -> str:
        names: dict[str, Any] = {"__name__": "a_notebook"}
        exec(text, names)
        return Task("t", "m", check=names["check"]).digest()

    base = "LIMIT = 3\ndef helper(x): return x > LIMIT\ndef check(live): return helper(live.steps)\n"
    assert digest(base) == digest("# a comment\n" + base)
    assert digest(base) != digest(base.replace("LIMIT = 3", "LIMIT = 4"))
    assert digest(base) != digest(base.replace("x > LIMIT", "x < LIMIT"))


def test_digest_does_not_follow_a_value_that_the_check_itself_changes() -> None:
    seen: list[int] = []
    task = Task("t", "m", check=lambda live: seen.append(1))
    before = task.digest()
    seen.append(2)
    assert task.digest() == before


def test_objects_that_contain_themselves_end() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert fingerprint(loop) == fingerprint(loop)


def test_fingerprints_of_an_older_version_are_not_compared() -> None:
    assert not comparable("0123456789abcdef", fingerprint(1))
    assert comparable(fingerprint(1), fingerprint(2))


def test_verdict_is_public() -> None:
    assert Verdict(True, 1.0).success
