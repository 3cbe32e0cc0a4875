"""Actions that change attributes: pure functions on the `KeyValue`s of projections.

Insert, update, copy and delete only move serialized values; hash, extract and convert decode them.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.attributes import INT64, Raw, as_string, decode, encode, find, put

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.model.attributes import Attributes
    from otelwp_agent.model.batch import Origin

    Apply = Callable[[Attributes, Origin], bool]
    Source = Callable[[Attributes, Origin], bytes | None]
    Rewrite = Callable[[bytes], bytes | None]

Kind = Literal["insert", "update", "upsert", "delete", "hash", "extract", "convert"]
ConvertedType = Literal["int", "double", "string"]

_INTEGER = re.compile(r"[+-]?[0-9]+")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?:inf|infinity|nan)", re.IGNORECASE)


def header_of(name: str) -> str:
    """Return the name of the header that `from_context` reads for `name`."""
    return name.removeprefix("metadata.").lower()


def from_context(origin: Origin, name: str) -> bytes | None:
    """Return a header of the request as a serialized AnyValue, or `None`: `metadata.x` and `x` are the header `x`.

    The Collector's names `auth.…` and `client.address` are not supported and give `None`.
    """
    text = origin.headers.get(header_of(name))
    return None if text is None else pb.AnyValue(string_value=text.encode()).SerializeToString()


@dataclass(frozen=True, slots=True)
class Action:
    """One change to attributes. `config.attribute_actions` documents the fields and their valid combinations."""

    kind: Kind
    key: str = ""
    value: Raw = None
    from_attribute: str = ""
    from_context: str = ""
    default: Raw = None
    pattern: str = ""
    converted_type: ConvertedType = "string"

    def compile(self) -> Apply:
        """Return a function that applies the action to attributes and returns whether anything changed."""
        match self.kind:
            case "insert" | "update" | "upsert":
                return _compile_set(self)
            case "delete":
                return _compile_delete(self)
            case "hash":
                return _compile_hash(self)
            case "extract":
                return _compile_extract(self)
            case "convert":
                return _compile_convert(self)


def compile_actions(actions: list[Action]) -> Apply:
    """Return a function that applies all `actions` in order and returns whether anything changed."""
    applies = [action.compile() for action in actions]

    def apply(attributes: Attributes, origin: Origin) -> bool:
        changed = False
        for each in applies:
            if each(attributes, origin):
                changed = True
        return changed

    return apply


class Shortcut:
    """Effect of actions on attributes that have none of the actions' keys: only additions.

    Whether it applies is known without parsing: if the bytes of a key do not occur in a serialized item or request, the
    attribute does not exist there.
    """

    __slots__ = ("_additions", "keys")

    def __init__(self, keys: list[bytes], additions: list[tuple[bytes, Source]]) -> None:
        """Apply to data without any of `keys`; add the attributes of `additions`."""
        self.keys = keys
        self._additions = additions

    @classmethod
    def of(cls, actions: list[Action]) -> Shortcut | None:
        """Return the shortcut of `actions`; `None` if an action reads what another adds, or selects keys by pattern."""
        keys: set[bytes] = set()
        additions: dict[bytes, Source] = {}
        for action in actions:
            read = {name.encode() for name in (action.key, action.from_attribute) if name}
            if (action.pattern and action.kind != "extract") or not read.isdisjoint(additions):
                return None
            keys |= read
            if action.kind in ("insert", "upsert"):
                additions[action.key.encode()] = _source(action)
        return cls(sorted(keys), list(additions.items()))

    def holds(self, data: bytes) -> bool:
        """Whether `data` contains none of the keys."""
        return all(key not in data for key in self.keys)

    def added(self, origin: Origin) -> list[pb.KeyValue]:
        """Return the attributes to add."""
        values = [(key, source([], origin)) for key, source in self._additions]
        return [pb.KeyValue(key=key, value=value) for key, value in values if value is not None]


def _compile_set(action: Action) -> Apply:
    key, source = action.key.encode(), _source(action)
    inserts, updates = action.kind != "update", action.kind != "insert"

    def apply(attributes: Attributes, origin: Origin) -> bool:
        value = source(attributes, origin)
        if value is None:
            return False
        attribute = find(attributes, key)
        if attribute is None:
            if inserts:
                attributes.append(pb.KeyValue(key=key, value=value))
            return inserts
        if not updates or attribute.value == value:
            return False
        attribute.value = value
        return True

    return apply


def _source(action: Action) -> Source:
    """Return a function that returns an action's value, or `None` if there is no value."""
    value = value_of(action)
    if not action.from_attribute:
        return lambda _attributes, origin: value(origin)
    key = action.from_attribute.encode()

    def from_attribute(attributes: Attributes, origin: Origin) -> bytes | None:
        attribute = find(attributes, key)
        return value(origin) if attribute is None else attribute.value

    return from_attribute


def value_of(action: Action) -> Callable[[Origin], bytes | None]:
    """Return a function that returns an action's value if it is not that of an attribute; `None` if there is none."""
    default = None if action.default is None else encode(action.default)
    if not action.from_context:
        fixed = default if action.value is None else encode(action.value)
        return lambda _origin: fixed
    name = action.from_context

    def from_sender(origin: Origin) -> bytes | None:
        value = from_context(origin, name)
        return default if value is None else value

    return from_sender


