"""AssistantService; the contract is in assistants.proto."""

from __future__ import annotations

from agentstorage.v1 import assistants_pb2 as pb
from storage_service.errors import NotFound, VersionMismatch
from storage_service.paging import Paging, order_by
from storage_service.services import Call, changes, contains, filters, id_for, keep_or_raise, stamp
from storage_service.store import Access, Order
from storage_service.store.tables import ASSISTANT_VERSIONS, ASSISTANTS
from storage_service.store.where import Equals, HasText, Where

_SORTS = ("created_at", "updated_at", "name", "graph_id", "assistant_id")


class AssistantService:
    """Assistants and their versions."""

    async def create_assistant(self, request: pb.CreateAssistantRequest, call: Call) -> pb.CreateAssistantResponse:
        assistant = pb.Assistant(
            assistant_id=id_for(request, call, request.assistant_id),
            graph_id=request.graph_id,
            name=request.name,
            description=request.description,
            config=request.config,
            context=request.context,
            metadata=request.metadata,
            version=1,
        )
        inserted = await call.rows.insert(ASSISTANTS, assistant, stamp(request, call))
        return pb.CreateAssistantResponse(
            assistant=keep_or_raise(ASSISTANTS, request, call, inserted, assistant.assistant_id)
        )

    async def get_assistant(self, request: pb.GetAssistantRequest, call: Call) -> pb.GetAssistantResponse:
        assistant = await call.rows.get(ASSISTANTS, Equals("assistant_id", request.assistant_id))
        if assistant is None:
            raise NotFound("assistant", request.assistant_id)
        return pb.GetAssistantResponse(assistant=assistant)

    async def update_assistant(self, request: pb.UpdateAssistantRequest, call: Call) -> pb.UpdateAssistantResponse:
        changed = changes(call, ASSISTANTS, request, "graph_id", "name", "description", "config", "context")
        expected = request.expected_version if request.HasField("expected_version") else None
        assistant = await call.rows.update_assistant(request.assistant_id, changed, expected)
        if assistant is None:
            current = await call.rows.get(ASSISTANTS, Equals("assistant_id", request.assistant_id), access=Access.OWN)
            if current is None:
                raise NotFound("assistant", request.assistant_id)
            raise VersionMismatch(current.version)
        return pb.UpdateAssistantResponse(assistant=assistant)

    async def delete_assistant(self, request: pb.DeleteAssistantRequest, call: Call) -> pb.DeleteAssistantResponse:
        deleted = await call.rows.delete_assistant(request.assistant_id, request.delete_threads)
        if not (deleted or request.allow_missing):
            raise NotFound("assistant", request.assistant_id)
        return pb.DeleteAssistantResponse()

    async def search_assistants(self, request: pb.SearchAssistantsRequest, call: Call) -> pb.SearchAssistantsResponse:
        paging = Paging(ASSISTANTS, order_by(request, _SORTS, "assistant_id"), request, call.scope)
        rows = await call.rows.find(ASSISTANTS, _where(request, call), paging.order, paging.page)
        rows, token = paging.cut(rows)
        return pb.SearchAssistantsResponse(assistants=rows, next_page_token=token)

    async def count_assistants(self, request: pb.CountAssistantsRequest, call: Call) -> pb.CountAssistantsResponse:
        return pb.CountAssistantsResponse(count=await call.rows.count(ASSISTANTS, _where(request, call)))

    async def list_assistant_versions(
        self, request: pb.ListAssistantVersionsRequest, call: Call
    ) -> pb.ListAssistantVersionsResponse:
        paging = Paging(ASSISTANT_VERSIONS, Order(("version",), True), request, call.scope)
        where = [contains(call, "metadata", request.metadata)] if request.metadata else []
        page = paging.page
        before = page.after[0] if page.after else None
        rows = await call.rows.list_versions(request.assistant_id, where, page.limit, page.offset, before)
        # Nothing found is no version only when there is an assistant at all.
        if not rows and await call.rows.count(ASSISTANTS, [Equals("assistant_id", request.assistant_id)]) == 0:
            raise NotFound("assistant", request.assistant_id)
        rows, token = paging.cut(rows)
        return pb.ListAssistantVersionsResponse(versions=rows, next_page_token=token)

    async def set_latest_assistant_version(
        self, request: pb.SetLatestAssistantVersionRequest, call: Call
    ) -> pb.SetLatestAssistantVersionResponse:
        assistant = await call.rows.set_latest_version(request.assistant_id, request.version)
        if assistant is None:
            own = await call.rows.get(ASSISTANTS, Equals("assistant_id", request.assistant_id), access=Access.OWN)
            raise NotFound("assistant" if own is None else "assistant version", request.assistant_id)
        return pb.SetLatestAssistantVersionResponse(assistant=assistant)


def _where(request: pb.SearchAssistantsRequest | pb.CountAssistantsRequest, call: Call) -> list[Where]:
    where = filters(call, request, assistant_ids="assistant_id", graph_id="graph_id", metadata="metadata")
    return [*where, HasText("name", request.name)] if request.name else where
