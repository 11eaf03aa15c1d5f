"""How LangGraph's operations on a store become operations of the service, and results of its answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Final

from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
)

from agentstorage import jsontext
from agentstorage.langgraph.store_index import Index, Vectors
from agentstorage.v1 import store_pb2 as pb

# Of one call of the service.
_OPERATIONS: Final = 1000
_ROWS: Final = 1000
_OPERATORS: Final = {
    "$eq": pb.FILTER_OPERATOR_EQ,
    "$ne": pb.FILTER_OPERATOR_NE,
    "$gt": pb.FILTER_OPERATOR_GT,
    "$gte": pb.FILTER_OPERATOR_GTE,
    "$lt": pb.FILTER_OPERATOR_LT,
    "$lte": pb.FILTER_OPERATOR_LTE,
}
_MATCH_TYPES: Final = {"prefix": pb.NAMESPACE_MATCH_TYPE_PREFIX, "suffix": pb.NAMESPACE_MATCH_TYPE_SUFFIX}
_OPERATION: Final[Mapping[str, Any]] = {
    "put": pb.PutOperation,
    "get": pb.GetOperation,
    "delete": pb.DeleteOperation,
    "search": pb.SearchOperation,
    "list_namespaces": pb.ListNamespacesOperation,
}
_REQUEST: Final[Mapping[str, Any]] = {
    "put": pb.PutItemRequest,
    "get": pb.GetItemRequest,
    "delete": pb.DeleteItemRequest,
    "search": pb.SearchItemsRequest,
    "list_namespaces": pb.ListNamespacesRequest,
}


@dataclass(frozen=True, slots=True)
class Step:
    """An operation: which one of the service's, and its fields. ``kind`` is "" for one whose result is ``nothing`` without asking."""

    kind: str
    fields: Mapping[str, Any]
    nothing: Result = None

    @property
    def limit(self) -> int:
        """How many rows are wanted, at most."""
        return int(self.fields.get("limit", 0))

    def operation(self) -> pb.Operation:
        """Give the operation as one of a batch."""
        return pb.Operation(**{self.kind: _OPERATION[self.kind](**self.fields)})

    def request(self, owner: str) -> Any:
        """Give the operation as a request of its own."""
        return _REQUEST[self.kind](owner_id=owner, **self.fields)

    def result(self, response: Any) -> Result:
        """Give the result from the response to the operation."""
        if self.kind == "get":
            return _item(response.item) if response.HasField("item") else None
        if self.kind == "search":
            return [_search_item(item) for item in response.items]
        if self.kind == "list_namespaces":
            return [tuple(namespace.labels) for namespace in response.namespaces]
        return None


def steps_of(ops: Iterable[Op], index: Index | None, documents: Vectors, queries: Vectors) -> list[Step]:
    """Give the steps of operations, with the vectors of their texts.

    Raises InvalidNamespaceError, and ValueError or TypeError for what the service has no form for.
    """
    steps = []
    for op in ops:
        if isinstance(op, PutOp):
            steps.append(_put(op, index, documents))
        elif isinstance(op, GetOp):
            steps.append(_at("get", op, refresh_ttl=op.refresh_ttl))
        elif isinstance(op, SearchOp):
            steps.append(_search(op, index, queries))
        elif isinstance(op, ListNamespacesOp):
            steps.append(_list_namespaces(op))
        else:
            raise ValueError(f"not an operation of a store: {type(op).__name__}")
    return steps


def parts(steps: Iterable[Step]) -> Iterator[list[Step]]:
    """Divide the steps that ask something into what one call can do: a batch, or one alone that wants more rows than a batch gives."""
    part: list[Step] = []
    for step in steps:
        if not step.kind:
            continue
        if part and (step.limit > _ROWS or part[-1].limit > _ROWS or len(part) == _OPERATIONS):
            yield part
            part = []
        part.append(step)
    if part:
        yield part


def _put(op: PutOp, index: Index | None, documents: Vectors) -> Step:
    if op.value is None:
        return _at("delete", op)
    if not op.namespace:
        raise InvalidNamespaceError("Namespace cannot be empty.")
    fields: dict[str, Any] = {"value": jsontext.dump(dict(op.value), "value"), "ttl_minutes": op.ttl}
    if index is not None:
        fields["vectors"] = [pb.ItemVector(field=field, values=documents[text]) for field, text in index.texts(op)]
    return _at("put", op, **fields)


def _at(kind: str, op: PutOp | GetOp, **fields: Any) -> Step:
    # No item is at the root: nothing to get, nothing to delete.
    return Step(kind if op.namespace else "", {"namespace": _labels(op.namespace), "key": op.key, **fields})


def _search(op: SearchOp, index: Index | None, queries: Vectors) -> Step:
    fields: dict[str, Any] = {
        "namespace_prefix": _labels(op.namespace_prefix),
        "filters": list(_filters(op.filter or {})),
        "limit": op.limit,
        "offset": op.offset,
        "refresh_ttl": op.refresh_ttl,
    }
    if index is not None and op.query:
        fields.update(vector=queries[op.query], distance=index.distance)
    # The service takes 0 for its default.
    return Step("search" if op.limit else "", fields, [])


def _filters(conditions: Mapping[str, Any]) -> Iterator[pb.Filter]:
    for key, wanted in conditions.items():
        compared = {"$eq": wanted}
        if isinstance(wanted, Mapping) and any(str(name).startswith("$") for name in wanted):
            compared = dict(wanted)
        for name, operand in compared.items():
            if name not in _OPERATORS:
                raise ValueError(f"the filter of {key!r} has the operator {name!r}; there are {', '.join(_OPERATORS)}")
            yield pb.Filter(key=key, operator=_OPERATORS[name], operand=jsontext.dump(operand, "filter"))


def _list_namespaces(op: ListNamespacesOp) -> Step:
    matches = []
    for condition in op.match_conditions or ():
        if condition.match_type not in _MATCH_TYPES:
            raise ValueError(f"match_type must be prefix or suffix, not {condition.match_type!r}")
        if condition.path:
            path = _labels(condition.path)
            matches.append(pb.NamespaceMatch(match_type=_MATCH_TYPES[condition.match_type], path=path))
    if op.max_depth is not None and op.max_depth < 1:
        raise ValueError("max_depth must be 1 or more")
    fields = {"matches": matches, "max_depth": op.max_depth, "limit": op.limit, "offset": op.offset}
    return Step("list_namespaces" if op.limit else "", fields, [])


def _labels(namespace: Sequence[Any]) -> list[str]:
    """Give the labels of a namespace; InvalidNamespaceError for what is no text. What a text may be, the service says."""
    for label in namespace:
        if not isinstance(label, str):
            raise InvalidNamespaceError(f"a label of the namespace {namespace} is no text but a {type(label).__name__}")
        try:
            label.encode()
        except UnicodeEncodeError:
            raise InvalidNamespaceError(f"a label of the namespace {namespace} holds a lone surrogate") from None
    return list(namespace)


def _place(item: pb.Item) -> dict[str, Any]:
    return {
        "namespace": tuple(item.namespace),
        "key": item.key,
        "value": jsontext.load(item.value, None),
        "created_at": item.created_at.ToDatetime(tzinfo=UTC),
        "updated_at": item.updated_at.ToDatetime(tzinfo=UTC),
    }


def _item(item: pb.Item) -> Item:
    return Item(**_place(item))


def _search_item(item: pb.Item) -> SearchItem:
    return SearchItem(**_place(item), score=item.score if item.HasField("score") else None)
