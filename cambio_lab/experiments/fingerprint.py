"""A fingerprint of Python values and functions that is equal in every process that builds the same ones.

``repr`` and pickles are not enough: the order of a set follows the process's hash seed, and the default ``repr`` of an
object holds its address.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import types
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

VERSION = "2"
"""Changes with this module: fingerprints of different versions are not comparable."""
PLAIN = (type(None), bool, int, float, complex, str, bytes)


def fingerprint(value: object) -> str:
    """Return 16 hexadecimal digits after the version, such as ``2-0123456789abcdef``."""
    digest = hashlib.sha256("\0".join(_describe(value, ())).encode("utf-8", "surrogatepass"))
    return f"{VERSION}-{digest.hexdigest()[:16]}"


def comparable(first: str, second: str) -> bool:
    """Return whether both fingerprints were made by the same version of this module."""
    return first.partition("-")[0] == second.partition("-")[0]


def _describe(value: Any, outer: tuple[int, ...]) -> Iterator[str]:
    """Yield ``value`` piece by piece; ``outer`` holds the ids of the objects that contain it."""
    yield type(value).__qualname__
    if isinstance(value, PLAIN):
        yield repr(value)
    elif id(value) in outer:
        yield f"cycle {len(outer) - outer.index(id(value))}"
    else:
        yield from _parts(value, (*outer, id(value)))


def _parts(value: Any, outer: tuple[int, ...]) -> Iterator[str]:
    if isinstance(value, types.FunctionType):
        yield from _function(value, outer)
    elif isinstance(value, types.CodeType):
        yield from _code(value, outer)
    elif isinstance(value, functools.partial):
        yield from _each((value.func, value.args, value.keywords), outer)
    elif isinstance(value, types.MethodType):
        yield from _each((value.__func__, value.__self__), outer)
    elif isinstance(value, Set):
        yield from sorted("\0".join(_describe(item, outer)) for item in value)
    elif isinstance(value, Mapping):
        yield from sorted("\0".join(_each(pair, outer)) for pair in value.items())
    elif isinstance(value, Sequence):
        yield from _each(value, outer)
    elif isinstance(value, type):
        yield from _class(value, outer)
    elif isinstance(value, types.ModuleType | types.BuiltinFunctionType):
        yield value.__name__
    else:
        yield from _class(type(value), outer)
        yield from _each((_state(value),), outer)


def _each(values: Any, outer: tuple[int, ...]) -> Iterator[str]:
    for value in values:
        yield from _describe(value, outer)


def _function(function: types.FunctionType, outer: tuple[int, ...]) -> Iterator[str]:
    yield from _code(function.__code__, outer)
    yield from _each((function.__defaults__, function.__kwdefaults__), outer)
    for cell in function.__closure__ or ():
        try:
            yield from _describe(cell.cell_contents, outer)
        except ValueError:
            yield "empty cell"
    for name in sorted(_names(function.__code__)):
        used = function.__globals__.get(name)
        own = isinstance(used, types.FunctionType | type) and used.__module__ == function.__module__
        if own or (isinstance(used, (*PLAIN, tuple, frozenset)) and used is not None):
            yield name
            yield from _describe(used, outer)


def _names(code: types.CodeType) -> set[str]:
    """Return the global names of a function and of the functions that it defines."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found


def _code(code: types.CodeType, outer: tuple[int, ...]) -> Iterator[str]:
    """Describe what the code does; its name, file and lines are left out."""
    yield code.co_code.hex()
    yield from _each((code.co_names, code.co_varnames, code.co_consts), outer)


def _class(kind: type, outer: tuple[int, ...]) -> Iterator[str]:
    yield f"{kind.__module__}.{kind.__qualname__}"
    for name, member in sorted(vars(kind).items()):
        if isinstance(member, types.FunctionType | staticmethod | classmethod | property):
            inner = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
            yield name
            if isinstance(inner, types.FunctionType):
                yield from _describe(inner, outer)


def _state(value: object) -> object:
    """Return the fields of a dataclass, or of an object that is itself the check; other objects count by their class.

    A captured object (a client, a lock) may hold ports, times and connections, which differ in every process.
    """
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return dict(vars(value)) if callable(value) and hasattr(value, "__dict__") else None
