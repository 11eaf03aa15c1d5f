"""StoreService; the contract is in store.proto."""

from __future__ import annotations

from typing import Any

from agentstorage.v1 import store_pb2 as pb
from storage_service.errors import InvalidRequest, NotFound
from storage_service.services import Call

# Namespace and key together, in bytes: they share an index row of at most 2,704 bytes with the owner.
PLACE_BYTES = 2000


class StoreService:
    """Items of the long-term store. Every method but DeleteNamespace is one operation, or several."""

    async def batch(self, request: pb.BatchRequest, call: Call) -> pb.BatchResponse:
        if len(request.operations) > call.limits.batch_operations:
            raise InvalidRequest(violations={"operations": f"has more than {call.limits.batch_operations} entries"})
        for index, operation in enumerate(request.operations):
            _check(operation, f"operations[{index}].")
        return pb.BatchResponse(results=await call.rows.run_operations(request.operations))

    async def put_item(self, request: pb.PutItemRequest, call: Call) -> pb.PutItemResponse:
        put = pb.PutOperation(
            namespace=request.namespace, key=request.key, value=request.value, metadata=request.metadata
        )
        if request.HasField("expected_version"):
            put.expected_version = request.expected_version
        if request.HasField("ttl_minutes"):
            put.ttl_minutes = request.ttl_minutes
        return (await _one(call, pb.Operation(put=put))).put

    async def get_item(self, request: pb.GetItemRequest, call: Call) -> pb.GetItemResponse:
        get = pb.GetOperation(namespace=request.namespace, key=request.key, refresh_ttl=request.refresh_ttl)
        response = (await _one(call, pb.Operation(get=get))).get
        if not response.HasField("item"):
            raise NotFound("item", request.key)
        return response

    async def delete_item(self, request: pb.DeleteItemRequest, call: Call) -> pb.DeleteItemResponse:
        delete = pb.DeleteOperation(namespace=request.namespace, key=request.key)
        response = (await _one(call, pb.Operation(delete=delete))).delete
        if not (response.deleted or request.allow_missing):
            raise NotFound("item", request.key)
        return response

    async def search_items(self, request: pb.SearchItemsRequest, call: Call) -> pb.SearchItemsResponse:
        search = pb.SearchOperation(
            namespace_prefix=request.namespace_prefix,
            key_prefix=request.key_prefix,
            filters=request.filters,
            sort_by=request.sort_by,
            sort_order=request.sort_order,
            limit=request.limit,
            offset=request.offset,
            refresh_ttl=request.refresh_ttl,
            exact_namespace=request.exact_namespace,
        )
        return (await _one(call, pb.Operation(search=search))).search

    async def list_namespaces(self, request: pb.ListNamespacesRequest, call: Call) -> pb.ListNamespacesResponse:
        listing = pb.ListNamespacesOperation(
            matches=request.matches, max_depth=request.max_depth, limit=request.limit, offset=request.offset
        )
        return (await _one(call, pb.Operation(list_namespaces=listing))).list_namespaces

    async def delete_namespace(self, request: pb.DeleteNamespaceRequest, call: Call) -> pb.DeleteNamespaceResponse:
        return pb.DeleteNamespaceResponse(deleted=await call.rows.delete_namespace(request.namespace))


async def _one(call: Call, operation: pb.Operation) -> pb.OperationResult:
    _check(operation, "")
    [result] = await call.rows.run_operations([operation])
    return result


def _check(operation: pb.Operation, path: str) -> None:
    """What the rules of single fields do not say. Raises InvalidRequest."""
    kind = operation.WhichOneof("operation")
    if kind is None:
        raise InvalidRequest(violations={path.rstrip("."): "must be one operation"})
    if path:
        path += f"{kind}."
    body: Any = getattr(operation, kind)
    if kind in ("put", "get", "delete"):
        place = sum(len(label.encode()) + 1 for label in body.namespace) + len(body.key.encode())
        if place > PLACE_BYTES:
            raise InvalidRequest(
                violations={f"{path}namespace": f"and key are longer than {PLACE_BYTES} bytes together"}
            )
    if kind == "put" and body.HasField("ttl_minutes") and not body.ttl_minutes * 60_000_000 >= 1:
        raise InvalidRequest(violations={f"{path}ttl_minutes": "must be more than 0"})
