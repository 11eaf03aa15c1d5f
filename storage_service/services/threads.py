"""ThreadService; the contract is in threads.proto."""

from __future__ import annotations

from agentstorage.v1 import threads_pb2 as pb
from storage_service.errors import AlreadyExists, InvalidRequest, NotFound, StatusMismatch
from storage_service.ids import new_id
from storage_service.jsontext import equal
from storage_service.paging import Paging, order_by, read_mask
from storage_service.services import Call, changes, contains, filters, id_for, keep_or_raise, known_statuses, stamp
from storage_service.store import Access, Order
from storage_service.store.change import Change, Put, Stamp
from storage_service.store.tables import THREAD_STATES, THREAD_STATUS, THREADS
from storage_service.store.where import Equals, OneOf, Where

_SORTS = ("created_at", "updated_at", "state_updated_at", "status", "thread_id")


class ThreadService:
    """Threads and their states."""

    async def create_thread(self, request: pb.CreateThreadRequest, call: Call) -> pb.CreateThreadResponse:
        thread = pb.Thread(
            thread_id=id_for(request, call, request.thread_id),
            metadata=request.metadata,
            config=request.config,
            status=request.status or pb.THREAD_STATUS_IDLE,
            values=request.values,
            interrupts=request.interrupts,
            visibility=request.visibility or pb.THREAD_VISIBILITY_PRIVATE,
            ttl=_ttl(request.ttl) if request.HasField("ttl") else call.store.thread_ttl,
        )
        inserted = await call.rows.insert(THREADS, thread, stamp(request, call))
        return pb.CreateThreadResponse(thread=keep_or_raise(THREADS, request, call, inserted, thread.thread_id))

    async def get_thread(self, request: pb.GetThreadRequest, call: Call) -> pb.GetThreadResponse:
        fields = read_mask(THREADS, request)
        thread = await call.rows.get(THREADS, Equals("thread_id", request.thread_id), fields=fields)
        if thread is None:
            raise NotFound("thread", request.thread_id)
        return pb.GetThreadResponse(thread=thread)

    async def update_thread(self, request: pb.UpdateThreadRequest, call: Call) -> pb.UpdateThreadResponse:
        changed = changes(call, THREADS, request, "config", "status", "values", "interrupts", "error", "visibility")
        if request.HasField("ttl"):
            changed.append(Put("ttl", _ttl(request.ttl)))
        if any(change.field in ("status", "values") for change in changed):
            changed.append(Stamp("state_updated_at"))
        expected = known_statuses("expected_status", request.expected_status)
        where: list[Where] = [Equals("thread_id", request.thread_id)]
        if expected:
            where.append(OneOf("status", expected))
        thread = await call.rows.update(THREADS, where, changed)
        if thread is None:
            raise await _mismatch(request.thread_id, call)
        return pb.UpdateThreadResponse(thread=thread)

    async def delete_thread(self, request: pb.DeleteThreadRequest, call: Call) -> pb.DeleteThreadResponse:
        deleted = await call.rows.delete_threads([request.thread_id])
        if not (deleted or request.allow_missing):
            raise NotFound("thread", request.thread_id)
        return pb.DeleteThreadResponse()

    async def search_threads(self, request: pb.SearchThreadsRequest, call: Call) -> pb.SearchThreadsResponse:
        paging = Paging(THREADS, order_by(request, _SORTS, "thread_id"), request, call.scope)
        rows = await call.rows.find(THREADS, _where(request, call), paging.order, paging.page)
        rows, token = paging.cut(rows)
        return pb.SearchThreadsResponse(threads=rows, next_page_token=token)

    async def count_threads(self, request: pb.CountThreadsRequest, call: Call) -> pb.CountThreadsResponse:
        return pb.CountThreadsResponse(count=await call.rows.count(THREADS, _where(request, call)))

    async def copy_thread(self, request: pb.CopyThreadRequest, call: Call) -> pb.CopyThreadResponse:
        new = id_for(request, call, request.new_thread_id)
        inserted = await call.rows.copy_thread(request.thread_id, new, stamp(request, call))
        if inserted is None:
            raise NotFound("thread", request.thread_id)
        return pb.CopyThreadResponse(thread=keep_or_raise(THREADS, request, call, inserted, new))

    async def set_thread_status(self, request: pb.SetThreadStatusRequest, call: Call) -> pb.SetThreadStatusResponse:
        status = pb.THREAD_STATUS_INTERRUPTED if request.next else pb.THREAD_STATUS_IDLE
        if request.error and request.error.strip() != "null":
            status = pb.THREAD_STATUS_ERROR
        changed: list[Change] = [Put("error", request.error)]
        changed += [Put(name, getattr(request, name)) for name in ("values", "interrupts") if getattr(request, name)]
        expected = known_statuses("expected_status", request.expected_status)
        where = [OneOf("status", expected)] if expected else []
        thread = await call.rows.set_thread_status(request.thread_id, status, where, changed)
        if thread is None:
            raise await _mismatch(request.thread_id, call)
        return pb.SetThreadStatusResponse(thread=thread)

    async def get_thread_state(self, request: pb.GetThreadStateRequest, call: Call) -> pb.GetThreadStateResponse:
        state = await call.rows.thread_state(request.thread_id)
        if state is None:
            raise NotFound("thread", request.thread_id)
        return pb.GetThreadStateResponse(state=state)

    async def add_thread_state(self, request: pb.AddThreadStateRequest, call: Call) -> pb.AddThreadStateResponse:
        _check_parent(request.parent_checkpoint)
        state = pb.ThreadState(
            thread_id=request.thread_id,
            checkpoint_id=request.checkpoint_id or new_id(),
            values=request.values,
            next=request.next,
            tasks=request.tasks,
            metadata=request.metadata,
            interrupts=request.interrupts,
            parent_checkpoint=request.parent_checkpoint,
        )
        inserted = await call.rows.add_thread_state(state)
        if inserted is None:
            raise NotFound("thread", request.thread_id)
        if not (inserted.created or _same_state(state, inserted.row)):
            raise AlreadyExists("thread state", state.checkpoint_id)
        return pb.AddThreadStateResponse(state=inserted.row)

    async def list_thread_states(self, request: pb.ListThreadStatesRequest, call: Call) -> pb.ListThreadStatesResponse:
        paging = Paging(THREAD_STATES, Order(("sequence",), True), request, call.scope)
        where = [contains(call, "metadata", request.metadata)] if request.metadata else []
        rows = await call.rows.list_thread_states(request.thread_id, where, request.before, paging.page)
        if rows is None:
            if request.before and await call.rows.thread_state(request.thread_id) is not None:
                raise NotFound("thread state", request.before)
            raise NotFound("thread", request.thread_id)
        rows, token = paging.cut(rows)
        return pb.ListThreadStatesResponse(states=rows, next_page_token=token)

    async def prune_threads(self, request: pb.PruneThreadsRequest, call: Call) -> pb.PruneThreadsResponse:
        if request.strategy == pb.PRUNE_STRATEGY_KEEP_LATEST:
            return pb.PruneThreadsResponse(pruned=await call.rows.prune_thread_states(request.thread_ids))
        return pb.PruneThreadsResponse(pruned=await call.rows.delete_threads(request.thread_ids))


