"""Attribute values, and the actions that change attributes: pure functions over the projections' `KeyValue`s.

A value stays serialized (`bytes` of an AnyValue) until an action must look into it; inserting, updating, copying and
deleting move bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import struct
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from google.protobuf.message import DecodeError

from otelwp_agent.model import projection_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, MutableSequence

    from otelwp_agent.model.batch import Origin

    Attributes = MutableSequence[pb.KeyValue]
    Apply = Callable[[Attributes, Origin], bool]
    Source = Callable[[Attributes, Origin], bytes | None]

Kind = Literal["insert", "update", "upsert", "delete", "hash", "extract", "convert"]
ConvertedType = Literal["int", "double", "string"]
Raw = bool | int | float | str | list["Raw"] | dict[str, "Raw"] | None
"""A value as YAML and JSON have it; its type decides the attribute's."""

_INT64 = range(-(2**63), 2**63)
_INTEGER = re.compile(r"[+-]?[0-9]+")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?:inf|infinity|nan)", re.IGNORECASE)
_DEEPEST = 64
"""Levels of arrays and maps that are written as JSON; what is nested deeper reads as null."""


def to_any(raw: Raw) -> pb.AnyValue:  # noqa: PLR0911 - one for each type
    """Return a value of YAML as an attribute value; `ValueError` for an integer beyond 64 bits."""
    if isinstance(raw, bool):
        return pb.AnyValue(bool_value=raw)
    if isinstance(raw, int):
        if raw not in _INT64:
            message = f"{raw} does not fit an integer attribute (64 bits, signed)"
            raise ValueError(message)
        return pb.AnyValue(int_value=raw)
    if isinstance(raw, float):
        return pb.AnyValue(double_value=raw)
    if isinstance(raw, str):
        return pb.AnyValue(string_value=raw.encode())
    if isinstance(raw, list):
        return pb.AnyValue(array_value=pb.ArrayValue(values=[to_any(item) for item in raw]))
    if isinstance(raw, dict):
        pairs = [pb.KeyValue(key=key.encode(), value=encode(item)) for key, item in raw.items()]
        return pb.AnyValue(kvlist_value=pb.KeyValueList(values=pairs))
    return pb.AnyValue()


def encode(raw: Raw) -> bytes:
    """Return a value of YAML as a serialized AnyValue."""
    return to_any(raw).SerializeToString()


def decode(value: bytes) -> pb.AnyValue:
    """Read a serialized AnyValue; one that does not parse reads as empty."""
    try:
        return pb.AnyValue.FromString(value)
    except DecodeError:
        return pb.AnyValue()


def as_string(value: pb.AnyValue) -> str:  # noqa: PLR0911 - one for each type
    """Return a value as text: JSON for arrays and maps, base64 for bytes, "" for none."""
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value.decode(errors="replace")
        case "bool_value":
            return "true" if value.bool_value else "false"
        case "int_value":
            return str(value.int_value)
        case "double_value":
            return format_float(value.double_value)
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case None:
            return ""
        case _:
            return json.dumps(_plain(value), separators=(",", ":"), ensure_ascii=False)


def format_float(number: float) -> str:
    """Return a double the way JSON writers outside Python do: `1`, not `1.0`; exponents below 1e-6 and from 1e21."""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "+Inf" if number > 0 else "-Inf"
    if number == 0:
        return "-0" if math.copysign(1, number) < 0 else "0"
    text = repr(number)
    if 1e-6 <= abs(number) < 1e21:  # noqa: PLR2004 - as encoding/json
        return format(Decimal(text.removesuffix(".0")), "f")
    digits, _, exponent = text.partition("e")
    return f"{digits}e{int(exponent):+d}"


def find(attributes: Attributes, key: bytes) -> pb.KeyValue | None:
    """Return the first attribute of that key."""
    for attribute in attributes:
        if attribute.key == key:
            return attribute
    return None


def put(attributes: Attributes, key: bytes, value: bytes) -> bool:
    """Set an attribute, in its place if it is there, else at the end; return whether that changed anything."""
    attribute = find(attributes, key)
    if attribute is None:
        attributes.append(pb.KeyValue(key=key, value=value))
        return True
    if attribute.value == value:
        return False
    attribute.value = value
    return True


def header_of(name: str) -> str:
    """Return the header that `from_context` reads for this name."""
    return name.removeprefix("metadata.").lower()


def from_context(origin: Origin, name: str) -> bytes | None:
    """Return what is known of the sender as a serialized AnyValue: `metadata.x`, or `x`, is its header `x`.

    Names that begin with `auth.`, and `client.address`, are never known here.
    """
    text = origin.headers.get(header_of(name))
    return None if text is None else pb.AnyValue(string_value=text.encode()).SerializeToString()


@dataclass(frozen=True, slots=True)
class Action:
    """One change of attributes. `config.attribute_actions` says what each field means and which go together."""

    kind: Kind
    key: str = ""
    value: Raw = None
    from_attribute: str = ""
    from_context: str = ""
    default: Raw = None
    pattern: str = ""
    converted_type: ConvertedType = "string"

    def compile(self) -> Apply:
        """Return a function that does it to attributes and says whether anything changed."""
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
    """Return a function that does all of them, in their order, and says whether anything changed."""
    applies = [action.compile() for action in actions]

    def apply(attributes: Attributes, origin: Origin) -> bool:
        changed = False
        for each in applies:
            if each(attributes, origin):
                changed = True
        return changed

    return apply


