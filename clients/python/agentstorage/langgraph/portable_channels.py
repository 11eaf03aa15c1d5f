"""What LangGraph.js keeps in channels that belong to LangGraph itself, as LangGraph for Python keeps it there."""

from __future__ import annotations

from typing import Any, Final

from langgraph.checkpoint.serde.types import INTERRUPT

from agentstorage.langgraph.portable_values import of_langgraph

# The channels of edges with several starts: which of them have been there.
_JOIN: Final = "join:"


def of_python(channel: str, value: Any) -> Any:
    """Give a channel's value, or what a task wrote to it, as LangGraph for Python expects it.

    LangGraph.js has plain objects for interrupts, and arrays where Python has sets. Values of Python's own are as they were.
    """
    if not isinstance(value, list):
        return value
    if channel == INTERRUPT:
        return [_interrupt(entry) if isinstance(entry, dict) else entry for entry in value]
    if channel.startswith(_JOIN):
        if len(value) == 2 and isinstance(value[0], (list, set)):
            # Of a deferred node: with whether all the others have finished.
            return (set(value[0]), value[1])
        return set(value)
    return value


def _interrupt(entry: dict[str, Any]) -> Any:
    given = {key: entry[key] for key in ("id", "response_schema") if entry.get(key) is not None}
    return of_langgraph("Interrupt")(entry.get("value"), **given)