def _ttl(given: pb.ThreadTtl) -> pb.ThreadTtl | None:
    """The time to live that a request gives; None for good."""
    if not given.minutes:
        return None
    return pb.ThreadTtl(minutes=given.minutes, strategy=given.strategy or pb.THREAD_TTL_STRATEGY_DELETE)


def _where(request: pb.SearchThreadsRequest | pb.CountThreadsRequest, call: Call) -> list[Where]:
    known_statuses("statuses", request.statuses)
    return filters(call, request, thread_ids="thread_id", statuses="status", metadata="metadata", values="values")


async def _mismatch(thread_id: str, call: Call) -> NotFound | StatusMismatch:
    """Why no row of the thread could be changed."""
    current = await call.rows.get(THREADS, Equals("thread_id", thread_id), access=Access.OWN)
    if current is None:
        return NotFound("thread", thread_id)
    return StatusMismatch(THREAD_STATUS.get(current.status, ""))


def _check_parent(text: str) -> None:
    if text and text.lstrip()[:1] != "{" and text.strip() != "null":
        raise InvalidRequest(violations={"parent_checkpoint": "must be a JSON object or null"})


def _same_state(sent: pb.ThreadState, kept: pb.ThreadState) -> bool:
    """Whether a state that was sent again is the one that is kept. Its parent, when not sent, is the server's."""
    same = sent.next == kept.next
    for name, default in (("values", "{}"), ("tasks", "[]"), ("metadata", "{}"), ("interrupts", "[]")):
        same = same and equal(getattr(sent, name) or default, getattr(kept, name) or default)
    return same and (not sent.parent_checkpoint or equal(sent.parent_checkpoint, kept.parent_checkpoint or "null"))
