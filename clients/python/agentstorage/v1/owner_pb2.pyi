import datetime

from agentstorage.v1 import assistants_pb2 as _assistants_pb2
from agentstorage.v1 import common_pb2 as _common_pb2
from agentstorage.v1 import crons_pb2 as _crons_pb2
from agentstorage.v1 import options_pb2 as _options_pb2
from agentstorage.v1 import runs_pb2 as _runs_pb2
from agentstorage.v1 import store_pb2 as _store_pb2
from agentstorage.v1 import threads_pb2 as _threads_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
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
    __slots__ = ("assistants", "assistant_versions", "threads", "thread_states", "runs", "items", "crons", "displaced_items", "checkpoints", "checkpoint_blobs", "checkpoint_writes", "run_events")
    ASSISTANTS_FIELD_NUMBER: _ClassVar[int]
    ASSISTANT_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    THREAD_STATES_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    CRONS_FIELD_NUMBER: _ClassVar[int]
    DISPLACED_ITEMS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_BLOBS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_WRITES_FIELD_NUMBER: _ClassVar[int]
    RUN_EVENTS_FIELD_NUMBER: _ClassVar[int]
    assistants: _containers.RepeatedCompositeFieldContainer[_assistants_pb2.Assistant]
    assistant_versions: _containers.RepeatedCompositeFieldContainer[_assistants_pb2.Assistant]
    threads: _containers.RepeatedCompositeFieldContainer[_threads_pb2.Thread]
    thread_states: _containers.RepeatedCompositeFieldContainer[_threads_pb2.ThreadState]
    runs: _containers.RepeatedCompositeFieldContainer[_runs_pb2.Run]
    items: _containers.RepeatedCompositeFieldContainer[_store_pb2.Item]
    crons: _containers.RepeatedCompositeFieldContainer[_crons_pb2.Cron]
    displaced_items: _containers.RepeatedCompositeFieldContainer[DisplacedItem]
    checkpoints: _containers.RepeatedCompositeFieldContainer[ExportedCheckpoint]
    checkpoint_blobs: _containers.RepeatedCompositeFieldContainer[ExportedCheckpointBlob]
    checkpoint_writes: _containers.RepeatedCompositeFieldContainer[ExportedCheckpointWrite]
    run_events: _containers.RepeatedCompositeFieldContainer[_runs_pb2.RunEvent]
    def __init__(self, assistants: _Optional[_Iterable[_Union[_assistants_pb2.Assistant, _Mapping]]] = ..., assistant_versions: _Optional[_Iterable[_Union[_assistants_pb2.Assistant, _Mapping]]] = ..., threads: _Optional[_Iterable[_Union[_threads_pb2.Thread, _Mapping]]] = ..., thread_states: _Optional[_Iterable[_Union[_threads_pb2.ThreadState, _Mapping]]] = ..., runs: _Optional[_Iterable[_Union[_runs_pb2.Run, _Mapping]]] = ..., items: _Optional[_Iterable[_Union[_store_pb2.Item, _Mapping]]] = ..., crons: _Optional[_Iterable[_Union[_crons_pb2.Cron, _Mapping]]] = ..., displaced_items: _Optional[_Iterable[_Union[DisplacedItem, _Mapping]]] = ..., checkpoints: _Optional[_Iterable[_Union[ExportedCheckpoint, _Mapping]]] = ..., checkpoint_blobs: _Optional[_Iterable[_Union[ExportedCheckpointBlob, _Mapping]]] = ..., checkpoint_writes: _Optional[_Iterable[_Union[ExportedCheckpointWrite, _Mapping]]] = ..., run_events: _Optional[_Iterable[_Union[_runs_pb2.RunEvent, _Mapping]]] = ...) -> None: ...

class DisplacedItem(_message.Message):
    __slots__ = ("id", "namespace", "key", "value", "metadata", "created_at", "updated_at", "displaced_at", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    DISPLACED_AT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: int
    namespace: str
    key: str
    value: str
    metadata: str
    created_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    displaced_at: _timestamp_pb2.Timestamp
    reason: str
    def __init__(self, id: _Optional[int] = ..., namespace: _Optional[str] = ..., key: _Optional[str] = ..., value: _Optional[str] = ..., metadata: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., displaced_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class ExportedCheckpoint(_message.Message):
    __slots__ = ("thread_id", "checkpoint_ns", "checkpoint_id", "parent_checkpoint_id", "type", "checkpoint", "metadata")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_NS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str
    type: str
    checkpoint: str
    metadata: str
    def __init__(self, thread_id: _Optional[str] = ..., checkpoint_ns: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., parent_checkpoint_id: _Optional[str] = ..., type: _Optional[str] = ..., checkpoint: _Optional[str] = ..., metadata: _Optional[str] = ...) -> None: ...

class ExportedCheckpointBlob(_message.Message):
    __slots__ = ("thread_id", "checkpoint_ns", "channel", "version", "type", "blob")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_NS_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    checkpoint_ns: str
    channel: str
    version: str
    type: str
    blob: bytes
    def __init__(self, thread_id: _Optional[str] = ..., checkpoint_ns: _Optional[str] = ..., channel: _Optional[str] = ..., version: _Optional[str] = ..., type: _Optional[str] = ..., blob: _Optional[bytes] = ...) -> None: ...

class ExportedCheckpointWrite(_message.Message):
    __slots__ = ("thread_id", "checkpoint_ns", "checkpoint_id", "task_id", "idx", "channel", "type", "blob", "task_path")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_NS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    IDX_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    TASK_PATH_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    task_id: str
    idx: int
    channel: str
    type: str
    blob: bytes
    task_path: str
    def __init__(self, thread_id: _Optional[str] = ..., checkpoint_ns: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., task_id: _Optional[str] = ..., idx: _Optional[int] = ..., channel: _Optional[str] = ..., type: _Optional[str] = ..., blob: _Optional[bytes] = ..., task_path: _Optional[str] = ...) -> None: ...
