"""Change the text of a configuration for another tier; comments, order and quotes stay.

Only the command `tiers migrate` imports this module: it needs ruamel.yaml, which can write YAML with its comments.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from otelwp_agent.component import Carries, ComponentId, Kind
from otelwp_agent.config.document import show_path
from otelwp_agent.errors import ConfigError, Problem
from otelwp_agent.pipeline.reduction import ChangeKind, reduce_plan
from otelwp_agent.pipeline.tier_report import report_tiers
from otelwp_agent.tier import Tier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelwp_agent.config.document import Document, Path
    from otelwp_agent.pipeline.plan_types import PipelinePlan, Plan
    from otelwp_agent.pipeline.tier_report import TierChange

BATCH: Mapping[str, Any] = {"send_batch_size": 50, "timeout": "5s"}
"""Settings of the processor `batch` that a migration adds: small batches for single sites."""

_LISTS = {Kind.RECEIVER: "receivers", Kind.PROCESSOR: "processors", Kind.EXPORTER: "exporters"}


def migrated(text: str, plan: Plan, document: Document, target: Tier) -> str:
    """Return the text of a configuration, changed for the tier `target`.

    `plan` and `document` were read from `text`. Raises `ConfigError` with what cannot be changed, such as the only
    exporter of a pipeline.
    """
    report = report_tiers(plan, document)
    changes = [each for each in report.changes[target] if each.is_written]
    kept = [each for each in changes if each.change.action == ChangeKind.KEPT.value]
    if kept:
        raise ConfigError([_cannot(each, target) for each in kept])
    yaml = _yaml(text)
    try:
        root = yaml.load(text)
    except YAMLError as error:  # another parser, with its own opinion on what is YAML
        raise ConfigError([Problem(f"this YAML cannot be changed: {error}")]) from error
    edit = _Edit(root, plan, target)
    for each in changes:
        edit.apply(each)
    was_free = Tier(_value(root, ("service", "tier")) or Tier.ENTERPRISE.value) is Tier.FREE
    if was_free and target is not Tier.FREE:
        edit.add_batches()
    if plan.service.license is None:
        edit.map_at(("service",))["tier"] = target.value
    written = io.StringIO()
    yaml.dump(root, written)
    return written.getvalue()


def _cannot(each: TierChange, target: Tier) -> Problem:
    place = each.place
    message = f"tier `{target.value}` does not enable this, and it cannot be left out: {each.change.detail}"
    return Problem(message, show_path(each.change.path), place.file, place.line, place.column)


def _yaml(text: str) -> YAML:
    """Return a reader and writer that keeps the style of `text`."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 2**16
    nested = re.search(r"^( *)[^\s#-][^\n]*:[ ]*(?:#[^\n]*)?\n(?:\s*#[^\n]*\n|\s*\n)*( *)- ", text, re.MULTILINE)
    if nested and len(nested[2]) > len(nested[1]):
        offset = len(nested[2]) - len(nested[1])
        yaml.indent(mapping=2, sequence=offset + 2, offset=offset)
    return yaml


def _value(root: Any, path: Path) -> Any:  # noqa: ANN401 - any YAML value
    for part in path:
        try:
            root = root[part]
        except (KeyError, IndexError, TypeError):
            return None
    return root


class _Edit:
    """Edits the YAML of a configuration."""

    def __init__(self, root: Any, plan: Plan, target: Tier) -> None:  # noqa: ANN401 - any YAML value
        self._root = root
        self._plan = plan
        self._reduced = reduce_plan(plan, target).plan

    def apply(self, each: TierChange) -> None:
        """Leave out a component, or change a setting."""
        section, identifier, *setting = each.change.path
        if setting:
            self._limit(each.change.path)
            return
        kind = Kind(section)
        if kind is Kind.EXTENSION:
            self._remove(("service", "extensions"), str(identifier))
            return
        for pipeline in self._plan.pipelines.values():
            path: Path = ("service", "pipelines", pipeline.id, _LISTS[kind])
            if str(identifier) in map(str, getattr(pipeline, _LISTS[kind])):
                self._remove(path, str(identifier))

    def add_batches(self) -> None:
        """Add the processor `batch` to the pipelines without one, before what encodes."""
        components = self._plan.components
        for pipeline in self._plan.pipelines.values():
            types = [each.type for each in pipeline.processors]
            if "batch" in types or self._is_fed_encoded(pipeline):
                continue
            encoding = [components[Kind.PROCESSOR, each].encodes is not Carries.PLAIN for each in pipeline.processors]
            place = encoding.index(True) if True in encoding else len(types)
            entry = self.map_at(("service", "pipelines", pipeline.id))
            if isinstance(entry.get("processors"), list):
                entry["processors"].insert(place, "batch")
            else:
                listed = CommentedSeq(["batch"])
                listed.fa.set_flow_style()
                entry.insert(
                    list(entry).index("exporters") if "exporters" in entry else len(entry), "processors", listed
                )
            processors = self._root.get("processors")
            if not isinstance(processors, dict):
                processors = self._root["processors"] = CommentedMap()
            processors.setdefault("batch", CommentedMap(BATCH))

    def _is_fed_encoded(self, pipeline: PipelinePlan) -> bool:
        """Return whether bodies may be encoded before the pipeline: a connector leads to it, or a receiver encodes."""
        components = self._plan.components
        receivers = [components.get((Kind.RECEIVER, each)) for each in pipeline.receivers]
        return any(each is None or each.encodes is not Carries.PLAIN for each in receivers)

    def map_at(self, path: Path) -> Any:  # noqa: ANN401 - any YAML value
        """Return the map at a path; raise `ConfigError` if it is written in another way, such as `service::tier`."""
        found = _value(self._root, path)
        if not isinstance(found, dict):
            raise ConfigError(
                [Problem(f"`{show_path(path)}` must be written as nested maps to be changed", show_path(path))]
            )
        return found

    def _remove(self, path: Path, identifier: str) -> None:
        listed = _value(self._root, path)
        index = next((i for i, each in enumerate(listed or ()) if str(each).strip() == identifier), None)
        if index is None:
            message = f"`{identifier}` must be written in the list `{show_path(path)}` to be left out"
            raise ConfigError([Problem(message, show_path(path))])
        del listed[index]

    def _limit(self, path: Path) -> None:
        """Give a setting the value that the reduced plan has; remove it if the tier has no value for it."""
        section, identifier, *setting = path
        key = (Kind(section), ComponentId.parse(str(identifier)))
        value: Any = self._reduced.components[key].config
        for part in setting:
            value = _field(value, part)
        holder, name = _value(self._root, path[:-1]), path[-1]
        if _value(holder, (name,)) is None:
            raise ConfigError(
                [Problem("its value is not in this file: write it here, then repeat the command", show_path(path))]
            )
        if isinstance(value, str | int | float):
            holder[name] = int(value) if isinstance(value, float) and value.is_integer() else value
        else:
            del holder[name]


def _field(value: Any, part: str | int) -> Any:  # noqa: ANN401 - any setting
    """Return the value at a key of a model, a map or a list."""
    if not isinstance(value, BaseModel):
        return value[part]
    fields = type(value).model_fields.items()
    return getattr(value, next((name for name, field in fields if field.alias == part), str(part)))
