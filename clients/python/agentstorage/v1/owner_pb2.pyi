from agentstorage.v1 import assistants_pb2 as _assistants_pb2
from agentstorage.v1 import common_pb2 as _common_pb2
from agentstorage.v1 import crons_pb2 as _crons_pb2
from agentstorage.v1 import options_pb2 as _options_pb2
from agentstorage.v1 import runs_pb2 as _runs_pb2
from agentstorage.v1 import store_pb2 as _store_pb2
from agentstorage.v1 import threads_pb2 as _threads_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ResourceUsage(_message.Message):
    __slots__ = ("resource", "rows", "bytes")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    resource: _common_pb2.Resource
    rows: int
    bytes: int
    def __init__(self, resource: _Optional[_Union[_common_pb2.Resource, str]] = ..., rows: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class GetOwnerUsageRequest(_message.Message):
    __slots__ = ("owner_id",)
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    def __init__(self, owner_id: _Optional[str] = ...) -> None: ...

class GetOwnerUsageResponse(_message.Message):
    __slots__ = ("usage",)
    USAGE_FIELD_NUMBER: _ClassVar[int]
    usage: _containers.RepeatedCompositeFieldContainer[ResourceUsage]
    def __init__(self, usage: _Optional[_Iterable[_Union[ResourceUsage, _Mapping]]] = ...) -> None: ...

class EraseOwnerRequest(_message.Message):
    __slots__ = ("owner_id",)
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    def __init__(self, owner_id: _Optional[str] = ...) -> None: ...

class EraseOwnerResponse(_message.Message):
    __slots__ = ("done", "deleted")
    DONE_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    done: bool
    deleted: int
    def __init__(self, done: bool = ..., deleted: _Optional[int] = ...) -> None: ...

class ExportOwnerRequest(_message.Message):
    __slots__ = ("owner_id",)
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    def __init__(self, owner_id: _Optional[str] = ...) -> None: ...

class ExportOwnerResponse(_message.Message):
    __slots__ = ("assistants", "assistant_versions", "threads", "thread_states", "runs", "items", "crons")
    ASSISTANTS_FIELD_NUMBER: _ClassVar[int]
    ASSISTANT_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    THREAD_STATES_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    CRONS_FIELD_NUMBER: _ClassVar[int]
    assistants: _containers.RepeatedCompositeFieldContainer[_assistants_pb2.Assistant]
    assistant_versions: _containers.RepeatedCompositeFieldContainer[_assistants_pb2.Assistant]
    threads: _containers.RepeatedCompositeFieldContainer[_threads_pb2.Thread]
    thread_states: _containers.RepeatedCompositeFieldContainer[_threads_pb2.ThreadState]
    runs: _containers.RepeatedCompositeFieldContainer[_runs_pb2.Run]
    items: _containers.RepeatedCompositeFieldContainer[_store_pb2.Item]
    crons: _containers.RepeatedCompositeFieldContainer[_crons_pb2.Cron]
    def __init__(self, assistants: _Optional[_Iterable[_Union[_assistants_pb2.Assistant, _Mapping]]] = ..., assistant_versions: _Optional[_Iterable[_Union[_assistants_pb2.Assistant, _Mapping]]] = ..., threads: _Optional[_Iterable[_Union[_threads_pb2.Thread, _Mapping]]] = ..., thread_states: _Optional[_Iterable[_Union[_threads_pb2.ThreadState, _Mapping]]] = ..., runs: _Optional[_Iterable[_Union[_runs_pb2.Run, _Mapping]]] = ..., items: _Optional[_Iterable[_Union[_store_pb2.Item, _Mapping]]] = ..., crons: _Optional[_Iterable[_Union[_crons_pb2.Cron, _Mapping]]] = ...) -> None: ...
