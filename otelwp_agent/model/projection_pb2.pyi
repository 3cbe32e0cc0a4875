from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Opaque(_message.Message):
    __slots__ = ("resources",)
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    resources: _containers.RepeatedCompositeFieldContainer[OpaqueResource]
    def __init__(self, resources: _Optional[_Iterable[_Union[OpaqueResource, _Mapping]]] = ...) -> None: ...

class OpaqueResource(_message.Message):
    __slots__ = ("scopes",)
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    scopes: _containers.RepeatedCompositeFieldContainer[OpaqueScope]
    def __init__(self, scopes: _Optional[_Iterable[_Union[OpaqueScope, _Mapping]]] = ...) -> None: ...

class OpaqueScope(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, items: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Resources(_message.Message):
    __slots__ = ("resources",)
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    resources: _containers.RepeatedCompositeFieldContainer[ResourceSlice]
    def __init__(self, resources: _Optional[_Iterable[_Union[ResourceSlice, _Mapping]]] = ...) -> None: ...

class ResourceSlice(_message.Message):
    __slots__ = ("resource", "scopes")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    resource: bytes
    scopes: _containers.RepeatedCompositeFieldContainer[OpaqueScope]
    def __init__(self, resource: _Optional[bytes] = ..., scopes: _Optional[_Iterable[_Union[OpaqueScope, _Mapping]]] = ...) -> None: ...

class Shape(_message.Message):
    __slots__ = ("resources",)
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    resources: _containers.RepeatedCompositeFieldContainer[ShapeResource]
    def __init__(self, resources: _Optional[_Iterable[_Union[ShapeResource, _Mapping]]] = ...) -> None: ...

class ShapeResource(_message.Message):
    __slots__ = ("resource", "scopes")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    resource: Anything
    scopes: _containers.RepeatedCompositeFieldContainer[ShapeScope]
    def __init__(self, resource: _Optional[_Union[Anything, _Mapping]] = ..., scopes: _Optional[_Iterable[_Union[ShapeScope, _Mapping]]] = ...) -> None: ...

class ShapeScope(_message.Message):
    __slots__ = ("scope", "items")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    scope: Anything
    items: _containers.RepeatedCompositeFieldContainer[Anything]
    def __init__(self, scope: _Optional[_Union[Anything, _Mapping]] = ..., items: _Optional[_Iterable[_Union[Anything, _Mapping]]] = ...) -> None: ...

class Anything(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Points(_message.Message):
    __slots__ = ("resources",)
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    resources: _containers.RepeatedCompositeFieldContainer[PointsResource]
    def __init__(self, resources: _Optional[_Iterable[_Union[PointsResource, _Mapping]]] = ...) -> None: ...

class PointsResource(_message.Message):
    __slots__ = ("scopes",)
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    scopes: _containers.RepeatedCompositeFieldContainer[PointsScope]
    def __init__(self, scopes: _Optional[_Iterable[_Union[PointsScope, _Mapping]]] = ...) -> None: ...

class PointsScope(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Metric]
    def __init__(self, items: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
    GAUGE_FIELD_NUMBER: _ClassVar[int]
    SUM_FIELD_NUMBER: _ClassVar[int]
    HISTOGRAM_FIELD_NUMBER: _ClassVar[int]
    EXPONENTIAL_HISTOGRAM_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    gauge: DataPoints
    sum: DataPoints
    histogram: DataPoints
    exponential_histogram: DataPoints
    summary: DataPoints
    def __init__(self, gauge: _Optional[_Union[DataPoints, _Mapping]] = ..., sum: _Optional[_Union[DataPoints, _Mapping]] = ..., histogram: _Optional[_Union[DataPoints, _Mapping]] = ..., exponential_histogram: _Optional[_Union[DataPoints, _Mapping]] = ..., summary: _Optional[_Union[DataPoints, _Mapping]] = ...) -> None: ...

class DataPoints(_message.Message):
    __slots__ = ("data_points",)
    DATA_POINTS_FIELD_NUMBER: _ClassVar[int]
    data_points: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, data_points: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Keys(_message.Message):
    __slots__ = ("resources",)
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    resources: _containers.RepeatedCompositeFieldContainer[KeysResource]
    def __init__(self, resources: _Optional[_Iterable[_Union[KeysResource, _Mapping]]] = ...) -> None: ...

class KeysResource(_message.Message):
    __slots__ = ("resource", "scopes")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    resource: bytes
    scopes: _containers.RepeatedCompositeFieldContainer[KeysScope]
    def __init__(self, resource: _Optional[bytes] = ..., scopes: _Optional[_Iterable[_Union[KeysScope, _Mapping]]] = ...) -> None: ...

class KeysScope(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Span]
    def __init__(self, items: _Optional[_Iterable[_Union[Span, _Mapping]]] = ...) -> None: ...

class Span(_message.Message):
    __slots__ = ("trace_id", "span_id", "trace_state", "parent_span_id", "kind", "start_time_unix_nano", "end_time_unix_nano", "status", "flags")
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    TRACE_STATE_FIELD_NUMBER: _ClassVar[int]
    PARENT_SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    START_TIME_UNIX_NANO_FIELD_NUMBER: _ClassVar[int]
    END_TIME_UNIX_NANO_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    trace_id: bytes
    span_id: bytes
    trace_state: str
    parent_span_id: bytes
    kind: int
    start_time_unix_nano: int
    end_time_unix_nano: int
    status: Status
    flags: int
    def __init__(self, trace_id: _Optional[bytes] = ..., span_id: _Optional[bytes] = ..., trace_state: _Optional[str] = ..., parent_span_id: _Optional[bytes] = ..., kind: _Optional[int] = ..., start_time_unix_nano: _Optional[int] = ..., end_time_unix_nano: _Optional[int] = ..., status: _Optional[_Union[Status, _Mapping]] = ..., flags: _Optional[int] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("code",)
    CODE_FIELD_NUMBER: _ClassVar[int]
    code: int
    def __init__(self, code: _Optional[int] = ...) -> None: ...
