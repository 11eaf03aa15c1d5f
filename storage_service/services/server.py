"""ServerService; the contract is in server.proto."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentstorage.v1 import server_pb2 as pb
from storage_service.errors import Disabled, InvalidRequest
from storage_service.services import Call


class ServerService:
    """The server itself. ``figures`` tells how the calls of its methods went."""

    def __init__(
        self,
        *,
        version: str,
        limits: pb.Limits,
        capabilities: tuple[str, ...],
        allow_truncate: bool,
        figures: Callable[[], Sequence[pb.MethodFigures]],
    ) -> None:
        self._version = version
        self._limits = limits
        self._capabilities = capabilities
        self._allow_truncate = allow_truncate
        self._figures = figures

    async def get_server_info(self, request: pb.GetServerInfoRequest, call: Call) -> pb.GetServerInfoResponse:
        return pb.GetServerInfoResponse(
            version=self._version,
            backend=call.store.name,
            schema_revision=call.store.revision(),
            capabilities=self._capabilities,
            limits=self._limits,
            pool=call.store.pool(),
            methods=self._figures(),
        )

    async def truncate(self, request: pb.TruncateRequest, call: Call) -> pb.TruncateResponse:
        if not self._allow_truncate:
            raise Disabled("Truncate is off; the setting STORAGE_ALLOW_TRUNCATE turns it on, for tests")
        if 0 in request.resources:
            raise InvalidRequest(violations={"resources": "must not hold UNSPECIFIED"})
        await call.store.truncate(sorted(set(request.resources)))
        return pb.TruncateResponse()
