"""How the values of a ``data`` dict become fields of a request, and how a filter does."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message

from agentstorage import jsontext
from agentstorage.v1 import common_pb2

#: Writes a value that is not None into the field of this name.
Writer = Callable[[Message, str, Any], None]
#: Puts a filter into a search or count request; false when it can't say exactly that.
Pusher = Callable[[Any, Any], bool]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ID_BYTES = 255
# How alike two keys are, from 0 to 1, when one is taken for the other misspelt.
_NEAR = 0.9


def fill(request: Message, data: Mapping[str, Any], writers: Mapping[str, Writer], owner_id: str | None) -> None:
    """Write the known keys of ``data`` and the owner. Unknown keys, and keys whose value is None, are left out.

    ValueError for a key that is a known one misspelt; the others may be a whole request that a runtime hands on.
    """
    for name in checked_dict(data, "data").keys() - writers.keys():
        if meant := _meant(str(name), tuple(writers)):
            raise ValueError(f"data has the key {name!r}; did you mean {meant!r}?")
    if owner_id is not None:
        request.owner_id = owner_id  # type: ignore[attr-defined]  # every request that data fills has an owner
    for name, write in writers.items():
        value = data.get(name)
        if value is not None:
            write(request, name, value)


@functools.lru_cache(maxsize=1024)
def _meant(name: str, known: tuple[str, ...]) -> str:
    """Return the known key that this one nearly is, also but for upper case and underscores; ``""`` for none."""
    plain = {key.replace("_", ""): key for key in known}
    near = difflib.get_close_matches(name.replace("_", "").lower(), plain, n=1, cutoff=_NEAR)
    return plain[near[0]] if near else ""


def checked_dict(value: Any, name: str) -> Mapping[str, Any]:
    """Return a dict; TypeError naming the argument when it is none."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict, not {type(value).__name__}")
    return value


def checked_text(value: Any, name: str) -> str:
    """Return a text; TypeError naming the argument when it is none."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    return value


def checked_count(value: Any, name: str) -> int:
    """Return an integer; TypeError naming the argument when it is none."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    return value


def text(request: Message, name: str, value: Any) -> None:
    """Write a text."""
    setattr(request, name, checked_text(value, name))


def flag(request: Message, name: str, value: Any) -> None:
    """Write a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, not {type(value).__name__}")
    setattr(request, name, value)


def json_value(request: Message, name: str, value: Any) -> None:
    """Write any JSON value."""
    setattr(request, name, jsontext.dump(value, name))


def json_object(request: Message, name: str, value: Any) -> None:
    """Write a JSON object: a dict, or an object with ``model_dump()``."""
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    setattr(request, name, jsontext.dump(dict(checked_dict(value, name)), name))


def json_array(request: Message, name: str, value: Any) -> None:
    """Write a JSON array."""
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name} must be a list, not {type(value).__name__}")
    setattr(request, name, jsontext.dump(value, name))


def texts(request: Message, name: str, value: Any) -> None:
    """Write a list of texts."""
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name} must be a list of str, not {type(value).__name__}")
    getattr(request, name).extend(checked_text(entry, name) for entry in value)


def time(request: Message, name: str, value: Any) -> None:
    """Write a time: a datetime, or ISO-8601 text; without a zone it is in UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{name} is not an ISO-8601 time") from None
    if not isinstance(value, datetime):
        raise TypeError(f"{name} must be a datetime or ISO-8601 text, not {type(value).__name__}")
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    getattr(request, name).FromDatetime(value.astimezone(UTC))


def word(words: Mapping[int, str]) -> Writer:
    """Return a writer of an enum that is given as its lower-case word."""
    numbers = _numbers(words)

    def write(request: Message, name: str, value: Any) -> None:
        setattr(request, name, number_of(numbers, name, value))

    return write


def number_of(numbers: Mapping[str, int], name: str, value: Any) -> int:
    """Return the number of an enum's word; ValueError naming the argument and the words for any other."""
    number = numbers.get(checked_text(value, name))
    if number is None:
        raise ValueError(f"{name} must be one of {', '.join(numbers)}, not {value!r}")
    return number


def _numbers(words: Mapping[int, str]) -> dict[str, int]:
    return {name: number for number, name in words.items() if number}


if_exists = word({common_pb2.IF_EXISTS_RAISE: "raise", common_pb2.IF_EXISTS_DO_NOTHING: "do_nothing"})


def is_id(value: Any) -> bool:
    """Whether a value can be an id at all, as the service defines it."""
    if not isinstance(value, str) or not value or _CONTROL.search(value):
        return False
    try:
        return len(value.encode()) <= _ID_BYTES
    except UnicodeEncodeError:
        return False


def push_id(field: str) -> Pusher:
    """Return what pushes an id into a field."""

    def push(request: Any, value: Any) -> bool:
        if not is_id(value):
            return False
        setattr(request, field, value)
        return True

    return push


def push_one(field: str) -> Pusher:
    """Return what pushes an id into a list of ids."""

    def push(request: Any, value: Any) -> bool:
        if not is_id(value):
            return False
        getattr(request, field).append(value)
        return True

    return push


def push_word(field: str, words: Mapping[int, str]) -> Pusher:
    """Return what pushes the word of an enum into a list of its numbers."""
    numbers = _numbers(words)

    def push(request: Any, value: Any) -> bool:
        number = numbers.get(value) if isinstance(value, str) else None
        if number is None:
            return False
        getattr(request, field).append(number)
        return True

    return push


def push_flag(field: str) -> Pusher:
    """Return what pushes a bool into a field."""

    def push(request: Any, value: Any) -> bool:
        if not isinstance(value, bool):
            return False
        setattr(request, field, value)
        return True

    return push


def equal(value: Any, wanted: Any, name: str) -> bool:
    """Whether an attribute equals what a filter wants. In metadata the stamped owner counts only if it is named."""
    if isinstance(value, bool) is not isinstance(wanted, bool):
        return False
    if name == "metadata" and isinstance(wanted, Mapping) and "owner" not in wanted:
        value = {key: entry for key, entry in value.items() if key != "owner"}
    return bool(value == wanted)
