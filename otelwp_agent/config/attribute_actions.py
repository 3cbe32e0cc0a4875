"""Settings of one attribute action, shared by the processors `resource` and `attributes`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from pydantic import JsonValue, field_validator, model_validator

from otelwp_agent.config.blocks import Block
from otelwp_agent.model.attribute_actions import Action, Kind
from otelwp_agent.model.attributes import encode

if TYPE_CHECKING:
    from collections.abc import Collection

_SOURCES = ("value", "from_attribute", "from_context")


class AttributeAction(Block):
    """Settings of one change to attributes."""

    key: str = ""
    """Name of the attribute to change. Optional for `delete` and `hash` if `pattern` is given."""
    action: Kind
    """insert: set the attribute if it does not exist. update: set it if it exists. upsert: set it in both cases.
    delete: remove it. hash: replace its value with the SHA-256 of the value, in hexadecimal. extract: set attributes
    from the named groups of `pattern` in its value, if the value is text. convert: change its type to
    `converted_type`; a value that cannot be converted is left unchanged."""
    value: JsonValue = None
    """insert, update, upsert: the value. It keeps its YAML type: text, integer, float, boolean, list, map."""
    from_attribute: str = ""
    """insert, update, upsert: copy the value of this attribute; if it does not exist, nothing is changed."""
    from_context: str = ""
    """insert, update, upsert: use a value of the request: `metadata.x` is its header (or gRPC metadata) `x`."""
    default_value: JsonValue = None
    """insert, update, upsert: the value to set if `from_attribute` or `from_context` has none."""
    pattern: str = ""
    """delete, hash: a regular expression; every attribute whose key contains a match is changed.
    extract: a regular expression whose named groups become attributes."""
    converted_type: Literal["int", "double", "string", ""] = ""
    """convert: the new type."""

    @field_validator("action", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:  # noqa: ANN401 - any YAML value
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
        """Return these settings as an action of `model.attribute_actions`."""
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
"""The fields that each action uses in addition to `key`."""


def _problem(action: AttributeAction) -> str:
    """Return why the fields do not fit together, or ""."""
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
    """Whether a field was given. Null never counts; "" counts only for `value` and `default_value`."""
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
        return "`pattern` needs a named group, whose name becomes the attribute's name: `(?P<name>…)`"
    return ""


def _listed(names: Collection[str]) -> str:
    """Return the sorted names in back quotes."""
    return ", ".join(f"`{name}`" for name in sorted(names))
