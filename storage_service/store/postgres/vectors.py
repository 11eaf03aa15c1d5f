"""How close items are to a vector, as SQL: every item is looked at, with pgvector's functions or, some 25 times as slowly, without.

No index is used, since one that finds the closest vectors does not know the owner, the namespace and the filters, and leaves some out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agentstorage.v1 import store_pb2 as pb
from storage_service.store import Access
from storage_service.store.items import Put, Search, limit_of
from storage_service.store.postgres.refreshing import PLACE, REFRESHED, REFRESHED_ITEM
from storage_service.store.postgres.rows import Rows, Statement, Values
from storage_service.store.tables import ITEMS
from storage_service.store.where import Where

#: The schema of pgvector, if it is there. It may come and go with the server running, so every search asks.
PGVECTOR: Final = (
    "SELECT quote_ident(n.nspname) FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace"
    " WHERE e.extname = 'vector' AND has_schema_privilege(n.oid, 'USAGE')"
)
#: The vectors of a put as a value of the column, from the lists that :func:`bound` gives; lists that are NULL are none.
STORED: Final = (
    "CASE WHEN {fields}::text[] IS NOT NULL THEN (SELECT array_agg(ROW(field, embedding::real[])::langgraph_server.item_vector)"
    " FROM unnest({fields}::text[], {embeddings}::text[]) AS v(field, embedding)) END"
)
#: Puts with more numbers than this take milliseconds to write down.
MANY_NUMBERS: Final = 16384

_L2, _INNER_PRODUCT = pb.VECTOR_DISTANCE_L2, pb.VECTOR_DISTANCE_INNER_PRODUCT


def numbers(put: Put) -> int:
    """How many numbers the vectors of a put have."""
    return sum(len(vector.values) for vector in put.vectors)


def bound(put: Put) -> tuple[list[str] | None, list[str] | None]:
    """The fields and the vectors of a put, as ``STORED`` takes them."""
    if not put.vectors:
        return None, None
    return [vector.field for vector in put.vectors], [_array(vector.values) for vector in put.vectors]


def closest(rows: Rows, search: Search, where: Sequence[Where], pgvector: str) -> Statement:
    """The statement of a search by a vector: a row is an item's columns and its score."""
    values = Values()
    conditions = rows.conditions(ITEMS, where, Access.SEARCH, values)
    query, size = values(_array(search.vector)), values(len(search.vector))

    def scored(name: str, pgvector: str) -> str:
        return (
            f"LATERAL (SELECT {_score(search.distance, pgvector, query)} AS {name}"
            f" FROM unnest(vectors) AS v(field, embedding) WHERE cardinality(embedding) = {size}) AS {name}s"
        )

    found = (
        f"SELECT {ITEMS.select}, vectors, {PLACE}, near"
        f" FROM {ITEMS.name} CROSS JOIN {scored('near', pgvector)}"
        f" WHERE {conditions} AND vectors IS NOT NULL AND near IS NOT NULL"
        f' ORDER BY near DESC, "namespace" COLLATE "C", "key" COLLATE "C"'
        f" LIMIT {values(limit_of(search.limit))} OFFSET {values(search.offset)}"
    )
    columns, refreshed = ", ".join(f'"{name}"' for name in ITEMS.fields), ""
    if search.refresh_ttl:
        columns, refreshed = REFRESHED_ITEM, f", {REFRESHED}"
    # pgvector reckons in single precision, which is enough to find the items but not to tell how close they are.
    statement = (
        f"WITH found AS ({found}){refreshed} SELECT {columns}, score"
        f' FROM found CROSS JOIN {scored("score", "")} ORDER BY score DESC, place COLLATE "C", "key" COLLATE "C"'
    )
    return statement, values


def _array(numbers: Sequence[float]) -> str:
    """Numbers of single precision as Postgres reads an array of them: nine digits tell any two of them apart."""
    return "{" + ("%.9g," * len(numbers) % tuple(numbers))[:-1] + "}"


def _score(distance: pb.VectorDistance, pgvector: str, query: str) -> str:
    """The score of an item by its closest ``embedding``."""
    if pgvector:
        kind = f"{pgvector}.vector"
        measured = f"({pgvector}.{{}}(embedding::{kind}, {query}::real[]::{kind}))"
        if distance == _L2:
            return f"0 - min({measured.format('l2_distance')})"
        if distance == _INNER_PRODUCT:
            return f"max({measured.format('inner_product')})"
        best = f"1 - min(coalesce(nullif({measured.format('cosine_distance')}, 'NaN'), 1))"
    else:
        measured = f"(SELECT {{}} FROM unnest(embedding::float8[], {query}::real[]::float8[]) AS n(a, b))"
        if distance == _L2:
            return f"0 - min({measured.format('sqrt(sum((a - b) * (a - b)))')})"
        if distance == _INNER_PRODUCT:
            return f"max({measured.format('sum(a * b)')})"
        cosine = "coalesce(sum(a * b) / nullif(sqrt(sum(a * a) * sum(b * b)), 0), 0)"
        best = f"max({measured.format(cosine)})"
    # As many places as all ways agree on, and no minus before a zero.
    return f"round(({best}) * 1e6::float8) / 1e6::float8 + 0"
