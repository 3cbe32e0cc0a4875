"""`otelwp-agent print-config`: the configuration as the agent understands it, without its secrets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from pydantic import BaseModel, SecretBytes, SecretStr

from otelwp_agent.cli.options import config_options, load_plan
from otelwp_agent.component import Kind
from otelwp_agent.config.types import Endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.pipeline.plan_types import Plan

REDACTED = "[REDACTED]"
"""What stands in place of a secret, as in the Collector's output."""


@click.command("print-config")
@config_options
@click.option("--format", "form", type=click.Choice(["yaml", "json"]), default="yaml", help="How to print it.")
@click.option("--defaults", is_flag=True, help="Print every setting, also those that were left to their defaults.")
def print_config(config: Sequence[str], overrides: Sequence[str], form: str, defaults: bool) -> None:  # noqa: FBT001
    """Print the configuration, merged and expanded, without its secrets.

    What is printed loads again (with `$` written as `$$`), except for secrets: they read `[REDACTED]`, and `***` inside
    the URL of an endpoint.
    """
    plan = load_plan(config, overrides)
    for warning in plan.warnings:
        click.echo(str(warning), err=True)
    data = _escaped(_data(plan, defaults=defaults))
    if form == "json":
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    import yaml  # noqa: PLC0415 - JSON does without

    click.echo(yaml.dump(data, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=120), nl=False)


def _data(plan: Plan, *, defaults: bool) -> dict[str, Any]:
    """Return the whole configuration as plain data."""
    data: dict[str, Any] = {}
    for kind in Kind:
        planned = [one for one in (*plan.components.values(), *plan.unused.values()) if one.kind is kind]
        if planned:
            data[kind.value] = {str(one.id): _dump(one.config, defaults=defaults) for one in planned}
    data["service"] = _dump(plan.service, defaults=defaults)
    return data


def _dump(model: BaseModel, *, defaults: bool) -> Any:  # noqa: ANN401 - plain data
    return _plain(_without_nulls(model, model.model_dump(by_alias=True, exclude_unset=not defaults)))


def _without_nulls(value: Any, dumped: Any) -> Any:  # noqa: ANN401 - any field's value, and what it was dumped to
    """Return `dumped` without settings that are null: `grpc:` with nothing after it would switch on what is off.

    What is null in a map of the user's own (`resource: {service.instance.id: }`) stays.
    """
    if isinstance(value, BaseModel):
        names = {field.alias or name: name for name, field in type(value).model_fields.items()}
        return {
            key: _without_nulls(getattr(value, names[key]), below) for key, below in dumped.items() if below is not None
        }
    if isinstance(value, dict):
        return {key: _without_nulls(value[key], below) for key, below in dumped.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nulls(one, below) for one, below in zip(value, dumped, strict=True)]
    return dumped


def _plain(value: Any) -> Any:  # noqa: ANN401 - plain data
    """Return data in which secrets are redacted and every text is a plain `str`."""
    if isinstance(value, (SecretStr, SecretBytes)):
        return REDACTED if value.get_secret_value() else ""
    if isinstance(value, Endpoint):
        return value.redacted
    if isinstance(value, dict):
        return {str(key): _plain(below) for key, below in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(below) for below in value]
    return str(value) if isinstance(value, str) else value


def _escaped(value: Any) -> Any:  # noqa: ANN401 - plain data
    """Return data in which `$` is written as it must be to be read again."""
    if isinstance(value, dict):
        return {key: _escaped(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_escaped(below) for below in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def _dumper() -> Any:  # noqa: ANN401 - PyYAML's dumpers have no common type
    """Return a dumper that quotes text which our YAML would read as something else (`0o17`, `1e3`)."""
    import yaml  # noqa: PLC0415 - see `print_config`

    from otelwp_agent.config.parse import read_scalar  # noqa: PLC0415 - reads YAML, too

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002 - PyYAML's signature
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        style = "|" if "\n" in value.strip("\n") else None
        quoted = '"' if not isinstance(read_scalar(value), str) else style
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, quoted)

    Dumper.add_representer(str, text)
    return Dumper
