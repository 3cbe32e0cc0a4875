"""Base class of all groups of settings: refuses unknown keys and reads null as the default, as the Collector does."""

from __future__ import annotations

from functools import cache
from types import NoneType
from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from otelwp_agent.config.types import Ignored, Secret

BUFFERS = Ignored("the operating system sizes socket buffers")
"""Mark of the Collector's settings for buffer sizes, which have no effect."""


def _named_values_as_map(value: object) -> object:
    if isinstance(value, list) and all(isinstance(item, dict) and {*item} == {"name", "value"} for item in value):
        return {item["name"]: item["value"] for item in value}
    return value


_NamedValues = BeforeValidator(_named_values_as_map, json_schema_input_type=dict[str, str] | list[dict[str, str]])

Headers = Annotated[dict[str, str], _NamedValues]
"""Map of header name to value; the Collector's other form, a list of `{name, value}`, is accepted too."""

SecretHeaders = Annotated[dict[str, Secret], _NamedValues]
"""Like `Headers`, but the values are secrets and never printed."""


@cache
def _keys_without_null(model: type[BaseModel]) -> frozenset[str]:
    """Return the keys (including aliases) of the fields that do not accept `None`."""
    return frozenset(
        key
        for name, field in model.model_fields.items()
        if NoneType not in (field.annotation, *get_args(field.annotation)) and field.annotation is not Any
        for key in (name, field.alias)
        if key
    )


class Block(BaseModel):
    """A group of settings that refuses unknown keys and is immutable after loading.

    `key:` without a value means the default of `key`, as in the Collector.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, data: Any) -> Any:  # noqa: ANN401 - any YAML value
        if data is None:
            return {}
        if isinstance(data, dict) and None in data.values():
            without = _keys_without_null(cls)
            return {key: value for key, value in data.items() if value is not None or key not in without}
        return data
