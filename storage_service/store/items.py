"""What the operations on items mean, for both backends."""

from __future__ import annotations

from typing import Final, TypeAlias

from agentstorage.v1 import common_pb2, store_pb2
from storage_service.store import Order
from storage_service.store.where import Below, Compares, Equals, StartsWith, Where

# An operation of a batch, or the request that is nothing else: both have the same fields.
Put: TypeAlias = store_pb2.PutOperation | store_pb2.PutItemRequest
Get: TypeAlias = store_pb2.GetOperation | store_pb2.GetItemRequest
Delete: TypeAlias = store_pb2.DeleteOperation | store_pb2.DeleteItemRequest
Search: TypeAlias = store_pb2.SearchOperation | store_pb2.SearchItemsRequest
ListNamespaces: TypeAlias = store_pb2.ListNamespacesOperation | store_pb2.ListNamespacesRequest
Operation: TypeAlias = Put | Get | Delete | Search | ListNamespaces
Result: TypeAlias = (
    store_pb2.PutItemResponse
    | store_pb2.GetItemResponse
    | store_pb2.DeleteItemResponse
    | store_pb2.SearchItemsResponse
    | store_pb2.ListNamespacesResponse
)

PAGE_ROWS: Final = 1000
_OPERATORS: Final = {
    store_pb2.FILTER_OPERATOR_UNSPECIFIED: "=",
    store_pb2.FILTER_OPERATOR_EQ: "=",
    store_pb2.FILTER_OPERATOR_NE: "<>",
    store_pb2.FILTER_OPERATOR_GT: ">",
    store_pb2.FILTER_OPERATOR_GTE: ">=",
    store_pb2.FILTER_OPERATOR_LT: "<",
    store_pb2.FILTER_OPERATOR_LTE: "<=",
}


def limit_of(asked: int, default: int = 10) -> int:
    """The rows of a page: the default for 0, never more than 1,000."""
    return min(asked or default, PAGE_ROWS)


def item_search(search: Search) -> tuple[list[Where], Order]:
    """The conditions and the order of a search."""
    where: list[Where] = []
    labels = list(search.namespace_prefix)
    if search.exact_namespace:
        where.append(Equals("namespace", labels))
    elif labels:
        where.append(Below(tuple(labels)))
    if search.key_prefix:
        where.append(StartsWith("key", search.key_prefix))
    where.extend(Compares("value", term.key, _OPERATORS[term.operator], term.operand) for term in search.filters)
    if search.sort_by == store_pb2.ITEM_SORT_KEY:
        return where, Order(("key", "namespace"), search.sort_order == common_pb2.SORT_ORDER_DESC)
    return where, Order(("updated_at", "namespace", "key"), search.sort_order != common_pb2.SORT_ORDER_ASC)
