"""StoreService; the contract is in store.proto."""

from __future__ import annotations

from typing import Any, cast

from agentstorage.v1 import store_pb2 as pb
from storage_service.errors import InvalidRequest, NotFound
from storage_service.services import Call
from storage_service.store.items import Delete, Get, Operation, Put, Result, Search

# Namespace and key together, in bytes: they share an index row of at most 2,704 bytes with the owner.
PLACE_BYTES = 2000


class StoreService:
    """Items of the long-term store. Every method but DeleteNamespace is one operation, or several."""

    async def batch(self, request: pb.BatchRequest, call: Call) -> pb.BatchResponse:
        if len(request.operations) > call.limits.batch_operations:
            raise InvalidRequest(violations={"operations": f"has more than {call.limits.batch_operations} entries"})
        kinds = [operation.WhichOneof("operation") for operation in request.operations]
        for index, kind in enumerate(kinds):
            if kind is None:
                raise InvalidRequest(violations={f"operations[{index}]": "must be one operation"})
        bodies = [getattr(operation, kind) for operation, kind in zip(request.operations, kinds, strict=True) if kind]
        for index, (kind, body) in enumerate(zip(kinds, bodies, strict=True)):
            _check(body, f"operations[{index}].{kind}.")
        results: Any = zip(kinds, await call.rows.run_operations(bodies), strict=True)
        return pb.BatchResponse(results=[pb.OperationResult(**{kind: result}) for kind, result in results])

    async def put_item(self, request: pb.PutItemRequest, call: Call) -> pb.PutItemResponse:
        return cast("pb.PutItemResponse", await _one(request, call))

    async def get_item(self, request: pb.GetItemRequest, call: Call) -> pb.GetItemResponse:
        response = cast("pb.GetItemResponse", await _one(request, call))
        if not response.HasField("item"):
            raise NotFound("item", request.key)
        return response

    async def delete_item(self, request: pb.DeleteItemRequest, call: Call) -> pb.DeleteItemResponse:
        response = cast("pb.DeleteItemResponse", await _one(request, call))
        if not (response.deleted or request.allow_missing):
            raise NotFound("item", request.key)
        return response

    async def search_items(self, request: pb.SearchItemsRequest, call: Call) -> pb.SearchItemsResponse:
        return cast("pb.SearchItemsResponse", await _one(request, call))

    async def list_namespaces(self, request: pb.ListNamespacesRequest, call: Call) -> pb.ListNamespacesResponse:
        return cast("pb.ListNamespacesResponse", await _one(request, call))

    async def delete_namespace(self, request: pb.DeleteNamespaceRequest, call: Call) -> pb.DeleteNamespaceResponse:
        return pb.DeleteNamespaceResponse(deleted=await call.rows.delete_namespace(request.namespace))


async def _one(operation: Operation, call: Call) -> Result:
    _check(operation, "")
    [result] = await call.rows.run_operations([operation])
    return result


def _check(operation: Operation, path: str) -> None:
    """What the rules of single fields do not say. Raises InvalidRequest."""
    if isinstance(operation, Put | Get | Delete):
        # As if each character had as many bytes as any can have; most are far below.
        if 4 * (sum(map(len, operation.namespace)) + len(operation.key)) + len(operation.namespace) > PLACE_BYTES:
            place = sum(len(label.encode()) + 1 for label in operation.namespace) + len(operation.key.encode())
            if place > PLACE_BYTES:
                raise InvalidRequest(
                    violations={f"{path}namespace": f"and key are longer than {PLACE_BYTES} bytes together"}
                )
        if (
            isinstance(operation, Put)
            and operation.HasField("ttl_minutes")
            and not operation.ttl_minutes * 60_000_000 >= 1
        ):
            raise InvalidRequest(violations={f"{path}ttl_minutes": "must be more than 0"})
    elif isinstance(operation, Search) and operation.vector:
        for name in ("sort_by", "sort_order"):
            if getattr(operation, name):
                raise InvalidRequest(violations={f"{path}{name}": "cannot be combined with vector"})
