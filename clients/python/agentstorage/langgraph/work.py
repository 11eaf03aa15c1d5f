"""Where values are made bytes and read again: small ones in the event loop, large ones beside it."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

T = TypeVar("T")

#: Values of more bytes are large.
LARGE: Final = 65536
_TEXTS: Final = frozenset({str, bytes, bytearray})
_NUMBERS: Final = frozenset({int, float, bool, type(None)})
# What an entry of a container counts at least.
_ENTRY: Final = 32


async def worked(large: bool, work: Callable[[], T]) -> T:
    """Do work on values, in another thread when they are large: for small ones the way there takes longer than the work."""
    return await asyncio.to_thread(work) if large else work()


def is_large(values: Iterable[Any]) -> bool:
    """Whether values take long to be made bytes: a look at each part of them, up to where they are large."""
    size = 0
    parts = list(values)
    for value in parts:
        kind = type(value)
        if kind in _TEXTS:
            size += len(value)
        elif kind in _NUMBERS:
            continue
        elif isinstance(value, dict):
            size += _ENTRY * len(value)
            parts.extend(value.values())
        elif isinstance(value, (list, tuple, set, frozenset, deque)):
            size += _ENTRY * len(value)
            parts.extend(value)
        elif not isinstance(value, type):
            size += sys.getsizeof(value, _ENTRY)
            parts.extend(getattr(value, "__dict__", {}).values())
        if size > LARGE:
            return True
    return False
