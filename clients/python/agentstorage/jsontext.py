"""JSON text and Python values: integers of any size keep their value, other numbers become floats."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
# int() and str() refuse more than 4,300 digits, since their time is quadratic; Decimal has no such limit.
_decode_long = json.JSONDecoder(parse_int=lambda digits: int(Decimal(digits)))


def dump(value: Any, name: str) -> str:
    """Write a value as JSON text.

    Args:
        value: None, a bool, number, text, list, tuple or dict of these, or an object with ``model_dump()``.
        name: What the value is, for the error.

    Raises:
        TypeError: Something in it has no form in JSON.
        ValueError: It holds NaN, an infinity, a lone surrogate, itself, an integer of more than 4,300 digits, or is
            nested too deeply.
    """
    if not isinstance(value, (dict, list, str)) and hasattr(value, "model_dump"):
        value = value.model_dump()
    try:
        text = _encode(value)
        text.encode()
    except TypeError as error:
        raise TypeError(f"{name} is not JSON: {error}") from error
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} is not JSON: it holds a lone surrogate") from error
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{name} is not JSON: it is nested too deeply") from error
    return text


def load(text: str, default: Any) -> Any:
    """Read JSON text; the empty text, which stands for absent, gives ``default``."""
    if not text:
        return default
    try:
        return json.loads(text)
    except ValueError:
        return _decode_long.decode(text)
