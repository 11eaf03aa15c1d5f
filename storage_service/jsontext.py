"""JSON as text: what ``jsonb`` takes, and how it gives it back.

The service passes JSON through as text and never builds Python objects of it to store them. :func:`check` refuses, before any backend
is asked, what ``jsonb`` cannot hold; :func:`canonical` writes a text as ``jsonb`` would, so that the memory backend answers what
Postgres answers.
"""

from __future__ import annotations

import gc
import json
import re
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

# What numeric holds: digits before and after the decimal point.
_WHOLE_DIGITS, _FRACTION_DIGITS = 131072, 16383

# What a text may hold: to read many more would keep everybody else waiting.
MOST_VALUES = 1_000_000

type_names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}

# Possessive, and content with a string that never ends: whatever the text, no character is read twice.
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
# How many digits of an exponent, without zeros before it, are too many in any case; and with how many, or with so long a number before
# them, they call for a look.
_LONGEST_EXPONENT, _LONG_EXPONENT, _LONG_MANTISSA = 9, 4, 5000
# The longest text whose canonical form is remembered, and the longest keys, together, whose order is; so many of each.
_SMALL, _MOST_KNOWN = 256, 1024
_orders: dict[tuple[str, ...], tuple[str, ...]] = {}


class InvalidJson(ValueError):
    """The text is not JSON that the service keeps; the message says why and quotes nothing of the text."""


class Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


class _Unusual(Exception):
    """The text holds a number that takes a closer look."""


def _refuse_constant(_: str) -> Any:
    raise InvalidJson("NaN and Infinity are not JSON")


