"""How close items are to a vector, in plain Python: every item is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import sqrt
from operator import mul, sub
from typing import Final

from agentstorage.v1 import store_pb2 as pb
from storage_service.store.items import Search
from storage_service.store.memory.rows import Record

Vector = Sequence[float]


def _dot(left: Vector, right: Vector) -> float:
    return float(sum(map(mul, left, right)))


def _cosine(left: Vector, right: Vector) -> float:
    lengths = _dot(left, left) * _dot(right, right)
    return _dot(left, right) / sqrt(lengths) if lengths else 0.0


def _l2(left: Vector, right: Vector) -> float:
    difference = tuple(map(sub, left, right))
    return 0.0 - sqrt(_dot(difference, difference))


_SCORES: Final[Mapping[int, Callable[[Vector, Vector], float]]] = {
    pb.VECTOR_DISTANCE_UNSPECIFIED: _cosine,
    pb.VECTOR_DISTANCE_COSINE: _cosine,
    pb.VECTOR_DISTANCE_L2: _l2,
    pb.VECTOR_DISTANCE_INNER_PRODUCT: _dot,
}


def closest(records: Iterable[Record[pb.Item]], search: Search) -> list[tuple[float, Record[pb.Item]]]:
    """The items that have a vector like that of the search, each with its score, the closest first."""
    wanted, score = tuple(search.vector), _SCORES[search.distance]
    scored = []
    for record in records:
        scores = [score(vector, wanted) for vector in record.vectors if len(vector) == len(wanted)]
        if scores:
            best = max(scores)
            # As many places as both backends agree on, and no minus before a zero.
            scored.append((round(best * 1e6) / 1e6 + 0.0 if score is _cosine else best, record))
    return sorted(scored, key=lambda found: (-found[0], ".".join(found[1].row.namespace), found[1].row.key))
