"""Python's side of the TypeScript client's test of the portable format: ``python -m tests.langgraph.portable_peer``.

``generate`` prints as many random values as it is told to, each as a line of the format; ``echo`` reads such lines, and writes each
value again.
"""

from __future__ import annotations

import sys
from typing import Any

from hypothesis import HealthCheck, given, settings

from agentstorage.langgraph import PortableSerializer
from agentstorage.langgraph.portable import PORTABLE
from tests.langgraph.test_portable import VALUES

_SERDE = PortableSerializer()


def _line(value: Any) -> str:
    kind, data = _SERDE.dumps_typed([value])
    assert kind == PORTABLE
    return data.decode()


def generate(count: int) -> None:
    """Print values."""

    @settings(max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(VALUES)
    def show(value: Any) -> None:
        sys.stdout.write(_line(value) + "\n")

    show()


def echo() -> None:
    """Read values and write them again."""
    for line in sys.stdin:
        [value] = _SERDE.loads_typed((PORTABLE, line.encode()))
        sys.stdout.write(_line(value) + "\n")


if __name__ == "__main__":
    sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # of a process, it is a TextIOWrapper
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # likewise
    if sys.argv[1] == "generate":
        generate(int(sys.argv[2]))
    else:
        echo()