def _sorted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in the order of ``jsonb``: keys by length and bytes, of equal ones the last."""
    found = dict(pairs)
    keys = tuple(found)
    order = _orders.get(keys)
    if order is None:
        order = _order(keys)
        # The same few objects come again and again.
        if len(_orders) < _MOST_KNOWN and sum(map(len, keys)) <= _SMALL:
            _orders[keys] = order
    return found if order == keys else {key: found[key] for key in order}


def _order(keys: tuple[str, ...]) -> tuple[str, ...]:
    encoded = sorted((len(key), key) for key in map(str.encode, keys))
    return tuple(key.decode() for _, key in encoded)


def _short_integer(text: str) -> int:
    if len(text) > _SHORT:
        raise _Unusual
    return int(text)


def _no_number(_: str) -> Any:
    raise _Unusual


def _no_exponent(text: str) -> float:
    if "e" in text or "E" in text:
        raise _Unusual
    return 0.0


# Numbers of so many digits every implementation of JSON reads.
_SHORT: Final = 4000
# What reads a text to keep it, with numbers as they were written; and one with integers alone, ready to be written.
_keeping = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=_refuse_constant)
_keeping_integers = json.JSONDecoder(
    parse_int=_short_integer, parse_float=_no_number, parse_constant=_refuse_constant, object_pairs_hook=_sorted
)
_encoder = json.JSONEncoder(ensure_ascii=False, check_circular=False)
# What checks a text without exponents that is too short for a number with too many digits.
_checking_short = json.JSONDecoder(parse_int=len, parse_float=_no_exponent, parse_constant=_refuse_constant)

# The longest text that is read with the collector of garbage at work: walking the objects of a large text again and again would cost
# more than all the rest.
_COLLECTED: Final = 65536


def _load(text: str, decoder: json.JSONDecoder = _keeping) -> Any:
    is_collecting = len(text) > _COLLECTED and gc.isenabled()
    if is_collecting:
        gc.disable()
    try:
        return decoder.decode(text)
    except (InvalidJson, _Unusual):
        raise
    except RecursionError:
        raise InvalidJson("is nested too deep") from None
    except ValueError:
        raise InvalidJson("is not valid JSON") from None
    finally:
        if is_collecting:
            gc.enable()


def check(text: str, *, max_bytes: int, max_depth: int = 100, kind: type | None = None) -> None:
    """Refuse a text that is not JSON, or that ``jsonb`` could not hold.

    ``kind`` is ``dict`` or ``list`` where only an object or an array will do. A number counts towards ``max_bytes`` (bytes) as it is
    written out without an exponent. Raises :class:`InvalidJson`.
    """
    if len(text) > max_bytes or (len(text) * 4 > max_bytes and len(text.encode()) > max_bytes):
        raise InvalidJson(f"is {len(text.encode())} bytes long, larger than the limit of {max_bytes} bytes")
    opened = text.count("[") + text.count("{")
    if opened + text.count(",") > MOST_VALUES:
        _check_count(_STRING.sub("", text))
    is_deep, has_escapes = opened > max_depth, "\\u" in text
    value = _checked(text, max_bytes - len(text), pairs=is_deep or has_escapes)
    if kind is not None and type(value) is not kind and not (kind is dict and type(value) is _Pairs):
        raise InvalidJson(f"must be a JSON {type_names[kind]}")
    if is_deep:
        _check_depth(value, max_depth)
    if has_escapes:
        _check_escapes(value)


def _checked(text: str, room: int, *, pairs: bool) -> Any:
    """Read a text to find out whether ``jsonb`` holds it, as :func:`_checking` says."""
    if len(text) <= _FRACTION_DIGITS and not pairs:
        try:
            return _load(text, _checking_short)
        except _Unusual:
            # With the rest of it.
            return _load(text, _checking(room, pairs=False))
    return _load(text, _checking(room, pairs=pairs))


class _Pairs(list[tuple[str, Any]]):
    """An object with all of its keys, also those that come again: ``jsonb`` reads what it then leaves out."""


def _checking(room: int, *, pairs: bool) -> json.JSONDecoder:
    """What reads a text to find out whether ``jsonb`` holds it; exponents may stand for ``room`` digits together."""
    left = room

    def integer(text: str) -> int:
        if len(text.lstrip("-")) > _WHOLE_DIGITS:
            raise InvalidJson("holds a number with too many digits")
        return 0

    def real(text: str) -> float:
        nonlocal left
        mantissa, _, exponent = text.lower().partition("e")
        whole, _, fraction = mantissa.partition(".")
        exponent = exponent.lstrip("+-").lstrip("0")
        if (
            len(whole.lstrip("-")) > _WHOLE_DIGITS
            or len(fraction) > _FRACTION_DIGITS
            or len(exponent) > _LONGEST_EXPONENT
        ):
            raise InvalidJson("holds a number with too many digits")
        left -= int(exponent or 0)
        if left < 0:
            raise InvalidJson("is larger than the limit with its numbers written out")
        if exponent and (len(exponent) >= _LONG_EXPONENT or len(mantissa) > _LONG_MANTISSA):
            _check_digits(text)
        return 0.0

    return json.JSONDecoder(
        parse_int=integer,
        parse_float=real,
        parse_constant=_refuse_constant,
        object_pairs_hook=_Pairs if pairs else None,
    )


def _check_digits(number: str) -> None:
    _, digits, exponent = Decimal(number).as_tuple()
    if not isinstance(exponent, int):  # as Infinity and NaN have it
        raise InvalidJson("is not valid JSON")
    whole = len(digits) + exponent if any(digits) else 1
    if whole > _WHOLE_DIGITS or -exponent > _FRACTION_DIGITS:
        raise InvalidJson("holds a number with too many digits")


def _check_count(text: str) -> None:
    """Refuse too many values. The text is without its strings."""
    if text.count("[") + text.count("{") + text.count(",") > MOST_VALUES:
        raise InvalidJson(f"holds more than {MOST_VALUES} values")


def _check_depth(value: Any, max_depth: int) -> None:
    level = [value] if isinstance(value, list) else []
    for _ in range(max_depth):
        level = [child for item in level for child in _children(item) if isinstance(child, list)]
        if not level:
            return
    raise InvalidJson(f"is nested deeper than {max_depth}")


def _children(item: list[Any]) -> list[Any]:
    return [value for _, value in item] if type(item) is _Pairs else item


def _check_escapes(value: Any) -> None:
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            if "\x00" in item:
                raise InvalidJson("holds the character U+0000")
            try:
                item.encode()
            except UnicodeEncodeError:
                raise InvalidJson("holds half of a surrogate pair") from None
        elif isinstance(item, list):
            left.extend(_children(item))
            if type(item) is _Pairs:
                left.extend(key for key, _ in item)


def parse(text: str) -> Any:
    """Read a checked text; numbers come as ``Decimal``, so that ``1`` equals ``1.0`` and no digit is lost."""
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


def canonical(text: str) -> str:
    """Write a checked text as ``jsonb`` prints it: last of equal keys, keys by length and bytes, numbers without exponent."""
    return _canonical_of_small(text) if len(text) <= _SMALL else _canonical(text)


@lru_cache(maxsize=_MOST_KNOWN)
def _canonical_of_small(text: str) -> str:
    return _canonical(text)


def _canonical(text: str) -> str:
    try:
        return _encoder.encode(_load(text, _keeping_integers))
    except _Unusual:
        return _write(_load(text))


def _write(value: Any) -> str:
    if isinstance(value, Number):
        number = Decimal(value)
        return format(abs(number) if number.is_zero() else number, "f")
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{_quote(key)}: {_write(item)}" for key, item in _sorted([*value.items()]).items()) + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(_write, value)) + "]"
    if isinstance(value, str):
        return _quote(value)
    return {True: "true", False: "false", None: "null"}[value]


def _quote(text: str) -> str:
    return _encoder.encode(text)


def equal(left: str, right: str) -> bool:
    """Whether two checked texts are the same JSON."""
    return canonical(left) == canonical(right) or same(parse(left), parse(right))


def same(left: Any, right: Any) -> bool:
    """Whether two values from :func:`parse` are the same JSON."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and bool(left == right)


