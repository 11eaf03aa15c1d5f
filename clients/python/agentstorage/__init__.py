"""Client of the storage service for agent runtimes.

``GrpcStorage`` is the drop-in storage interface; ``Connection`` gives the generated stubs of ``agentstorage.v1`` a
channel; ``agentstorage.queue`` executes queued runs and follows their events; ``agentstorage.errors`` has one exception
class for each reason of failure.
"""

from __future__ import annotations

from agentstorage.channel import Channel
from agentstorage.connection import Connection
from agentstorage.errors import StorageError
from agentstorage.storage import (
    Assistant,
    AssistantConfig,
    Cron,
    GrpcStorage,
    Item,
    Run,
    Thread,
    ThreadState,
)

__all__ = [
    "Assistant",
    "AssistantConfig",
    "Channel",
    "Connection",
    "Cron",
    "GrpcStorage",
    "Item",
    "Run",
    "StorageError",
    "Thread",
    "ThreadState",
]
