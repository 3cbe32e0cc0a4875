"""Convert tags in Jaeger's JSON, in every form that senders use, to serialized attributes.

The regular form is a list of `{"key", "type", "value"}`. Also accepted are a map from key to value, a map with such
objects among its values (PHP's `$tags[] = …` on a map), and `[]` instead of an empty map. A tag without a type has the
type of its JSON value. The result for a short tag is cached, because tags are most of a span and are usually repeated.
"""

from __future__ import annotations

import base64
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson

from otelwp_agent.codecs import scalars
from otelwp_agent.codecs.jaeger.receiving import joined, kind_of, span_tag

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.codecs.jaeger.receiving import Specials
    from otelwp_agent.codecs.key_value import Value

    OnRepair = Callable[[str], None]

MAX_ENTRIES = 8192
"""Maximum number of cached tags, about 3 MB; when it is reached, all are removed."""

MAX_SIZE = 128
"""Maximum size in bytes of a cached serialized attribute."""

_INT64 = range(-(1 << 63), 1 << 63)
typed_tag = itemgetter("key", "type", "value")
known_tags: dict[object, bytes] = {}
"""Serialized tags by (key, type, value), or by (key, class, value, None) without a type."""


def decode(tags: Any, repaired: OnRepair) -> tuple[bytes, Specials]:  # noqa: ANN401 - any JSON value
    """Return a span's tags as its fields, and the tags that become other fields."""
    if not tags:
        return b"", {}
    if type(tags) is not list:
        tags = as_list(tags, repaired)
    known = known_tags.get
    specials: Specials = {}
    parts = []
    untyped = False
    identity: object
    for tag in tags:
        try:
            type_ = tag.get("type")
            if type_ is None:
                untyped = True
                value = tag["value"]
                identity = (tag["key"], value.__class__, value, None)
            else:
                identity = typed_tag(tag)
            found = known(identity)
        except (LookupError, TypeError, AttributeError):
            identity = found = None
        parts.append(_decode_one(tag, identity, specials, repaired) if found is None else found)
    if untyped:
        repaired("tag_without_type")
    return joined(parts, specials), specials


def pairs(tags: Any, repaired: OnRepair) -> list[tuple[str, Value]]:  # noqa: ANN401 - any JSON value
    """Return the tags of a process, or the fields of a log, as keys and values."""
    if not tags:
        return []
    found = (_pair(tag, repaired) for tag in (tags if type(tags) is list else as_list(tags, repaired)))
    return [pair for pair in found if pair is not None]


def as_list(tags: Any, repaired: OnRepair) -> list[Any]:  # noqa: ANN401 - any JSON value
    """Convert tags that are not a list to a list."""
    if tags is None:
        return []
    if type(tags) is not dict:
        repaired("tags_dropped")
        return []
    repaired("tags_map")
    return [
        value if type(value) is dict and "key" in value else {"key": key, "type": "", "value": value}
        for key, value in tags.items()
    ]


def has_kind(tags: Any) -> bool:  # noqa: ANN401 - any JSON value
    """Return whether a JSON tag contains the kind, or shows that there was no request.

    PHP's `http_response_code()` is false on the command line, and the first WordPress plugin sends that value.
    """
    if type(tags) is dict:
        return "span.kind" in tags or tags.get(_STATUS) is False or has_kind(list(tags.values()))
    return type(tags) is list and any(
        type(tag) is dict
        and (tag.get("key") == "span.kind" or (tag.get("key") == _STATUS and tag.get("value") is False))
        for tag in tags
    )


_STATUS = "http.status_code"


def always(tag: Any) -> bytes | None:  # noqa: ANN401 - any JSON value
    """Return a tag as a field of its span, if it always becomes this field; `None` otherwise."""
    repairs: list[str] = []
    pair = _pair(tag, repairs.append)
    if pair is None or repairs:
        return None
    specials: Specials = {}
    field = span_tag(*pair, specials)
    return None if specials or (pair[0] == "span.kind" and not kind_of([field])) else field


def _decode_one(tag: Any, identity: object, specials: Specials, repaired: OnRepair) -> bytes:  # noqa: ANN401 - any JSON value
    """Return an unknown tag as fields of its span, and cache it if the result is always the same."""
    repairs: list[str] = []
    pair = _pair(tag, repairs.append)
    for kind in repairs:
        repaired(kind)
    if pair is None:
        return b""
    is_field = pair[0] in specials
    body = span_tag(*pair, specials)
    # A second tag with such a key is an attribute, though the first is a field. Floats are not cached, because 0.0 and
    # -0.0 are equal as keys.
    is_field = is_field or pair[0] in specials
    if identity is not None and not repairs and not is_field and type(pair[1]) is not float:
        if len(known_tags) >= MAX_ENTRIES:
            known_tags.clear()
        if len(body) <= MAX_SIZE:
            known_tags[identity] = body
    return body


def _pair(tag: Any, repaired: OnRepair) -> tuple[str, Value] | None:  # noqa: ANN401 - any JSON value
    if type(tag) is not dict or "key" not in tag or tag["key"] == "":
        repaired("tags_dropped")
        return None
    key, value, type_ = tag["key"], tag.get("value"), tag.get("type")
    if type(key) is not str:
        repaired("tag_key")
        key = scalars.text(key)
    if value is None:
        repaired("null_value")
        return None
    return key, _typed(value, type_, repaired)


def _typed(value: Any, type_: Any, repaired: OnRepair) -> Value:  # noqa: ANN401 - any JSON value
    """Convert a value to its tag's type; keep its JSON type if the tag has no type or one that does not fit."""
    if type_:
        convert = _CONVERTERS.get(str(type_).lower())
        converted = convert(value) if convert is not None else None
        if converted is not None:
            return converted
        repaired("tag_type")
    if type(value) is int and value not in _INT64:
        repaired("integer_out_of_range")
        return str(value)
    if type(value) in {str, bool, int, float}:
        return value  # type: ignore[no-any-return]  # one of these
    repaired("nested_value")
    return scalars.text(value)


def _string(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    return value if type(value) is str else None


def _bool(value: Any) -> bool | None:  # noqa: ANN401 - any JSON value
    return value if type(value) is bool else {"true": True, "false": False}.get(value) if type(value) is str else None


def _int64(value: Any) -> int | None:  # noqa: ANN401 - any JSON value
    """Return an integer; Jaeger writes integers that JavaScript cannot represent as strings."""
    if type(value) is str:
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and value in _INT64 else None


def _float64(value: Any) -> float | None:  # noqa: ANN401 - any JSON value
    if type(value) is int or type(value) is float:
        return float(value)
    if type(value) is str and len(value) <= _LONGEST_FLOAT:
        try:
            return float(value)
        except ValueError:
            pass
    return None


def _binary(value: Any) -> bytes | None:  # noqa: ANN401 - any JSON value
    if type(value) is not str:
        return None
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        return None


_LONGEST_FLOAT = 400
_CONVERTERS: dict[str, Callable[[Any], Value | None]] = {
    "string": _string,
    "bool": _bool,
    "int64": _int64,
    "float64": _float64,
    "binary": _binary,
    "boolean": _bool,
    "int": _int64,
    "integer": _int64,
    "long": _int64,
    "double": _float64,
    "float": _float64,
    "bytes": _binary,
}
"""Converters by type: the names in Jaeger's JSON, and synonyms."""
