"""Describe `Config` fields in words: type, default and limits."""

from __future__ import annotations

import json
from enum import Enum
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, JsonValue
from pydantic_core import PydanticUndefined

from otelwp_agent.component import KeptPercentage, NeedsTier
from otelwp_agent.config.references import (
    AdminApiRef,
    ClientAuthenticatorRef,
    ControlStoreRef,
    PipelineRef,
    RequestLimiterRef,
    ServerAuthenticatorRef,
)
from otelwp_agent.config.types import Endpoint, Ignored, Refused, Secret, format_duration, parse_duration, parse_size
from otelwp_agent.pipeline.tiers import LIMITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic.fields import FieldInfo

WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "integer",
    float: "number",
    str: "string",
    Secret: "string (secret)",
    Endpoint: "endpoint",
    ServerAuthenticatorRef: "id of an extension that authenticates servers' clients",
    ClientAuthenticatorRef: "id of an extension that adds credentials",
    RequestLimiterRef: "id of an extension that limits requests",
    AdminApiRef: "id of an extension that serves the admin API",
    ControlStoreRef: "id of an extension that opens a control store",
    PipelineRef: "id of a pipeline",
    Any: "any value",
    object: "any value",
    JsonValue: "any value",
}
SIZE_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def validators(metadata: Iterable[object]) -> set[object]:
    """Return the functions that parse a value before its type does; durations and sizes have such functions."""
    return {each.func for each in metadata if isinstance(each, BeforeValidator)}


def type_words(annotation: Any, metadata: Sequence[object] = ()) -> str:  # noqa: ANN401 - any type there is
    """Return a description of the YAML values of a field of this type."""
    readers = validators(metadata)
    if parse_duration in readers:
        return "duration"
    if parse_size in readers:
        return "size"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is None:
        return class_words(annotation)
    if origin is Annotated:
        return type_words(arguments[0], arguments[1:])
    return compound_words(origin, arguments)


def compound_words(origin: Any, arguments: tuple[Any, ...]) -> str:  # noqa: ANN401 - any type there is
    """Return the description of a type with arguments, such as a list or union."""
    if origin is Literal:
        return literal_words(arguments)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(type_words(each) for each in arguments if each is not NoneType))
    if origin in (list, tuple, frozenset, set):
        return f"list of {plural(type_words(arguments[0]))}"
    if origin is dict:
        return f"map of {type_words(arguments[0])} to {type_words(arguments[1])}"
    message = f"tools/docs_fields.py has no words for {origin!r}"
    raise TypeError(message)


def class_words(annotation: Any) -> str:  # noqa: ANN401 - any type there is
    """Return the description of a type without arguments."""
    for each, words in WORDS.items():
        if annotation is each:
            return words
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return literal_words([each.value for each in annotation])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "block"
    message = f"tools/docs_fields.py has no words for {annotation!r}: add them to WORDS"
    raise TypeError(message)


def foreign_words(field: FieldInfo) -> str:
    """Return how a key of the Collector without effect is treated, or "" for any other key."""
    for mark in field.metadata:
        if isinstance(mark, Refused):
            return f"refused: {mark.why}"
        if isinstance(mark, Ignored) and not mark.values:
            return f"ignored: {mark.why}"
    return ""


def literal_words(values: Iterable[object]) -> str:
    """Return a choice of values as they are written in YAML."""
    shown = [f"`{value}`" if value != "" else '`""`' for value in values]
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " or " + shown[-1]


def plural(words: str) -> str:
    """Return the plural of a type description, if it is a single word."""
    simple = {"string", "integer", "number", "duration", "size", "endpoint", "block"}
    return f"{words}s" if words in simple else words


def limits(field: FieldInfo) -> str:
    """Return the limits of a number or of a string, to append to its type."""
    signs = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most", "min_length": "length at least"}
    obvious = {("ge", 0)} if validators(field.metadata) & {parse_duration, parse_size} else set()
    found = [
        f"{words} {value:g}"
        for each in field.metadata
        for name, words in signs.items()
        if isinstance(value := getattr(each, name, None), (int, float)) and (name, value) not in obvious
    ]
    return f", {' and '.join(found)}" if found else ""


def tier_words(field: FieldInfo) -> str:
    """Return the tier that a setting needs or its limits by tier, to append to its type."""
    needed = [f", needs tier {mark.tier.value}" for mark in field.metadata if isinstance(mark, NeedsTier)]
    ceilings = [
        f", at most {ceiling:g} on tier {tier.value}"
        for mark in field.metadata
        if isinstance(mark, KeptPercentage)
        for tier, ceiling in ((tier, limits.kept_percentage) for tier, limits in LIMITS.items())
        if ceiling is not None
    ]
    return "".join([*needed, *ceilings])


def default_words(field: FieldInfo) -> str:
    """Return the default of a field as it is written in YAML."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value is PydanticUndefined or isinstance(value, BaseModel):
        return ""
    readers = validators(field.metadata)
    if get_origin(field.annotation) in (Union, UnionType):
        readers |= {
            func for each in get_args(field.annotation) for func in validators(getattr(each, "__metadata__", ()))
        }
    if parse_duration in readers:
        return f"`{format_duration(value)}`"
    if parse_size in readers:
        return f"`{size_words(value)}`"
    return f"`{yaml_words(value)}`"


def size_words(size: int) -> str:
    """Return a number of bytes with a unit: `20MiB`."""
    return next((f"{size // unit}{name}" for unit, name in SIZE_UNITS if size and size % unit == 0), str(size))


def yaml_words(value: object) -> str:
    """Return a default as one line of YAML."""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, str) and value:
        return str(value)
    if isinstance(value, (tuple, list, set, frozenset)):
        return "[" + ", ".join(yaml_words(each) for each in value) + "]"
    return json.dumps(value)
