"""`otelwp-agent schema`: print the JSON Schema of the configuration file, for editors."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import click
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from otelwp_agent.component import Kind
from otelwp_agent.components import ALIASES, Catalog
from otelwp_agent.config.describe import describe
from otelwp_agent.config.service import ServiceConfig
from otelwp_agent.model.signal import Signal

if TYPE_CHECKING:
    from otelwp_agent.component import Factory

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_REFERENCE = {
    "type": "string",
    "pattern": r"^\$\{.*\}$",
    "description": "A reference: ${env:NAME}, ${file:PATH}",
}
_PIPELINE_LISTS = {
    "receivers": "receivers and connectors",
    "processors": "processors",
    "exporters": "exporters and connectors",
}


@click.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors.

    For the YAML language server: `# yaml-language-server: $schema=otelwp-agent.schema.json` in the file's first line.
    """
    click.echo(json.dumps(build_schema(Catalog()), indent=2, ensure_ascii=False))


def build_schema(catalog: Catalog) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a configuration file with the components of `catalog`."""
    factories = [*catalog.factories(lambda error: click.echo(f"warning: {error}", err=True))]
    for config in (*(factory.config for factory in factories), ServiceConfig):
        describe(config)
    refs, shared = models_json_schema(
        [(factory.config, "validation") for factory in factories] + [(ServiceConfig, "validation")],
        schema_generator=_Generator,
        ref_template="#/$defs/{model}",
    )
    properties: dict[str, Any] = {}
    for kind in Kind:
        members = [factory for factory in factories if factory.kind is kind]
        if members:
            properties[kind.value] = {
                "description": f"The {kind.value}, by id: `type` or `type/name`.",
                "type": ["object", "null"],
                "additionalProperties": False,
                "patternProperties": {
                    _ids(factory): _nullable(_described(factory, refs[factory.config, "validation"]))
                    for factory in members
                },
            }
    service = refs[ServiceConfig, "validation"]
    definitions = {name: _relaxed(definition, shared["$defs"]) for name, definition in shared["$defs"].items()}
    _restrict_pipelines(definitions)
    return {
        "$schema": DIALECT,
        "title": "otelwp-agent configuration",
        "type": "object",
        "properties": {**properties, "service": service},
        "required": ["service"],
        "additionalProperties": False,
        "$defs": definitions,
    }


class _Generator(GenerateJsonSchema):
    """pydantic's generator, for the dialect of the schema."""

    schema_dialect = DIALECT


def _ids(factory: Factory) -> str:
    """Return a regular expression for the ids of a component type, aliases included."""
    aliases = [alias for alias, type_ in ALIASES.get(factory.kind, {}).items() if type_ == factory.type]
    names = "|".join(re.escape(name) for name in sorted({factory.type, *factory.aliases, *aliases}))
    return f"^({names})(/.+)?$"


def _described(factory: Factory, reference: dict[str, Any]) -> dict[str, Any]:
    """Return `reference` with the component's description added."""
    import sys  # noqa: PLC0415 - only needed here

    document = sys.modules[factory.config.__module__].__doc__ or ""
    return {**reference, "description": " ".join(document.strip().split("\n\n")[0].split())}


def _nullable(definition: dict[str, Any]) -> dict[str, Any]:
    """Allow null, so that `type:` without a value is valid."""
    return {"anyOf": [definition, {"type": "null"}]}


def _relaxed(definition: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Allow null (the default) and `${…}` for every property of a definition."""
    if "properties" not in definition:
        return definition
    properties = {name: _or_reference(field, definitions) for name, field in definition["properties"].items()}
    return {**definition, "properties": properties}


def _or_reference(field: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    outer: dict[str, Any] = {key: field[key] for key in ("description", "default", "deprecated") if key in field}
    if "$ref" in field:  # pydantic leaves out a description that is the same as the section's
        outer.setdefault("description", definitions[field["$ref"].rpartition("/")[2]].get("description", ""))
    bare = {key: value for key, value in field.items() if key not in (*outer, "title")}
    options = bare["anyOf"] if [*bare] == ["anyOf"] else [bare]
    return {
        "anyOf": [*(option for option in options if option != {"type": "null"}), {"type": "null"}, _REFERENCE],
        **outer,
    }


def _restrict_pipelines(definitions: dict[str, Any]) -> None:
    """Allow only pipeline ids that begin with a signal."""
    signals = "|".join(signal.value for signal in Signal)
    definitions["ServiceConfig"]["properties"]["pipelines"] |= {"propertyNames": {"pattern": f"^({signals})(/.+)?$"}}
