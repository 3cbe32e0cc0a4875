"""Cache of decoded attributes by key and value: they are most of a span, and are usually repeated.

The cache contains length-prefixed serialized `KeyValue`s. Only short ones are cached: below 128 bytes every length in
them is one byte, so that a new one is built quickly too. The numbers are those of common.proto: `KeyValue.key` 1,
`.value` 2, `AnyValue.string_value` 1, `.int_value` 3.
"""

from __future__ import annotations

from typing import Any

from otelwp_agent.codecs.otlp_json.scalars import Wrong, integer
from otelwp_agent.model.wire import varint

MAX_ENTRIES = 8192
"""Maximum number of cached attributes, about 2 MB; when it is reached, all are removed."""

MAX_SIZE = 127
"""Maximum size in bytes of a cached serialized attribute."""

Known = dict[object, bytes]

_strings: dict[str, Known] = {}
_integers: dict[str, Known] = {}
_nothing: Known = {}
_entries = 0


def remembered(attribute: Any) -> bytes | None:  # noqa: ANN401 - any JSON value
    """Return a JSON attribute as a length-prefixed `KeyValue`, or `None` if the tables must convert it.

    Only attributes of a key and a string or an integer are converted. Invalid attributes are left to the tables, which
    raise the error.
    """
    try:
        value = attribute["value"]
        if len(attribute) != 2 or len(value) != 1:  # noqa: PLR2004 - a key and a value
            return None
        if "stringValue" in value:
            key, text = attribute["key"], value["stringValue"]
            return _strings.get(key, _nothing).get(text) or _string(key, text)
        if "intValue" in value:
            key, number = attribute["key"], value["intValue"]
            if number is not True and number is not False:  # they are equal to 1 and 0
                return _integers.get(key, _nothing).get(number) or _integer(key, number)
    except (LookupError, TypeError, Wrong):
        pass
    return None


def _string(key: object, value: object) -> bytes | None:
    if type(key) is not str or type(value) is not str:
        return None
    name, text = key.encode(), value.encode()
    total = len(name) + len(text) + 6
    if total > MAX_SIZE:
        return None
    attribute = b"%c\n%c%b\x12%c\n%c%b" % (total, len(name), name, len(text) + 2, len(text), text)
    _keep(_strings, key, value, attribute)
    return attribute


def _integer(key: object, value: object) -> bytes | None:
    if type(key) is not str:
        return None
    name, number = key.encode(), varint(integer(value, -(1 << 63), (1 << 63) - 1))
    total = len(name) + len(number) + 5
    if total > MAX_SIZE:
        return None
    attribute = b"%c\n%c%b\x12%c\x18%b" % (total, len(name), name, len(number) + 1, number)
    _keep(_integers, key, value, attribute)
    return attribute


def _keep(known: dict[str, Known], key: str, value: object, attribute: bytes) -> None:
    global _entries  # noqa: PLW0603 - one cache for the process
    if _entries >= MAX_ENTRIES:
        _strings.clear()
        _integers.clear()
        _entries = 0
    _entries += 1
    known.setdefault(key, {})[value] = attribute