class Shortcut:
    """What actions do to attributes that have none of their keys: they add some, and nothing else.

    Whether a key is there can be seen without reading anything: if its bytes do not stand in the serialized item, or in
    the whole request, it is not.
    """

    __slots__ = ("_additions", "keys")

    def __init__(self, keys: list[bytes], additions: list[tuple[bytes, Source]]) -> None:
        """Hold for what has none of `keys`; add what `additions` give."""
        self.keys = keys
        self._additions = additions

    @classmethod
    def of(cls, actions: list[Action]) -> Shortcut | None:
        """Return that of these actions; `None` if they read what others of them add, or choose keys by pattern."""
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
        """Whether none of the keys stands in `data`."""
        return all(key not in data for key in self.keys)

    def added(self, origin: Origin) -> list[pb.KeyValue]:
        """Return the attributes that are added."""
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
    """Return where an action's value comes from; `None` when there is none."""
    default = None if action.default is None else encode(action.default)
    if action.from_attribute:
        key = action.from_attribute.encode()

        def from_attribute(attributes: Attributes, _origin: Origin) -> bytes | None:
            attribute = find(attributes, key)
            return default if attribute is None else attribute.value

        return from_attribute
    if action.from_context:
        name = action.from_context

        def from_sender(_attributes: Attributes, origin: Origin) -> bytes | None:
            value = from_context(origin, name)
            return default if value is None else value

        return from_sender
    value = default if action.value is None else encode(action.value)
    return lambda _attributes, _origin: value


def _named(action: Action) -> Callable[[bytes], bool]:
    """Return whether `key` or `pattern` names a key."""
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
                attribute.value = _hashed(attribute.value)
                changed = True
        return changed

    return apply


def _hashed(value: bytes) -> bytes:
    """Return the SHA-256 of a value in hexadecimal, as a serialized AnyValue; of an empty value, an empty string."""
    data = to_bytes(decode(value))
    digest = hashlib.sha256(data).hexdigest().encode() if data else b""
    return pb.AnyValue(string_value=digest).SerializeToString()


def to_bytes(value: pb.AnyValue) -> bytes:
    """Return the bytes that are hashed of a value: text as UTF-8, numbers as 8 bytes, the least significant first."""
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
    pattern = re.compile(action.pattern)
    groups = [(name.encode(), number) for name, number in pattern.groupindex.items()]

    def apply(attributes: Attributes, _origin: Origin) -> bool:
        attribute = find(attributes, key)
        if attribute is None:
            return False
        value = decode(attribute.value)
        if value.WhichOneof("value") != "string_value":
            return False
        match = pattern.search(value.string_value.decode(errors="replace"))
        if match is None:
            return False
        changed = False
        for name, number in groups:
            text = match[number] or ""
            changed |= put(attributes, name, pb.AnyValue(string_value=text.encode()).SerializeToString())
        return changed

    return apply


def _compile_convert(action: Action) -> Apply:
    key = action.key.encode()
    convert = {"int": _to_int, "double": _to_double, "string": _to_string}[action.converted_type]

    def apply(attributes: Attributes, _origin: Origin) -> bool:
        attribute = find(attributes, key)
        if attribute is None:
            return False
        converted = convert(decode(attribute.value))
        if converted is None:
            return False
        attribute.value = converted.SerializeToString()
        return True

    return apply


def _to_string(value: pb.AnyValue) -> pb.AnyValue | None:
    if value.WhichOneof("value") == "string_value":
        return None
    return pb.AnyValue(string_value=as_string(value).encode())


def _to_int(value: pb.AnyValue) -> pb.AnyValue | None:
    """Return the value as an integer; `None` if it is one already, or cannot be."""
    number: int | None = None
    match value.WhichOneof("value"):
        case "double_value" if math.isfinite(value.double_value):
            number = int(value.double_value)
        case "bool_value":
            number = int(value.bool_value)
        case "string_value":
            text = value.string_value.decode(errors="replace")
            number = int(text) if _INTEGER.fullmatch(text) and len(text) <= 20 else None  # noqa: PLR2004 - sign, 19 digits
    return None if number is None or number not in _INT64 else pb.AnyValue(int_value=number)


def _to_double(value: pb.AnyValue) -> pb.AnyValue | None:
    """Return the value as a double; `None` if it is one already, or cannot be."""
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


def _plain(value: pb.AnyValue, depth: int = 0) -> object:  # noqa: PLR0911 - one for each type
    """Return a value as JSON has it."""
    match value.WhichOneof("value"):
        case "array_value" | "kvlist_value" if depth == _DEEPEST:
            return None
        case "array_value":
            return [_plain(item, depth + 1) for item in value.array_value.values]
        case "kvlist_value":
            pairs = value.kvlist_value.values
            return {pair.key.decode(errors="replace"): _plain(decode(pair.value), depth + 1) for pair in pairs}
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value" if math.isfinite(value.double_value):
            return value.double_value
        case None:
            return None
        case _:
            return as_string(value)
