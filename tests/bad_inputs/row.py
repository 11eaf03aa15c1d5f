"""One row of the catalogue of bad inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

#: Stands in the inputs for what no answer and no log may repeat.
CANARY = "canary-7f3a9c"
INVALID, EXHAUSTED = "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"
#: What a row has whose input is taken.
OK: dict[str, Any] = {"code": "OK", "reason": ""}
#: A text that is a byte too long for an id.
LONG = (CANARY * 30)[:256]


@dataclass(frozen=True)
class Row:
    """One bad input."""

    number: str
    method: str
    fields: dict[str, Any] = field(default_factory=dict)
    code: str = INVALID
    reason: str = "INVALID_REQUEST"
    raw: Callable[[], bytes] | None = None
