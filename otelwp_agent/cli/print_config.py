"""`otelwp-agent print-config`: print the configuration as the agent reads it, without its secrets."""

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
"""Text that replaces a secret, as in the Collector's output."""


@click.command("print-config")
@config_options
@click.option("--format", "form", type=click.Choice(["yaml", "json"]), default="yaml", help="Output format.")
@click.option("--defaults", is_flag=True, help="Print every setting, including defaults.")
def print_config(config: Sequence[str], overrides: Sequence[str], form: str, defaults: bool) -> None:  # noqa: FBT001
    """Print the configuration, merged and expanded, without its secrets.

    The output can be loaded again (`$` is printed as `$$`), except for secrets: they are replaced by `[REDACTED]`, and
    by `***` inside the URL of an endpoint.
    """
    plan = load_plan(config, overrides)
    for warning in plan.warnings:
        click.echo(str(warning), err=True)
    data = _escaped(_data(plan, defaults=defaults))
    if form == "json":
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    import yaml  # noqa: PLC0415 - not needed for JSON

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


def _without_nulls(value: Any, dumped: Any) -> Any:  # noqa: ANN401 - any field's value, and its dump
    """Return `dumped`, the dump of `value`, without settings that are null.

    A null such as `grpc:` would switch on what is off when it is loaded again. Nulls in maps with free keys, such as
    `resource: {service.instance.id: }`, are kept.
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
    """Return `value` with secrets redacted and every text as a plain `str`."""
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
    """Return `value` with every `$` escaped as `$$`."""
    if isinstance(value, dict):
        return {key: _escaped(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_escaped(below) for below in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def _dumper() -> Any:  # noqa: ANN401 - PyYAML's dumpers have no common type
    """Return a dumper that quotes text which `config.parse` would read as another type (`0o17`, `1e3`)."""
    import yaml  # noqa: PLC0415 - see `print_config`

    from otelwp_agent.config.parse import read_scalar  # noqa: PLC0415 - imports PyYAML

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002 - PyYAML's signature
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        style = "|" if "\n" in value.strip("\n") else None
        quoted = '"' if not isinstance(read_scalar(value), str) else style
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, quoted)

    Dumper.add_representer(str, text)
    return Dumper
