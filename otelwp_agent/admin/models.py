"""Base of the models of queries, bodies and answers, and the types of their fields."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from otelwp_agent.control.errors import InvalidValueError
from otelwp_agent.control.operations import values

T = TypeVar("T")

DEFAULT_PAGE = 50
MAX_PAGE = 500
NAME_PATTERN = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"
KEY_ID_PATTERN = r"^[a-z2-7]{16}$"
PRINTABLE = "printable"
"""Format of texts without control characters and the like, in JSON Schema."""

_LONGEST_NUMBER = 6


def _title(value: str) -> str:
    try:
        return values.title(value, "name")
    except InvalidValueError as error:
        raise ValueError(str(error)) from None


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("use printable characters only")
    return value


def _digits(value: Any) -> Any:  # noqa: ANN401 - anything that a client sends
    """Refuse forms of numbers that only Python reads, such as `1_0`."""
    if isinstance(value, str) and not (value.isascii() and value.isdecimal() and len(value) <= _LONGEST_NUMBER):
        raise ValueError("this is not a number: write digits only")
    return value


def _integral(value: Any) -> Any:  # noqa: ANN401 - anything that a client sends
    """Return `30.0` as 30, which is an integer in JSON Schema."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_integral)
"""Makes `Annotated[int, Field(strict=True, …), WHOLE]` an integer as JSON Schema defines it. It must be the last one:
the limits of a `Field` after it would not be in the schema."""
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=63)]
"""An identifier: 1 to 63 of a-z, 0-9, `.`, `_` and `-`; a letter or digit at both ends."""
Title = Annotated[
    str, Field(min_length=1, max_length=200, json_schema_extra={"format": PRINTABLE}), AfterValidator(_title)
]
"""A name for people: 1 to 200 printable characters, not only spaces."""
AttributeText = Annotated[
    str, Field(max_length=256, json_schema_extra={"format": PRINTABLE}), AfterValidator(_printable)
]
AttributeName = Annotated[
    str,
    Field(min_length=1, max_length=256),
    AfterValidator(_printable),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 256, "format": PRINTABLE}),
]
Attributes = Annotated[dict[AttributeName, AttributeText], Field(max_length=32)]
"""Attributes of a tenant: up to 32 texts of up to 256 printable characters."""
PageSize = Annotated[int, Field(ge=1, le=MAX_PAGE), BeforeValidator(_digits)]


class ApiModel(BaseModel):
    """Base of all models of the admin API. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class PageQuery(ApiModel):
    """The part of a list that a request asks for."""

    limit: PageSize = DEFAULT_PAGE
    """Most items in the answer."""
    cursor: Annotated[str, Field(pattern=r"^([2-6][0-9a-f]|7[0-9a-e]){1,200}$")] | None = None
    """Position at which to continue: use `next` of the answer before."""


class ListPage(ApiModel, Generic[T]):
    """A part of a list."""

    items: list[T]
    """The items of this page."""
    next: str | None
    """URL of the next page, `null` on the last one. The header `Link` has it too."""
