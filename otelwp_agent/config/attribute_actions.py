"""The settings of one attribute action, which the processors `resource` and `attributes` share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from pydantic import JsonValue, field_validator, model_validator

from otelwp_agent.config.blocks import Block
from otelwp_agent.model.attributes import Action, Kind, encode

if TYPE_CHECKING:
    from collections.abc import Collection

_SOURCES = ("value", "from_attribute", "from_context")


class AttributeAction(Block):
    """One change of attributes."""

    key: str = ""
    """The attribute to act upon. `delete` and `hash` may do with `pattern` alone."""
    action: Kind
    """insert: set it if it is not there. update: set it if it is. upsert: set it. delete: remove it. hash: replace its
    value by the SHA-256 of it, in hexadecimal. extract: set attributes from the named groups of `pattern` in its value,
    if that is text. convert: change its type to `converted_type`; a value that cannot be converted stays."""
    value: JsonValue = None
    """insert, update, upsert: the value. It keeps its YAML type: text, integer, float, boolean, list, map."""
    from_attribute: str = ""
    """insert, update, upsert: take the value of this attribute; without it, nothing is done."""
    from_context: str = ""
    """insert, update, upsert: take the value from the sender: `metadata.x` is its header (or gRPC metadata) `x`."""
    default_value: JsonValue = None
    """insert, update, upsert: the value when `from_attribute` or `from_context` has none."""
    pattern: str = ""
    """delete, hash: act upon every attribute whose key matches this regular expression, anywhere in it.
    extract: the expression, whose named groups become attributes."""
    converted_type: Literal["int", "double", "string", ""] = ""
    """convert: the type wanted."""

    @field_validator("action", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:  # noqa: ANN401 - whatever YAML has there
        return value.lower() if isinstance(value, str) else value

    @field_validator("value", "default_value")
    @classmethod
    def _encodes(cls, value: JsonValue) -> JsonValue:
        encode(value)
        return value

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            message = f"{value!r} is not a regular expression: {error}"
            raise ValueError(message) from error
        return value

    @model_validator(mode="after")
    def _fits(self) -> AttributeAction:
        problem = _problem(self)
        if problem:
            raise ValueError(problem)
        return self

    def to_action(self) -> Action:
        """Return it for `model.attributes`."""
        return Action(
            kind=self.action,
            key=self.key,
            value=self.value,
            from_attribute=self.from_attribute,
            from_context=self.from_context,
            default=self.default_value,
            pattern=self.pattern,
            converted_type=self.converted_type or "string",
        )


_SETTERS = {"insert", "update", "upsert"}
_USES: dict[str, frozenset[str]] = {
    **dict.fromkeys(_SETTERS, frozenset({*_SOURCES, "default_value"})),
    **dict.fromkeys(("delete", "hash", "extract"), frozenset({"pattern"})),
    "convert": frozenset({"converted_type"}),
}
"""The fields that each action uses, beside `key`."""


def _problem(action: AttributeAction) -> str:
    """Return what is wrong with the fields together, or ""."""
    kind = action.action
    by_pattern = kind in ("delete", "hash")
    used = {
        name for name in frozenset().union(*_USES.values()) if name in action.model_fields_set and _given(action, name)
    }
    if not action.key and not (by_pattern and action.pattern):
        return f"`{kind}` needs `key`" + (" or `pattern`" if by_pattern else "")
    if used - _USES[kind]:
        return f"`{kind}` does not use {_listed(used - _USES[kind])}"
    if kind in _SETTERS:
        return _source_problem(kind, used)
    if kind == "convert" and not action.converted_type:
        return "`convert` needs `converted_type`: int, double or string"
    return _group_problem(action.pattern) if kind == "extract" else ""


def _given(action: AttributeAction, name: str) -> bool:
    """Whether a field was given: null never counts, and "" only where it is a value."""
    value = getattr(action, name)
    return value is not None and (value != "" or name in ("value", "default_value"))


def _source_problem(kind: str, used: set[str]) -> str:
    sources = used.intersection(_SOURCES)
    if len(sources) > 1:
        return f"give only one of {_listed(sources)}"
    return "" if used else f"`{kind}` needs one of {_listed(_USES[kind])}"


def _group_problem(pattern: str) -> str:
    if not pattern:
        return "`extract` needs `pattern`"
    if not re.compile(pattern).groupindex:
        return "`pattern` needs a group with a name, which becomes the attribute's: `(?P<name>…)`"
    return ""


def _listed(names: Collection[str]) -> str:
    """Return names in back quotes, sorted."""
    return ", ".join(f"`{name}`" for name in sorted(names))
