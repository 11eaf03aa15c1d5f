"""Items of the long-term store, and whole owners, in dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agentstorage.v1 import common_pb2
from agentstorage.v1 import store_pb2 as pb
from agentstorage.v1.owner_pb2 import ResourceUsage
from storage_service import jsontext
from storage_service.errors import VersionMismatch
from storage_service.store import Access, Order, Page, is_too_large, too_large
from storage_service.store.items import (
    Delete,
    Get,
    ListNamespaces,
    Operation,
    Put,
    Result,
    Search,
    item_search,
    limit_of,
)
from storage_service.store.memory.resources import Runs
from storage_service.store.memory.rows import Key, Record, copy
from storage_service.store.memory.vectors import closest
from storage_service.store.tables import (
    ASSISTANT_VERSIONS,
    ASSISTANTS,
    CRONS,
    ITEMS,
    LANGGRAPH_TABLES,
    RUN_EVENTS,
    RUNS,
    THREAD_STATES,
    THREADS,
    M,
    Table,
)
from storage_service.store.where import Below, LabelsMatch

RESOURCES: dict[common_pb2.Resource, tuple[Table[Any], ...]] = {
    common_pb2.RESOURCE_ASSISTANTS: (ASSISTANTS, ASSISTANT_VERSIONS),
    common_pb2.RESOURCE_THREADS: (THREADS, THREAD_STATES, *LANGGRAPH_TABLES),
    common_pb2.RESOURCE_RUNS: (RUNS, RUN_EVENTS),
    common_pb2.RESOURCE_ITEMS: (ITEMS,),
    common_pb2.RESOURCE_CRONS: (CRONS,),
}


class Items(Runs):
    """The named operations on items."""

    async def run_operations(self, operations: Sequence[Operation]) -> list[Result]:
        items = self.tables.of(ITEMS)
        before = (
            {key: replace(record, row=copy(record.row)) for key, record in items.items()} if len(operations) > 1 else {}
        )
        results = []
        for index, operation in enumerate(operations):
            try:
                # What a batch reads is answered after it was done, however much it is.
                results.append(self._run(operation, None if len(operations) > 1 else self.most_bytes))
            except VersionMismatch as mismatch:
                if len(operations) > 1:
                    mismatch.metadata["index"] = str(index)
                    items.clear()
                    items.update(before)
                raise
        return results

    def _run(self, operation: Operation, most_bytes: int | None) -> Result:
        if isinstance(operation, Put):
            return pb.PutItemResponse(item=self._put(operation))
        if isinstance(operation, Get):
            item = self._live(self._key(operation))
            if item is not None and operation.refresh_ttl:
                self._refresh(item)
            return pb.GetItemResponse(item=item)
        if isinstance(operation, Delete):
            key = self._key(operation)
            live = self._live(key) is not None
            self.tables.of(ITEMS).pop(key, None)
            return pb.DeleteItemResponse(deleted=live)
        if isinstance(operation, Search):
            return pb.SearchItemsResponse(items=self._search(operation, most_bytes))
        namespaces = [pb.Namespace(labels=labels) for labels in self._list_namespaces(operation)]
        return pb.ListNamespacesResponse(namespaces=namespaces)

    def _key(self, operation: Put | Get | Delete) -> Key:
        return (tuple(operation.namespace), operation.key, self.owner_id or "")

    def _live(self, key: Key) -> pb.Item | None:
        record = self.tables.of(ITEMS).get(key)
        return record.row if record is not None and self.tables.is_alive(record.row) else None

    def _ends(self, item: pb.Item) -> None:
        item.expires_at.FromMicroseconds(self.tables.now().ToMicroseconds() + round(item.ttl_minutes * 60_000_000))

    def _refresh(self, item: pb.Item) -> None:
        if item.ttl_minutes:
            self._ends(item)

    def _put(self, put: Put) -> pb.Item:
        key = self._key(put)
        live = self._live(key)
        if put.HasField("expected_version") and put.expected_version != (live.version if live else 0):
            raise VersionMismatch(live.version if live else 0)
        former = self.tables.of(ITEMS).get(key)
        now = self.tables.now()
        item = pb.Item(
            namespace=put.namespace,
            key=put.key,
            value=jsontext.canonical(put.value),
            metadata=jsontext.canonical(put.metadata or (live.metadata if live else "{}")),
            version=former.row.version + 1 if former else 1,
            created_at=live.created_at if live else now,
            updated_at=now,
        )
        if put.HasField("ttl_minutes"):
            item.ttl_minutes = put.ttl_minutes
            self._ends(item)
        vectors = tuple(tuple(vector.values) for vector in put.vectors)
        self.tables.of(ITEMS)[key] = Record(item, self.owner_id or "", vectors=vectors)
        return copy(item)

    def _search(self, search: Search, most_bytes: int | None) -> list[pb.Item]:
        where, order = item_search(search)
        records = self.records(ITEMS, where, Access.SEARCH)
        if search.vector:
            return self._closest(records, search, most_bytes)
        rows = [record.row for record in records]
        page = Page(limit_of(search.limit), search.offset)
        found = self.page(ITEMS, rows, order, page, most_bytes)
        if search.refresh_ttl:
            places = {(tuple(item.namespace), item.key, item.created_at.ToMicroseconds()) for item in found}
            for row in rows:
                if (tuple(row.namespace), row.key, row.created_at.ToMicroseconds()) in places:
                    self._refresh(row)
            found = self.page(ITEMS, rows, order, page)
        return found

    def _closest(self, records: Sequence[Record[pb.Item]], search: Search, most_bytes: int | None) -> list[pb.Item]:
        nearest = closest(records, search)[search.offset :][: limit_of(search.limit)]
        if most_bytes is not None and is_too_large(sum(record.row.ByteSize() for _, record in nearest), most_bytes):
            raise too_large()
        found = []
        for score, record in nearest:
            if search.refresh_ttl:
                self._refresh(record.row)
            item = copy(record.row)
            item.score = score
            found.append(item)
        return found

    def _list_namespaces(self, listing: ListNamespaces) -> list[tuple[str, ...]]:
        where = [
            LabelsMatch(tuple(match.path), match.match_type == pb.NAMESPACE_MATCH_TYPE_SUFFIX)
            for match in listing.matches
        ]
        depth = listing.max_depth or None
        found = {tuple(record.row.namespace)[:depth] for record in self.records(ITEMS, where, Access.SEARCH)}
        return sorted(found)[listing.offset :][: limit_of(listing.limit, 100)]

    async def delete_namespace(self, namespace: Sequence[str]) -> int:
        items, below = self.tables.of(ITEMS), Below(tuple(namespace))
        gone = [
            (key, record)
            for key, record in items.items()
            if below.test(record.row) and record.owner == (self.owner_id or "")
        ]
        for key, _ in gone:
            del items[key]
        return sum(self.tables.is_alive(record.row) for _, record in gone)


class Owners(Items):
    """The named operations on a whole owner."""

    def _own(self, table: Table[Any]) -> list[Record[Any]]:
        if table is ASSISTANT_VERSIONS:
            own = {record.row.assistant_id for record in self._own(ASSISTANTS)}
            return [record for record in self.tables.of(table).values() if record.row.assistant_id in own]
        if table in LANGGRAPH_TABLES:
            histories = (self.tables.histories.get(record.row.thread_id) for record in self._own(THREADS))
            return [Record(row, None) for history in histories if history for row in history.rows(table)]
        if table is RUN_EVENTS:
            return [Record(event, None) for record in self._own(RUNS) for event in record.events]
        if table is THREAD_STATES:
            own = {record.row.thread_id for record in self._own(THREADS)}
            return [record for record in self.tables.of(table).values() if record.row.thread_id in own]
        return [record for record in self.tables.of(table).values() if self.visible(table, record, Access.OWN)]

    def _own_records(self, table: Table[M]) -> list[Record[M]]:
        return [record for record in self._own(table) if not table.alive or self.tables.is_alive(record.row)]

    async def usage(self) -> list[ResourceUsage]:
        usage = []
        for resource, tables in RESOURCES.items():
            records = [record for table in tables for record in self._own_records(table)]
            size = sum(record.row.ByteSize() + 4 * sum(map(len, record.vectors)) for record in records)
            usage.append(ResourceUsage(resource=resource, rows=len(records), bytes=size))
        return usage

    async def erase(self, limit: int) -> int:
        for tables in RESOURCES.values():
            table = tables[0]
            own = self._own(table)[:limit]
            for record in own:
                if table is THREADS:
                    self.drop_thread(record)
                elif table is ITEMS:
                    del self.tables.of(ITEMS)[(tuple(record.row.namespace), record.row.key, record.owner)]
                else:
                    self.drop(table, [record])
                if table is ASSISTANTS:
                    self.drop_versions(record.row.assistant_id)
            if own:
                return len(own)
        return 0

    async def export(
        self, table: Table[M], after: tuple[Any, ...] | None, limit: int
    ) -> tuple[list[M], tuple[Any, ...] | None]:
        fields = ("thread_id", "sequence") if table is THREAD_STATES else table.key
        found = self.page(
            table,
            (record.row for record in self._own_records(table)),
            Order(fields, False),
            Page(limit + 1, after=after),
        )
        if len(found) <= limit:
            return found, None
        return found[:limit], tuple(getattr(found[limit - 1], name) for name in fields)
