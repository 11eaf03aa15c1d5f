"""LangGraph on the storage service: checkpointers for ``compile(checkpointer=...)``.

Needs LangGraph: ``pip install "agentstorage[langgraph]"``.
"""

from __future__ import annotations

try:
    import langgraph.checkpoint.base  # noqa: F401 - only to see whether it is there
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'LangGraph is not installed: pip install "agentstorage[langgraph]"', name=error.name
    ) from None

from agentstorage.langgraph.portable import NotPortable, PortableSerializer
from agentstorage.langgraph.saver import AsyncGrpcSaver, GrpcSaver
from agentstorage.langgraph.store import AsyncGrpcStore, GrpcStore

__all__ = ["AsyncGrpcSaver", "AsyncGrpcStore", "GrpcSaver", "GrpcStore", "NotPortable", "PortableSerializer"]
