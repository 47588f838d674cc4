"""Frozen dataclasses to JSON files and back; what a file holds is checked before it is used.

A record may come from a stranger, or from a disk that lost half of it. Its types are those of
the dataclass: :func:`read_record` returns one whose every value has the declared type, or says
which key is wrong.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

#: Largest file that is read as one record; ``run.json`` of ten million photos has 0.5 MB.
MAX_RECORD_BYTES = 64_000_000

#: Metadata of a field that is left out of the file where it is None.
OMIT_NONE = {"omit_none": True}


def as_json(record: object) -> bytes:
    """Write a record, or a mapping of plain values, as people read it."""
    text = json.dumps(to_plain(record), indent=2, ensure_ascii=False)
    return (text + "\n").encode("utf-8", "replace")


def to_plain(value: object) -> Any:
    """Return a record as plain JSON values, its keys in the order of its fields."""
    if is_dataclass(value) and not isinstance(value, type):
        pairs = ((each, getattr(value, each.name)) for each in fields(value))
        return {each.name: to_plain(v) for each, v in pairs if v is not None or not each.metadata}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def parse_json(content: bytes) -> object:
    """Parse a JSON file strictly: no NaN, no endless depth, no file that fills the memory.

    Raises
    ------
    ValueError
    """
    if len(content) > MAX_RECORD_BYTES:
        raise ValueError(f"size={len(content):,} bytes must be at most {MAX_RECORD_BYTES:,}")
    try:
        return json.loads(content, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def read_record(kind: type[T], content: bytes) -> T:
    """Read a record from the bytes of its file; keys that it does not know are ignored.

    Parameters
    ----------
    kind : type
        A dataclass. Its fields are of ``str``, ``bool``, ``int``, ``float``, ``object`` (any
        JSON value), literals, dataclasses, or tuples, mappings and unions of these.
    content : bytes

    Raises
    ------
    ValueError
        If it is no JSON, or a value is missing or has another type; the text names its key.
    """
    return from_plain(kind, parse_json(content))


def from_plain(kind: type[T], values: object) -> T:
    """Read a record from plain JSON values; see :func:`read_record`."""
    try:
        found: T = _read(kind, values, "")
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    return found


@lru_cache(maxsize=256)
def _fields_of(kind: Any) -> tuple[tuple[str, Any, bool], ...]:
    """Return name and type of every field of a dataclass, and whether it must be there."""
    hints = get_type_hints(kind)
    return tuple(
        (each.name, hints[each.name], each.default is each.default_factory is MISSING)
        for each in fields(kind)
        if each.init
    )


def _read(kind: Any, value: object, where: str) -> Any:
    if kind in (object, Any):
        return _read_any(value, where)
    if isinstance(kind, type) and is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Union):
        return _read_union(arguments, value, where)
    if origin is Literal:
        return value if value in arguments else _refuse(where, value, f"one of {arguments}")
    if origin is tuple:
        return _read_tuple(arguments, value, where)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            _refuse(where, value, "an object")
        return {key: _read(arguments[1], v, _below(where, key)) for key, v in value.items()}
    return _read_scalar(kind, value, where)


_NAMES = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


def _read_scalar(kind: Any, value: object, where: str) -> object:
    is_int = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    is_float = isinstance(value, float) and math.isfinite(value)
    if (
        (kind is int and is_int)
        or (kind is float and (is_int or is_float))
        or (kind in (str, bool) and isinstance(value, kind))
    ):
        return value
    return _refuse(where, value, _NAMES[kind])


def _read_union(kinds: tuple[Any, ...], value: object, where: str) -> object:
    if value is None and types.NoneType in kinds:
        return None
    others = [kind for kind in kinds if kind is not types.NoneType]
    for kind in others[:-1]:
        try:
            return _read(kind, value, where)
        except ValueError:
            continue
    return _read(others[-1], value, where)


def _read_tuple(kinds: tuple[Any, ...], value: object, where: str) -> tuple[object, ...]:
    if not isinstance(value, list):
        _refuse(where, value, "a list")
    if kinds[-1] is Ellipsis:
        return tuple(_read(kinds[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if len(value) != len(kinds):
        _refuse(where, value, f"a list of {len(kinds)}")
    pairs = zip(kinds, value, strict=True)
    return tuple(_read(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(pairs))


def _read_dataclass(kind: type[Any], value: object, where: str) -> object:
    if not isinstance(value, dict):
        _refuse(where, value, "an object")
    given = {}
    for name, hint, must in _fields_of(kind):  # type: ignore[arg-type]
        if name in value:
            given[name] = _read(hint, value[name], _below(where, name))
        elif must:
            raise ValueError(f"{_below(where, name)!r} is missing")
    try:
        return kind(**given)
    except ValueError as err:  # a bound that the dataclass checks itself
        raise ValueError(f"{where}: {err}" if where else str(err)) from err


def _read_any(value: object, where: str) -> object:
    """Return any JSON value whose numbers are finite: 1e999 is JSON, and infinite."""
    if isinstance(value, dict):
        return {key: _read_any(item, _below(where, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_read_any(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        _refuse(where, value, "a finite number")
    return value


def _below(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _refuse(where: str, value: object, what: str) -> NoReturn:
    shown = repr(value)
    shown = shown if len(shown) <= 40 else shown[:40] + "..."
    raise ValueError(f"{where or 'the whole of it'}={shown} must be {what}")
