from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class EnvelopeHeader(_message.Message):
    __slots__ = ("version", "suite", "key_id", "customer", "agent", "time_unix_ms", "message_id", "purpose", "content_type", "signal", "encodings", "items", "plain_size")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SUITE_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    TIME_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    ENCODINGS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    PLAIN_SIZE_FIELD_NUMBER: _ClassVar[int]
    version: int
    suite: int
    key_id: str
    customer: str
    agent: str
    time_unix_ms: int
    message_id: bytes
    purpose: str
    content_type: str
    signal: str
    encodings: _containers.RepeatedScalarFieldContainer[str]
    items: int
    plain_size: int
    def __init__(self, version: _Optional[int] = ..., suite: _Optional[int] = ..., key_id: _Optional[str] = ..., customer: _Optional[str] = ..., agent: _Optional[str] = ..., time_unix_ms: _Optional[int] = ..., message_id: _Optional[bytes] = ..., purpose: _Optional[str] = ..., content_type: _Optional[str] = ..., signal: _Optional[str] = ..., encodings: _Optional[_Iterable[str]] = ..., items: _Optional[int] = ..., plain_size: _Optional[int] = ...) -> None: ...
