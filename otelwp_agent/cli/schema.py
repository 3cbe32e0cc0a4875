"""`otelwp-agent schema`: the JSON Schema of the configuration file, for editors."""

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
    "description": "A value from outside: ${env:NAME}, ${file:PATH}",
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
    """Return the JSON Schema (draft 2020-12) of a whole file."""
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
    """pydantic's, with the file's own dialect."""

    schema_dialect = DIALECT


def _ids(factory: Factory) -> str:
    """Return the pattern of the ids of one type, under all its names."""
    aliases = [alias for alias, type_ in ALIASES.get(factory.kind, {}).items() if type_ == factory.type]
    names = "|".join(re.escape(name) for name in sorted({factory.type, *factory.aliases, *aliases}))
    return f"^({names})(/.+)?$"


def _described(factory: Factory, reference: dict[str, Any]) -> dict[str, Any]:
    """Return the reference with what the component does."""
    import sys  # noqa: PLC0415 - for a module's docstring

    document = sys.modules[factory.config.__module__].__doc__ or ""
    return {**reference, "description": " ".join(document.strip().split("\n\n")[0].split())}


def _nullable(definition: dict[str, Any]) -> dict[str, Any]:
    """Allow `type:` with nothing after it."""
    return {"anyOf": [definition, {"type": "null"}]}


def _relaxed(definition: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Allow null (the default) and `${…}` wherever a file may have them."""
    if "properties" not in definition:
        return definition
    properties = {name: _or_reference(field, definitions) for name, field in definition["properties"].items()}
    return {**definition, "properties": properties}


def _or_reference(field: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {key: field[key] for key in ("description", "default", "deprecated") if key in field}
    if "$ref" in field:  # pydantic leaves out what the section itself says in the same words
        said.setdefault("description", definitions[field["$ref"].rpartition("/")[2]].get("description", ""))
    bare = {key: value for key, value in field.items() if key not in (*said, "title")}
    options = bare["anyOf"] if [*bare] == ["anyOf"] else [bare]
    return {
        "anyOf": [*(option for option in options if option != {"type": "null"}), {"type": "null"}, _REFERENCE],
        **said,
    }


def _restrict_pipelines(definitions: dict[str, Any]) -> None:
    """Let pipelines be called after signals only."""
    signals = "|".join(signal.value for signal in Signal)
    definitions["ServiceConfig"]["properties"]["pipelines"] |= {"propertyNames": {"pattern": f"^({signals})(/.+)?$"}}
