import datetime

from agentstorage.v1 import common_pb2 as _common_pb2
from agentstorage.v1 import options_pb2 as _options_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AssistantSort(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ASSISTANT_SORT_UNSPECIFIED: _ClassVar[AssistantSort]
    ASSISTANT_SORT_CREATED_AT: _ClassVar[AssistantSort]
    ASSISTANT_SORT_UPDATED_AT: _ClassVar[AssistantSort]
    ASSISTANT_SORT_NAME: _ClassVar[AssistantSort]
    ASSISTANT_SORT_GRAPH_ID: _ClassVar[AssistantSort]
    ASSISTANT_SORT_ASSISTANT_ID: _ClassVar[AssistantSort]
ASSISTANT_SORT_UNSPECIFIED: AssistantSort
ASSISTANT_SORT_CREATED_AT: AssistantSort
ASSISTANT_SORT_UPDATED_AT: AssistantSort
ASSISTANT_SORT_NAME: AssistantSort
ASSISTANT_SORT_GRAPH_ID: AssistantSort
ASSISTANT_SORT_ASSISTANT_ID: AssistantSort

class Assistant(_message.Message):
    __slots__ = ("assistant_id", "graph_id", "name", "description", "config", "context", "metadata", "version", "created_at", "updated_at")
    ASSISTANT_ID_FIELD_NUMBER: _ClassVar[int]
    GRAPH_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    assistant_id: str
    graph_id: str
    name: str
    description: str
    config: str
    context: str
    metadata: str
    version: int
    created_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    def __init__(self, assistant_id: _Optional[str] = ..., graph_id: _Optional[str] = ..., name: _Optional[str] = ..., description: _Optional[str] = ..., config: _Optional[str] = ..., context: _Optional[str] = ..., metadata: _Optional[str] = ..., version: _Optional[int] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CreateAssistantRequest(_message.Message):
    __slots__ = ("owner_id", "assistant_id", "graph_id", "name", "description", "config", "context", "metadata", "if_exists", "request_id")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    ASSISTANT_ID_FIELD_NUMBER: _ClassVar[int]
    GRAPH_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    IF_EXISTS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    assistant_id: str
    graph_id: str
    name: str
    description: str
    config: str
    context: str
    metadata: str
    if_exists: _common_pb2.IfExists
    request_id: str
    def __init__(self, owner_id: _Optional[str] = ..., assistant_id: _Optional[str] = ..., graph_id: _Optional[str] = ..., name: _Optional[str] = ..., description: _Optional[str] = ..., config: _Optional[str] = ..., context: _Optional[str] = ..., metadata: _Optional[str] = ..., if_exists: _Optional[_Union[_common_pb2.IfExists, str]] = ..., request_id: _Optional[str] = ...) -> None: ...

class CreateAssistantResponse(_message.Message):
    __slots__ = ("assistant",)
    ASSISTANT_FIELD_NUMBER: _ClassVar[int]
    assistant: Assistant
    def __init__(self, assistant: _Optional[_Union[Assistant, _Mapping]] = ...) -> None: ...

class GetAssistantRequest(_message.Message):
    __slots__ = ("owner_id", "assistant_id")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    ASSISTANT_ID_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    assistant_id: str
    def __init__(self, owner_id: _Optional[str] = ..., assistant_id: _Optional[str] = ...) -> None: ...

class GetAssistantResponse(_message.Message):
    __slots__ = ("assistant",)
    ASSISTANT_FIELD_NUMBER: _ClassVar[int]
    assistant: Assistant
    def __init__(self, assistant: _Optional[_Union[Assistant, _Mapping]] = ...) -> None: ...

class UpdateAssistantRequest(_message.Message):
    __slots__ = ("owner_id", "assistant_id", "graph_id", "name", "description", "config", "context", "metadata", "remove_metadata_keys", "expected_version")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    ASSISTANT_ID_FIELD_NUMBER: _ClassVar[int]
    GRAPH_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    REMOVE_METADATA_KEYS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    assistant_id: str
    graph_id: str
    name: str
    description: str
    config: str
    context: str
    metadata: str
    remove_metadata_keys: _containers.RepeatedScalarFieldContainer[str]
    expected_version: int
    def __init__(self, owner_id: _Optional[str] = ..., assistant_id: _Optional[str] = ..., graph_id: _Optional[str] = ..., name: _Optional[str] = ..., description: _Optional[str] = ..., config: _Optional[str] = ..., context: _Optional[str] = ..., metadata: _Optional[str] = ..., remove_metadata_keys: _Optional[_Iterable[str]] = ..., expected_version: _Optional[int] = ...) -> None: ...

class UpdateAssistantResponse(_message.Message):
    __slots__ = ("assistant",)
    ASSISTANT_FIELD_NUMBER: _ClassVar[int]
    assistant: Assistant
    def __init__(self, assistant: _Optional[_Union[Assistant, _Mapping]] = ...) -> None: ...

class DeleteAssistantRequest(_message.Message):
    __slots__ = ("owner_id", "assistant_id", "delete_threads", "allow_missing")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    ASSISTANT_ID_FIELD_NUMBER: _ClassVar[int]
    DELETE_THREADS_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    assistant_id: str
    delete_threads: bool
    allow_missing: bool
    def __init__(self, owner_id: _Optional[str] = ..., assistant_id: _Optional[str] = ..., delete_threads: bool = ..., allow_missing: bool = ...) -> None: ...

class DeleteAssistantResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SearchAssistantsRequest(_message.Message):
    __slots__ = ("owner_id", "assistant_ids", "graph_id", "name", "metadata", "sort_by", "sort_order", "page_size", "page_token", "offset", "fields")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    ASSISTANT_IDS_FIELD_NUMBER: _ClassVar[int]
    GRAPH_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    SORT_BY_FIELD_NUMBER: _ClassVar[int]
    SORT_ORDER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    assistant_ids: _containers.RepeatedScalarFieldContainer[str]
    graph_id: str
    name: str
    metadata: str
    sort_by: AssistantSort
    sort_order: _common_pb2.SortOrder
    page_size: int
    page_token: str
    offset: int
    fields: _field_mask_pb2.FieldMask
    def __init__(self, owner_id: _Optional[str] = ..., assistant_ids: _Optional[_Iterable[str]] = ..., graph_id: _Optional[str] = ..., name: _Optional[str] = ..., metadata: _Optional[str] = ..., sort_by: _Optional[_Union[AssistantSort, str]] = ..., sort_order: _Optional[_Union[_common_pb2.SortOrder, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., offset: _Optional[int] = ..., fields: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class SearchAssistantsResponse(_message.Message):
    __slots__ = ("assistants", "next_page_token")
    ASSISTANTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    assistants: _containers.RepeatedCompositeFieldContainer[Assistant]
    next_page_token: str
    def __init__(self, assistants: _Optional[_Iterable[_Union[Assistant, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CountAssistantsRequest(_message.Message):
    __slots__ = ("owner_id", "assistant_ids", "graph_id", "name", "metadata")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    ASSISTANT_IDS_FIELD_NUMBER: _ClassVar[int]
    GRAPH_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    assistant_ids: _containers.RepeatedScalarFieldContainer[str]
    graph_id: str
    name: str
    metadata: str
    def __init__(self, owner_id: _Optional[str] = ..., assistant_ids: _Optional[_Iterable[str]] = ..., graph_id: _Optional[str] = ..., name: _Optional[str] = ..., metadata: _Optional[str] = ...) -> None: ...

class CountAssistantsResponse(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class ListAssistantVersionsRequest(_message.Message):
    __slots__ = ("owner_id", "assistant_id", "metadata", "page_size", "page_token", "offset")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    ASSISTANT_ID_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    assistant_id: str
    metadata: str
    page_size: int
    page_token: str
    offset: int
    def __init__(self, owner_id: _Optional[str] = ..., assistant_id: _Optional[str] = ..., metadata: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class ListAssistantVersionsResponse(_message.Message):
    __slots__ = ("versions", "next_page_token")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[Assistant]
    next_page_token: str
    def __init__(self, versions: _Optional[_Iterable[_Union[Assistant, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class SetLatestAssistantVersionRequest(_message.Message):
    __slots__ = ("owner_id", "assistant_id", "version")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    ASSISTANT_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    assistant_id: str
    version: int
    def __init__(self, owner_id: _Optional[str] = ..., assistant_id: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class SetLatestAssistantVersionResponse(_message.Message):
    __slots__ = ("assistant",)
    ASSISTANT_FIELD_NUMBER: _ClassVar[int]
    assistant: Assistant
    def __init__(self, assistant: _Optional[_Union[Assistant, _Mapping]] = ...) -> None: ...
