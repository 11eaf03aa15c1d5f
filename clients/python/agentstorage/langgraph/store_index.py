"""What a store embeds, and with what: the client's half of the search by meaning."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from langchain_core.embeddings import Embeddings
from langgraph.store.base import (
    IndexConfig,
    Op,
    PutOp,
    SearchOp,
    TTLConfig,
    ensure_embeddings,
    get_text_at_path,
    tokenize_path,
)

from agentstorage.v1 import store_pb2 as pb

#: Vectors by the texts that they are the embeddings of.
Vectors = Mapping[str, Sequence[float]]

_INDEX_KEYS: Final = frozenset({"dims", "embed", "fields", "distance_type", "ann_index_config"})
_TTL_KEYS: Final = frozenset({"default_ttl", "refresh_on_read", "omit_expired", "sweep_interval_minutes"})
_DISTANCES: Final = {
    "cosine": pb.VECTOR_DISTANCE_COSINE,
    "l2": pb.VECTOR_DISTANCE_L2,
    "inner_product": pb.VECTOR_DISTANCE_INNER_PRODUCT,
}


class Index:
    """How values are embedded, from LangGraph's ``IndexConfig``: ``embed``, ``dims``, ``fields`` and ``distance_type``.

    ValueError for a distance that is none of cosine, l2 and inner_product, for nothing to embed with, and for unknown keys.
    """

    def __init__(self, config: IndexConfig) -> None:
        _check_keys(config, _INDEX_KEYS, "index")
        embed: Any = config.get("embed")
        settings: Mapping[str, Any] = config
        distance = settings.get("distance_type", "cosine")
        if distance not in _DISTANCES:
            raise ValueError(f"distance_type must be one of {', '.join(_DISTANCES)}, not {distance!r}")
        self.distance = _DISTANCES[distance]
        self.embeddings = ensure_embeddings(embed)
        # A function that is a coroutine has no synchronous form; every Embeddings has one.
        self.must_await = not isinstance(embed, (Embeddings, str)) and (
            inspect.iscoroutinefunction(embed) or inspect.iscoroutinefunction(type(embed).__call__)
        )
        dims: Any = config.get("dims")
        if not isinstance(dims, int | None) or isinstance(dims, bool):
            raise TypeError(f"the index's dims must be an int, not {type(dims).__name__}")
        self._dims: int | None = dims
        self._paths = _tokenized(config.get("fields") or ["$"])

    def texts(self, put: PutOp) -> list[tuple[str, str]]:
        """Give the texts of a put that are embedded, each after its field."""
        if put.value is None or put.index is False:
            return []
        found = []
        for path, tokens in self._paths if put.index is None else _tokenized(put.index):
            texts = get_text_at_path(put.value, tokens)
            found += [(path if len(texts) == 1 else f"{path}.{number}", text) for number, text in enumerate(texts)]
        return found

    def wanted(self, ops: Iterable[Op]) -> tuple[list[str], list[str]]:
        """Give the texts of all puts and the queries of all searches, each once."""
        documents: dict[str, None] = {}
        queries: dict[str, None] = {}
        for op in ops:
            if isinstance(op, PutOp):
                documents.update((text, None) for _, text in self.texts(op))
            elif isinstance(op, SearchOp) and op.query:
                queries[op.query] = None
        return list(documents), list(queries)

    def embed(self, ops: Iterable[Op]) -> tuple[Vectors, Vectors]:
        """Embed the texts of all puts in one call, and each query; ValueError for vectors that are not of the index."""
        documents, queries = self.wanted(ops)
        embedded = self.embeddings.embed_documents(documents) if documents else []
        return self._checked(documents, embedded), self._checked(
            queries, [self.embeddings.embed_query(query) for query in queries]
        )

    async def aembed(self, ops: Iterable[Op]) -> tuple[Vectors, Vectors]:
        """Embed as ``embed`` does. What is no coroutine runs in another thread than the event loop."""
        documents, queries = self.wanted(ops)
        embedded = await self.embeddings.aembed_documents(documents) if documents else []
        return self._checked(documents, embedded), self._checked(
            queries, await asyncio.gather(*map(self.embeddings.aembed_query, queries))
        )

    def _checked(self, texts: list[str], vectors: Sequence[Any]) -> Vectors:
        if len(vectors) != len(texts):
            raise ValueError(f"the index's embed gave {len(vectors)} vectors for {len(texts)} texts")
        for vector in vectors:
            if self._dims is not None and len(vector) != self._dims:
                raise ValueError(
                    f"the index's embed gave a vector of {len(vector)} numbers, and its dims are {self._dims}"
                )
        return dict(zip(texts, vectors, strict=True))


def checked_ttl(config: TTLConfig | None) -> TTLConfig | None:
    """Give LangGraph's ``TTLConfig``. TypeError and ValueError for what is none."""
    if config is not None:
        _check_keys(config, _TTL_KEYS, "ttl")
        minutes: Any = config.get("default_ttl")
        if not isinstance(minutes, int | float | None) or isinstance(minutes, bool):
            raise TypeError(f"the ttl's default_ttl must be a number of minutes, not {type(minutes).__name__}")
    return config


def _check_keys(config: Mapping[str, Any], known: frozenset[str], name: str) -> None:
    if not isinstance(config, Mapping):
        raise TypeError(f"{name} must be a dict, not {type(config).__name__}")
    for key in config.keys() - known:
        raise ValueError(f"{name} has the key {key!r}; it may have {', '.join(sorted(known))}")


def _tokenized(paths: Iterable[str]) -> list[tuple[str, str | list[str]]]:
    """Give paths with their parts; the path of the whole value has none."""
    return [(path, path if path == "$" else tokenize_path(path)) for path in paths]