def _named(action: Action) -> Callable[[bytes], bool]:
    """Return a function that returns whether the action selects a key, by `key` or `pattern`."""
    exact = action.key.encode()
    if not action.pattern:
        return exact.__eq__
    search = re.compile(action.pattern).search
    if not action.key:
        return lambda key: search(key.decode(errors="replace")) is not None
    return lambda key: key == exact or search(key.decode(errors="replace")) is not None


def _compile_delete(action: Action) -> Apply:
    named = _named(action)

    def apply(attributes: Attributes, _origin: Origin) -> bool:
        gone = [index for index, attribute in enumerate(attributes) if named(attribute.key)]
        for index in reversed(gone):
            del attributes[index]
        return bool(gone)

    return apply


def _compile_hash(action: Action) -> Apply:
    named = _named(action)

    def apply(attributes: Attributes, _origin: Origin) -> bool:
        changed = False
        for attribute in attributes:
            if named(attribute.key):
                attribute.value = hashed(attribute.value)
                changed = True
        return changed

    return apply


def hashed(value: bytes) -> bytes:
    """Return the SHA-256 of a value in hexadecimal as a serialized AnyValue; "" for an empty value."""
    if value[:1] == _STRING and 0 < len(value) - 2 == value[1] < 128:  # noqa: PLR2004 - the length of text is one byte
        return _DIGEST + hashlib.sha256(value[2:]).hexdigest().encode()
    data = to_bytes(decode(value))
    digest = hashlib.sha256(data).hexdigest().encode() if data else b""
    return pb.AnyValue(string_value=digest).SerializeToString()


_STRING = b"\n"
"""The tag of `AnyValue.string_value`."""
_DIGEST = _STRING + b"\x40"
"""The tag and length of a text of 64 bytes."""


def to_bytes(value: pb.AnyValue) -> bytes:
    """Return the bytes of a value that are hashed: text as UTF-8, numbers as 8 bytes, little-endian."""
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "bytes_value":
            return value.bytes_value
        case "bool_value":
            return b"\x01" if value.bool_value else b"\x00"
        case "int_value":
            return struct.pack("<q", value.int_value)
        case "double_value":
            return struct.pack("<d", value.double_value)
        case _:
            return as_string(value).encode()


def _compile_extract(action: Action) -> Apply:
    key = action.key.encode()
    names, extract = extractor(action.pattern)

    def apply(attributes: Attributes, _origin: Origin) -> bool:
        attribute = find(attributes, key)
        values = None if attribute is None else extract(attribute.value)
        if values is None:
            return False
        changed = False
        for name, value in zip(names, values, strict=True):
            changed |= put(attributes, name, value)
        return changed

    return apply


def extractor(expression: str) -> tuple[list[bytes], Callable[[bytes], tuple[bytes, ...] | None]]:
    """Return the names of the groups of a regular expression, and a function from a value to the groups' values.

    The function returns `None` if the value is not text or does not match.
    """
    pattern = re.compile(expression)
    numbers = list(pattern.groupindex.values())

    def extract(serialized: bytes) -> tuple[bytes, ...] | None:
        value = decode(serialized)
        if value.WhichOneof("value") != "string_value":
            return None
        match = pattern.search(value.string_value.decode(errors="replace"))
        if match is None:
            return None
        texts = [(match[number] or "").encode() for number in numbers]
        return tuple([pb.AnyValue(string_value=text).SerializeToString() for text in texts])

    return [name.encode() for name in pattern.groupindex], extract


def _compile_convert(action: Action) -> Apply:
    key = action.key.encode()
    convert = converter(action.converted_type)

    def apply(attributes: Attributes, _origin: Origin) -> bool:
        attribute = find(attributes, key)
        converted = None if attribute is None else convert(attribute.value)
        if attribute is None or converted is None:
            return False
        attribute.value = converted
        return True

    return apply


def converter(type_: ConvertedType) -> Rewrite:
    """Return a function that converts a value, and returns `None` if it has that type or cannot be converted."""
    convert = {"int": _to_int, "double": _to_double, "string": _to_string}[type_]

    def rewrite(value: bytes) -> bytes | None:
        converted = convert(decode(value))
        return None if converted is None else converted.SerializeToString()

    return rewrite


def _to_string(value: pb.AnyValue) -> pb.AnyValue | None:
    if value.WhichOneof("value") == "string_value":
        return None
    return pb.AnyValue(string_value=as_string(value).encode())


def _to_int(value: pb.AnyValue) -> pb.AnyValue | None:
    """Return the value as an integer; `None` if it already is one or cannot be converted."""
    number: int | None = None
    match value.WhichOneof("value"):
        case "double_value" if math.isfinite(value.double_value):
            number = int(value.double_value)
        case "bool_value":
            number = int(value.bool_value)
        case "string_value":
            text = value.string_value.decode(errors="replace")
            number = int(text) if _INTEGER.fullmatch(text) and len(text) <= 20 else None  # noqa: PLR2004 - sign, 19 digits
    return None if number is None or number not in INT64 else pb.AnyValue(int_value=number)


def _to_double(value: pb.AnyValue) -> pb.AnyValue | None:
    """Return the value as a double; `None` if it already is one or cannot be converted."""
    match value.WhichOneof("value"):
        case "int_value":
            return pb.AnyValue(double_value=float(value.int_value))
        case "bool_value":
            return pb.AnyValue(double_value=float(value.bool_value))
        case "string_value":
            text = value.string_value.decode(errors="replace")
            return pb.AnyValue(double_value=float(text)) if _FLOAT.fullmatch(text) else None
        case _:
            return None
