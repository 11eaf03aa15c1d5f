"""LangChain's messages in the portable format."""

from __future__ import annotations

from typing import Any, Final

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
)

from agentstorage.langgraph.portable_values import NotPortable, fields

_CLASSES: Final[dict[tuple[str, bool], type[BaseMessage]]] = {
    ("ai", False): AIMessage,
    ("ai", True): AIMessageChunk,
    ("chat", False): ChatMessage,
    ("chat", True): ChatMessageChunk,
    ("function", False): FunctionMessage,
    ("function", True): FunctionMessageChunk,
    ("human", False): HumanMessage,
    ("human", True): HumanMessageChunk,
    ("remove", False): RemoveMessage,
    ("system", False): SystemMessage,
    ("system", True): SystemMessageChunk,
    ("tool", False): ToolMessage,
    ("tool", True): ToolMessageChunk,
}
_KINDS: Final = {made: kind for kind, made in _CLASSES.items()}
# What messages have in both languages. All else they have goes into "extra".
_FIELDS: Final = frozenset(
    {
        "additional_kwargs",
        "artifact",
        "content",
        "id",
        "invalid_tool_calls",
        "name",
        "response_metadata",
        "role",
        "status",
        "tool_call_chunks",
        "tool_call_id",
        "tool_calls",
        "usage_metadata",
    }
)
# Left out where there is nothing in them.
_EMPTY: Final = frozenset(
    {"additional_kwargs", "invalid_tool_calls", "response_metadata", "tool_call_chunks", "tool_calls"}
)
_NEEDED: Final = {"chat": "role", "function": "name", "remove": "id", "tool": "tool_call_id"}


def written_message(message: BaseMessage, depth: int) -> dict[str, Any]:
    """Make a JSON object of a message. NotPortable for a class that is not LangChain's own."""
    kind = _KINDS.get(type(message))
    if kind is None:
        raise NotPortable(
            f"is of the class {type(message).__module__}.{type(message).__qualname__}: keep a message of LangChain's own classes"
        )
    shared: dict[str, Any] = {}
    extra = dict(message.model_extra or {})
    for name, value in message.__dict__.items():
        if name == "type" or value is None or (name in _EMPTY and not value):
            continue
        (shared if name in _FIELDS else extra)[name] = value
    if kind[0] == "remove":
        # It has none, but each language says so in its own way.
        del shared["content"]
    made = {"type": kind[0], **({"chunk": True} if kind[1] else {}), **fields(shared, depth)}
    if extra:
        made.update(fields({"extra": extra}, depth))
    return made


def read_message(value: dict[str, Any]) -> BaseMessage:
    """Make a message of a JSON object, as it was: LangChain's constructors would change some."""
    kind = value.pop("type")
    made = _CLASSES.get((kind, value.pop("chunk", False)))
    if made is None:
        raise ValueError(f"there is no message of the type {kind!r}")
    extra = value.pop("extra", {})
    if unknown := value.keys() - _FIELDS:
        raise ValueError(f"a message has no {', '.join(sorted(unknown))}")
    if (needed := _NEEDED.get(kind)) is not None and not isinstance(value.get(needed), str):
        raise ValueError(f"a message of the type {kind} needs {needed}")
    content = value.setdefault("content", "") if kind == "remove" else value["content"]
    if not isinstance(content, (str, list)):
        raise TypeError("the content of a message is a text or an array")
    return made.model_construct(**value, **extra)
