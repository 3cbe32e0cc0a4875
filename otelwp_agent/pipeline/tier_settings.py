"""Change the settings of a component to values that a tier enables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from otelwp_agent.component import KeptPercentage, NeedsTier
from otelwp_agent.pipeline.tiers import LIMITS

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from otelwp_agent.config.document import Path
    from otelwp_agent.tier import Tier

M = TypeVar("M", bound=BaseModel)
Setting = tuple["Path", str]
"""Path of a setting, and its new value for messages."""

_UNCHANGED = object()


def fitted(config: M, tier: Tier) -> tuple[M, list[Setting]]:
    """Return `config` with values that `tier` enables, and the settings that differ; the same object if none does.

    Values are not validated again: the marks of the settings name values that are valid (`NeedsTier`,
    `KeptPercentage`).
    """
    changed: list[Setting] = []
    return _model(config, tier, (), changed), changed


def _model(model: M, tier: Tier, path: Path, changed: list[Setting]) -> M:
    update = {}
    for name, field in type(model).model_fields.items():
        at = (*path, field.alias or name)
        before = getattr(model, name)
        after = _marked(field, before, tier)
        if after is _UNCHANGED:
            after = _value(before, tier, at, changed)
        else:
            changed.append((at, _shown(after)))
        if after is not before:
            update[name] = after
    return model.model_copy(update=update) if update else model


def _value(value: Any, tier: Tier, path: Path, changed: list[Setting]) -> Any:  # noqa: ANN401 - any setting
    """Return a value with the models below it changed; the same object if none changes."""
    if isinstance(value, BaseModel):
        return _model(value, tier, path, changed)
    if isinstance(value, dict):
        mapped = {key: _value(below, tier, (*path, str(key)), changed) for key, below in value.items()}
        return mapped if any(mapped[key] is not below for key, below in value.items()) else value
    if isinstance(value, list | tuple):
        items = [_value(below, tier, (*path, index), changed) for index, below in enumerate(value)]
        return type(value)(items) if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def _marked(field: FieldInfo, value: Any, tier: Tier) -> Any:  # noqa: ANN401 - any setting
    """Return the value that a marked field gets on this tier; `_UNCHANGED` if it keeps its own."""
    for mark in field.metadata:
        if isinstance(mark, NeedsTier) and not tier.enables(mark.tier):
            below = mark.value_below(field.get_default(call_default_factory=True))
            return _UNCHANGED if value == below else below
        if isinstance(mark, KeptPercentage):
            ceiling = LIMITS[tier].kept_percentage
            return _UNCHANGED if ceiling is None or value is None or value <= ceiling else ceiling
    return _UNCHANGED


def _shown(value: Any) -> str:  # noqa: ANN401 - any setting
    """Return a new value in words: values below a tier are defaults, which have no secrets."""
    if value is None:
        return "left out"
    if isinstance(value, BaseModel):
        return ", ".join(f"{name}: {_shown(below)}" for name, below in value.model_dump(exclude_defaults=True).items())
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
