"""An embedding for tests: texts that share words are near each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zlib import crc32

from langgraph.store.base import BaseStore, IndexConfig

DIMS = 64


def vector(text: str) -> list[float]:
    """The words of a text, counted."""
    counts = [0.0] * DIMS
    for word in text.lower().replace('"', " ").replace(":", " ").split():
        counts[crc32(word.encode()) % DIMS] += 1.0
    return counts


def embed(texts: Sequence[str]) -> list[list[float]]:
    return [vector(text) for text in texts]


def index(**more: Any) -> IndexConfig:
    """An index with that embedding."""
    return {"dims": DIMS, "embed": embed, **more}  # type: ignore[typeddict-item]  # a test may set anything


async def keys(store: BaseStore, *prefix: str, **how: Any) -> list[str]:
    """The keys of a search, in its order."""
    return [item.key for item in await store.asearch(prefix, **how)]
