from agentstorage.v1 import common_pb2 as _common_pb2
from agentstorage.v1 import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Limits(_message.Message):
    __slots__ = ("message_bytes", "json_bytes", "json_depth", "namespace_labels", "id_bytes", "page_size", "batch_operations", "call_seconds", "calls_in_flight", "exchange_calls", "blob_bytes")
    MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    JSON_BYTES_FIELD_NUMBER: _ClassVar[int]
    JSON_DEPTH_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_LABELS_FIELD_NUMBER: _ClassVar[int]
    ID_BYTES_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    BATCH_OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    CALL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CALLS_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_CALLS_FIELD_NUMBER: _ClassVar[int]
    BLOB_BYTES_FIELD_NUMBER: _ClassVar[int]
    message_bytes: int
    json_bytes: int
    json_depth: int
    namespace_labels: int
    id_bytes: int
    page_size: int
    batch_operations: int
    call_seconds: float
    calls_in_flight: int
    exchange_calls: int
    blob_bytes: int
    def __init__(self, message_bytes: _Optional[int] = ..., json_bytes: _Optional[int] = ..., json_depth: _Optional[int] = ..., namespace_labels: _Optional[int] = ..., id_bytes: _Optional[int] = ..., page_size: _Optional[int] = ..., batch_operations: _Optional[int] = ..., call_seconds: _Optional[float] = ..., calls_in_flight: _Optional[int] = ..., exchange_calls: _Optional[int] = ..., blob_bytes: _Optional[int] = ...) -> None: ...

class PoolFigures(_message.Message):
    __slots__ = ("size", "max_size", "available", "waiting")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_SIZE_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    size: int
    max_size: int
    available: int
    waiting: int
    def __init__(self, size: _Optional[int] = ..., max_size: _Optional[int] = ..., available: _Optional[int] = ..., waiting: _Optional[int] = ...) -> None: ...

class MethodFigures(_message.Message):
    __slots__ = ("method", "calls", "failed", "seconds", "longest_seconds")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    LONGEST_SECONDS_FIELD_NUMBER: _ClassVar[int]
    method: str
    calls: int
    failed: int
    seconds: float
    longest_seconds: float
    def __init__(self, method: _Optional[str] = ..., calls: _Optional[int] = ..., failed: _Optional[int] = ..., seconds: _Optional[float] = ..., longest_seconds: _Optional[float] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "backend", "schema_revision", "capabilities", "limits", "pool", "methods")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_REVISION_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    METHODS_FIELD_NUMBER: _ClassVar[int]
    version: str
    backend: str
    schema_revision: int
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    limits: Limits
    pool: PoolFigures
    methods: _containers.RepeatedCompositeFieldContainer[MethodFigures]
    def __init__(self, version: _Optional[str] = ..., backend: _Optional[str] = ..., schema_revision: _Optional[int] = ..., capabilities: _Optional[_Iterable[str]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., pool: _Optional[_Union[PoolFigures, _Mapping]] = ..., methods: _Optional[_Iterable[_Union[MethodFigures, _Mapping]]] = ...) -> None: ...

class TruncateRequest(_message.Message):
    __slots__ = ("resources",)
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    resources: _containers.RepeatedScalarFieldContainer[_common_pb2.Resource]
    def __init__(self, resources: _Optional[_Iterable[_Union[_common_pb2.Resource, str]]] = ...) -> None: ...

class TruncateResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
