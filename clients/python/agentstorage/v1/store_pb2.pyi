import datetime

from agentstorage.v1 import common_pb2 as _common_pb2
from agentstorage.v1 import options_pb2 as _options_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class VectorDistance(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VECTOR_DISTANCE_UNSPECIFIED: _ClassVar[VectorDistance]
    VECTOR_DISTANCE_COSINE: _ClassVar[VectorDistance]
    VECTOR_DISTANCE_L2: _ClassVar[VectorDistance]
    VECTOR_DISTANCE_INNER_PRODUCT: _ClassVar[VectorDistance]

class FilterOperator(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FILTER_OPERATOR_UNSPECIFIED: _ClassVar[FilterOperator]
    FILTER_OPERATOR_EQ: _ClassVar[FilterOperator]
    FILTER_OPERATOR_NE: _ClassVar[FilterOperator]
    FILTER_OPERATOR_GT: _ClassVar[FilterOperator]
    FILTER_OPERATOR_GTE: _ClassVar[FilterOperator]
    FILTER_OPERATOR_LT: _ClassVar[FilterOperator]
    FILTER_OPERATOR_LTE: _ClassVar[FilterOperator]

class ItemSort(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ITEM_SORT_UNSPECIFIED: _ClassVar[ItemSort]
    ITEM_SORT_UPDATED_AT: _ClassVar[ItemSort]
    ITEM_SORT_KEY: _ClassVar[ItemSort]

class NamespaceMatchType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NAMESPACE_MATCH_TYPE_UNSPECIFIED: _ClassVar[NamespaceMatchType]
    NAMESPACE_MATCH_TYPE_PREFIX: _ClassVar[NamespaceMatchType]
    NAMESPACE_MATCH_TYPE_SUFFIX: _ClassVar[NamespaceMatchType]
VECTOR_DISTANCE_UNSPECIFIED: VectorDistance
VECTOR_DISTANCE_COSINE: VectorDistance
VECTOR_DISTANCE_L2: VectorDistance
VECTOR_DISTANCE_INNER_PRODUCT: VectorDistance
FILTER_OPERATOR_UNSPECIFIED: FilterOperator
FILTER_OPERATOR_EQ: FilterOperator
FILTER_OPERATOR_NE: FilterOperator
FILTER_OPERATOR_GT: FilterOperator
FILTER_OPERATOR_GTE: FilterOperator
FILTER_OPERATOR_LT: FilterOperator
FILTER_OPERATOR_LTE: FilterOperator
ITEM_SORT_UNSPECIFIED: ItemSort
ITEM_SORT_UPDATED_AT: ItemSort
ITEM_SORT_KEY: ItemSort
NAMESPACE_MATCH_TYPE_UNSPECIFIED: NamespaceMatchType
NAMESPACE_MATCH_TYPE_PREFIX: NamespaceMatchType
NAMESPACE_MATCH_TYPE_SUFFIX: NamespaceMatchType

class Item(_message.Message):
    __slots__ = ("namespace", "key", "value", "metadata", "version", "created_at", "updated_at", "expires_at", "ttl_minutes", "score")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    TTL_MINUTES_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    namespace: _containers.RepeatedScalarFieldContainer[str]
    key: str
    value: str
    metadata: str
    version: int
    created_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    expires_at: _timestamp_pb2.Timestamp
    ttl_minutes: float
    score: float
    def __init__(self, namespace: _Optional[_Iterable[str]] = ..., key: _Optional[str] = ..., value: _Optional[str] = ..., metadata: _Optional[str] = ..., version: _Optional[int] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ttl_minutes: _Optional[float] = ..., score: _Optional[float] = ...) -> None: ...

class ItemVector(_message.Message):
    __slots__ = ("field", "values")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    field: str
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, field: _Optional[str] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("key", "operator", "operand")
    KEY_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    OPERAND_FIELD_NUMBER: _ClassVar[int]
    key: str
    operator: FilterOperator
    operand: str
    def __init__(self, key: _Optional[str] = ..., operator: _Optional[_Union[FilterOperator, str]] = ..., operand: _Optional[str] = ...) -> None: ...

class NamespaceMatch(_message.Message):
    __slots__ = ("match_type", "path")
    MATCH_TYPE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    match_type: NamespaceMatchType
    path: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, match_type: _Optional[_Union[NamespaceMatchType, str]] = ..., path: _Optional[_Iterable[str]] = ...) -> None: ...

class PutOperation(_message.Message):
    __slots__ = ("namespace", "key", "value", "metadata", "expected_version", "ttl_minutes", "vectors")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    TTL_MINUTES_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    namespace: _containers.RepeatedScalarFieldContainer[str]
    key: str
    value: str
    metadata: str
    expected_version: int
    ttl_minutes: float
    vectors: _containers.RepeatedCompositeFieldContainer[ItemVector]
    def __init__(self, namespace: _Optional[_Iterable[str]] = ..., key: _Optional[str] = ..., value: _Optional[str] = ..., metadata: _Optional[str] = ..., expected_version: _Optional[int] = ..., ttl_minutes: _Optional[float] = ..., vectors: _Optional[_Iterable[_Union[ItemVector, _Mapping]]] = ...) -> None: ...

class GetOperation(_message.Message):
    __slots__ = ("namespace", "key", "refresh_ttl")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    REFRESH_TTL_FIELD_NUMBER: _ClassVar[int]
    namespace: _containers.RepeatedScalarFieldContainer[str]
    key: str
    refresh_ttl: bool
    def __init__(self, namespace: _Optional[_Iterable[str]] = ..., key: _Optional[str] = ..., refresh_ttl: bool = ...) -> None: ...

class DeleteOperation(_message.Message):
    __slots__ = ("namespace", "key")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    namespace: _containers.RepeatedScalarFieldContainer[str]
    key: str
    def __init__(self, namespace: _Optional[_Iterable[str]] = ..., key: _Optional[str] = ...) -> None: ...

class SearchOperation(_message.Message):
    __slots__ = ("namespace_prefix", "key_prefix", "filters", "sort_by", "sort_order", "limit", "offset", "refresh_ttl", "exact_namespace", "vector", "distance")
    NAMESPACE_PREFIX_FIELD_NUMBER: _ClassVar[int]
    KEY_PREFIX_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    SORT_BY_FIELD_NUMBER: _ClassVar[int]
    SORT_ORDER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    REFRESH_TTL_FIELD_NUMBER: _ClassVar[int]
    EXACT_NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    namespace_prefix: _containers.RepeatedScalarFieldContainer[str]
    key_prefix: str
    filters: _containers.RepeatedCompositeFieldContainer[Filter]
    sort_by: ItemSort
    sort_order: _common_pb2.SortOrder
    limit: int
    offset: int
    refresh_ttl: bool
    exact_namespace: bool
    vector: _containers.RepeatedScalarFieldContainer[float]
    distance: VectorDistance
    def __init__(self, namespace_prefix: _Optional[_Iterable[str]] = ..., key_prefix: _Optional[str] = ..., filters: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ..., sort_by: _Optional[_Union[ItemSort, str]] = ..., sort_order: _Optional[_Union[_common_pb2.SortOrder, str]] = ..., limit: _Optional[int] = ..., offset: _Optional[int] = ..., refresh_ttl: bool = ..., exact_namespace: bool = ..., vector: _Optional[_Iterable[float]] = ..., distance: _Optional[_Union[VectorDistance, str]] = ...) -> None: ...

class ListNamespacesOperation(_message.Message):
    __slots__ = ("matches", "max_depth", "limit", "offset")
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    MAX_DEPTH_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    matches: _containers.RepeatedCompositeFieldContainer[NamespaceMatch]
    max_depth: int
    limit: int
    offset: int
    def __init__(self, matches: _Optional[_Iterable[_Union[NamespaceMatch, _Mapping]]] = ..., max_depth: _Optional[int] = ..., limit: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class Operation(_message.Message):
    __slots__ = ("put", "get", "delete", "search", "list_namespaces")
    PUT_FIELD_NUMBER: _ClassVar[int]
    GET_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    LIST_NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    put: PutOperation
    get: GetOperation
    delete: DeleteOperation
    search: SearchOperation
    list_namespaces: ListNamespacesOperation
    def __init__(self, put: _Optional[_Union[PutOperation, _Mapping]] = ..., get: _Optional[_Union[GetOperation, _Mapping]] = ..., delete: _Optional[_Union[DeleteOperation, _Mapping]] = ..., search: _Optional[_Union[SearchOperation, _Mapping]] = ..., list_namespaces: _Optional[_Union[ListNamespacesOperation, _Mapping]] = ...) -> None: ...

class OperationResult(_message.Message):
    __slots__ = ("put", "get", "delete", "search", "list_namespaces")
    PUT_FIELD_NUMBER: _ClassVar[int]
    GET_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    LIST_NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    put: PutItemResponse
    get: GetItemResponse
    delete: DeleteItemResponse
    search: SearchItemsResponse
    list_namespaces: ListNamespacesResponse
    def __init__(self, put: _Optional[_Union[PutItemResponse, _Mapping]] = ..., get: _Optional[_Union[GetItemResponse, _Mapping]] = ..., delete: _Optional[_Union[DeleteItemResponse, _Mapping]] = ..., search: _Optional[_Union[SearchItemsResponse, _Mapping]] = ..., list_namespaces: _Optional[_Union[ListNamespacesResponse, _Mapping]] = ...) -> None: ...

class BatchRequest(_message.Message):
    __slots__ = ("owner_id", "operations")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    operations: _containers.RepeatedCompositeFieldContainer[Operation]
    def __init__(self, owner_id: _Optional[str] = ..., operations: _Optional[_Iterable[_Union[Operation, _Mapping]]] = ...) -> None: ...

class BatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[OperationResult]
    def __init__(self, results: _Optional[_Iterable[_Union[OperationResult, _Mapping]]] = ...) -> None: ...

class PutItemRequest(_message.Message):
    __slots__ = ("owner_id", "namespace", "key", "value", "metadata", "expected_version", "ttl_minutes", "vectors")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    TTL_MINUTES_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    namespace: _containers.RepeatedScalarFieldContainer[str]
    key: str
    value: str
    metadata: str
    expected_version: int
    ttl_minutes: float
    vectors: _containers.RepeatedCompositeFieldContainer[ItemVector]
    def __init__(self, owner_id: _Optional[str] = ..., namespace: _Optional[_Iterable[str]] = ..., key: _Optional[str] = ..., value: _Optional[str] = ..., metadata: _Optional[str] = ..., expected_version: _Optional[int] = ..., ttl_minutes: _Optional[float] = ..., vectors: _Optional[_Iterable[_Union[ItemVector, _Mapping]]] = ...) -> None: ...

class PutItemResponse(_message.Message):
    __slots__ = ("item",)
    ITEM_FIELD_NUMBER: _ClassVar[int]
    item: Item
    def __init__(self, item: _Optional[_Union[Item, _Mapping]] = ...) -> None: ...

class GetItemRequest(_message.Message):
    __slots__ = ("owner_id", "namespace", "key", "refresh_ttl")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    REFRESH_TTL_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    namespace: _containers.RepeatedScalarFieldContainer[str]
    key: str
    refresh_ttl: bool
    def __init__(self, owner_id: _Optional[str] = ..., namespace: _Optional[_Iterable[str]] = ..., key: _Optional[str] = ..., refresh_ttl: bool = ...) -> None: ...

class GetItemResponse(_message.Message):
    __slots__ = ("item",)
    ITEM_FIELD_NUMBER: _ClassVar[int]
    item: Item
    def __init__(self, item: _Optional[_Union[Item, _Mapping]] = ...) -> None: ...

class DeleteItemRequest(_message.Message):
    __slots__ = ("owner_id", "namespace", "key", "allow_missing")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    namespace: _containers.RepeatedScalarFieldContainer[str]
    key: str
    allow_missing: bool
    def __init__(self, owner_id: _Optional[str] = ..., namespace: _Optional[_Iterable[str]] = ..., key: _Optional[str] = ..., allow_missing: bool = ...) -> None: ...

class DeleteItemResponse(_message.Message):
    __slots__ = ("deleted",)
    DELETED_FIELD_NUMBER: _ClassVar[int]
    deleted: bool
    def __init__(self, deleted: bool = ...) -> None: ...

class SearchItemsRequest(_message.Message):
    __slots__ = ("owner_id", "namespace_prefix", "key_prefix", "filters", "sort_by", "sort_order", "limit", "offset", "refresh_ttl", "exact_namespace", "vector", "distance")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_PREFIX_FIELD_NUMBER: _ClassVar[int]
    KEY_PREFIX_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    SORT_BY_FIELD_NUMBER: _ClassVar[int]
    SORT_ORDER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    REFRESH_TTL_FIELD_NUMBER: _ClassVar[int]
    EXACT_NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    namespace_prefix: _containers.RepeatedScalarFieldContainer[str]
    key_prefix: str
    filters: _containers.RepeatedCompositeFieldContainer[Filter]
    sort_by: ItemSort
    sort_order: _common_pb2.SortOrder
    limit: int
    offset: int
    refresh_ttl: bool
    exact_namespace: bool
    vector: _containers.RepeatedScalarFieldContainer[float]
    distance: VectorDistance
    def __init__(self, owner_id: _Optional[str] = ..., namespace_prefix: _Optional[_Iterable[str]] = ..., key_prefix: _Optional[str] = ..., filters: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ..., sort_by: _Optional[_Union[ItemSort, str]] = ..., sort_order: _Optional[_Union[_common_pb2.SortOrder, str]] = ..., limit: _Optional[int] = ..., offset: _Optional[int] = ..., refresh_ttl: bool = ..., exact_namespace: bool = ..., vector: _Optional[_Iterable[float]] = ..., distance: _Optional[_Union[VectorDistance, str]] = ...) -> None: ...

class SearchItemsResponse(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Item]
    def __init__(self, items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ...) -> None: ...

class ListNamespacesRequest(_message.Message):
    __slots__ = ("owner_id", "matches", "max_depth", "limit", "offset")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    MAX_DEPTH_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    matches: _containers.RepeatedCompositeFieldContainer[NamespaceMatch]
    max_depth: int
    limit: int
    offset: int
    def __init__(self, owner_id: _Optional[str] = ..., matches: _Optional[_Iterable[_Union[NamespaceMatch, _Mapping]]] = ..., max_depth: _Optional[int] = ..., limit: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class Namespace(_message.Message):
    __slots__ = ("labels",)
    LABELS_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, labels: _Optional[_Iterable[str]] = ...) -> None: ...

class ListNamespacesResponse(_message.Message):
    __slots__ = ("namespaces",)
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    namespaces: _containers.RepeatedCompositeFieldContainer[Namespace]
    def __init__(self, namespaces: _Optional[_Iterable[_Union[Namespace, _Mapping]]] = ...) -> None: ...

class DeleteNamespaceRequest(_message.Message):
    __slots__ = ("owner_id", "namespace")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    namespace: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, owner_id: _Optional[str] = ..., namespace: _Optional[_Iterable[str]] = ...) -> None: ...

class DeleteNamespaceResponse(_message.Message):
    __slots__ = ("deleted",)
    DELETED_FIELD_NUMBER: _ClassVar[int]
    deleted: int
    def __init__(self, deleted: _Optional[int] = ...) -> None: ...