def contains(left: Any, right: Any) -> bool:
    """``left @> right`` of ``jsonb``, on values from :func:`parse`, for a ``right`` that is an object or an array."""
    if isinstance(right, dict):
        return isinstance(left, dict) and all(key in left and contains(left[key], item) for key, item in right.items())
    if isinstance(right, list):
        return isinstance(left, list) and all(any(contains(mine, item) for mine in left) for item in right)
    return same(left, right)


def merge(text: str, patch: str, remove: tuple[str, ...] = ()) -> str:
    """Set the keys of ``patch`` in the object ``text``, then drop the keys ``remove``; canonical."""
    value = {**_load(text), **_load(patch)}
    return _write({key: item for key, item in value.items() if key not in remove})


def pick(text: str, key: str) -> str:
    """The object ``text`` with only this key, or the empty object when it has none."""
    value = _load(text)
    return _write({key: value[key]}) if key in value else "{}"


def members(text: str, key: str) -> dict[str, str]:
    """The members of the object under a key, each as JSON; none where there is no object."""
    value = _load(text).get(key)
    return {name: _write(item) for name, item in value.items()} if isinstance(value, dict) else {}


def text_at(text: str, *path: str) -> str | None:
    """What lies at a path of keys, as ``#>>`` of ``jsonb`` gives it: a string as it is, None for null and nothing, else JSON."""
    value = _load(text)
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    if value is None or (isinstance(value, str) and not isinstance(value, Number)):
        return value
    return _write(value)


def text_of(text: str) -> str:
    """A canonical text as ``->>`` of ``jsonb`` gives it."""
    return str(json.loads(text)) if text.startswith('"') else text


def count_keys(text: str) -> int:
    """The keys of all objects in a checked text."""
    found, left = 0, [_load(text)]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            found += len(item)
            left.extend(item.values())
        elif isinstance(item, list):
            left.extend(item)
    return found


def single(key: str, text: str) -> str:
    """An object with one key and a string."""
    return json.dumps({key: text}, ensure_ascii=False)
