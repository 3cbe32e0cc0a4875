"""Contracts about declarations: factory, configuration, example and instruments."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from otelwp_agent.component import ComponentConfig, Effect, Factory, Kind, Reads
from otelwp_agent.config.describe import block_of, describe
from otelwp_agent.errors import ConfigError
from otelwp_agent.testing.contract import contract
from otelwp_agent.testing.examples import CatalogWith, plan_of
from otelwp_agent.testing.requirement import STAGES, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic import BaseModel

    from otelwp_agent.testing.subject import Subject


@contract()
def factory_is_complete(subject: Subject) -> None:
    """Declare signals, reads and effects in the factory, with the types for them.

    `validate`, the graph and the documentation use only the `FACTORY` of a component.
    """
    factory = subject.factory
    require(isinstance(factory, Factory), f"FACTORY is {factory!r}, not an otelwp_agent.component.Factory")
    require(factory.signals or factory.kind is Kind.EXTENSION, "`signals` is empty")
    require(isinstance(factory.reads, Reads), f"`reads` is {factory.reads!r}, not an otelwp_agent.component.Reads")
    wrong = [effect for effect in factory.effects if not isinstance(effect, Effect)]
    require(not wrong, f"`effects` contains {wrong}, not otelwp_agent.component.Effect")
    require(factory.kind in STAGES or not factory.effects, "`effects` is for processors and connectors")
    require(issubclass(factory.config, ComponentConfig), "its Config does not derive from ComponentConfig")


@contract()
def example_loads(subject: Subject) -> None:
    """Write an `Example::` in the docstring that the agent loads without a warning.

    Users copy the example, and the other contracts build the component from it. For this check, missing receivers,
    exporters and pipelines are added.
    """
    factory = subject.factory
    with contextlib.chdir(subject.folder):
        try:
            plan = plan_of(subject.example(), subject.folder, CatalogWith(factory))
        except ConfigError as error:
            require(condition=False, happened=f"it is refused: {error}")
            raise
    used = {(planned.kind, planned.factory.type) for planned in plan.components.values()}
    require((factory.kind, factory.type) in used, "it does not use the component")
    require(not plan.warnings, f"it gives warnings: {'; '.join(str(warning) for warning in plan.warnings)}")


@contract()
def unknown_keys_are_refused(subject: Subject) -> None:
    """Refuse unknown keys, in every block of the configuration.

    A misspelled key must be reported: derive every block from `config.blocks.Block`.
    """
    config = subject.factory.config

    def put_back(
        wrap: Callable[[Any], Any],
        settings: dict[str, Any],
        name: str,
        inner: Any,  # noqa: ANN401 - settings from YAML
    ) -> Any:  # noqa: ANN401 - settings from YAML
        return wrap({**settings, name: inner})

    def refuses(model: type[BaseModel], settings: dict[str, Any], path: str, wrap: Callable[[Any], Any]) -> None:
        try:
            config.model_validate(wrap({**settings, "no_such_key": 1}))
        except ValidationError as error:
            found = {detail["type"] for detail in error.errors()}
            require("extra_forbidden" in found, f"`{path}no_such_key` is refused as {found}")
        else:
            require(condition=False, happened=f"`{path}no_such_key` is accepted")
        for name, field in model.model_fields.items():
            inner = block_of(field.annotation)
            if inner is not None and not inner[1] and isinstance(settings.get(name), dict):
                refuses(inner[0], settings[name], f"{path}{name}.", partial(put_back, wrap, settings, name))

    settings = subject.settings()
    config.model_validate(settings)
    refuses(config, settings, "", lambda each: each)


@contract()
def keys_are_documented(subject: Subject) -> None:
    """Document every key with a docstring below it.

    `otelwp-agent schema` and the generated pages show the docstring.
    """

    def undocumented(model: type[BaseModel], path: str, seen: set[type[BaseModel]]) -> Iterator[str]:
        if model in seen:
            return
        seen.add(model)
        describe(model)
        for name, field in model.model_fields.items():
            if not field.description:
                yield f"`{path}{name}`"
            found = block_of(field.annotation)
            if found is not None:
                yield from undocumented(found[0], f"{path}{name}.", seen)

    missing = list(undocumented(subject.factory.config, "", set()))
    require(not missing, f"no docstring below {', '.join(missing)}")


@contract()
def configuration_is_frozen(subject: Subject) -> None:
    """Do not allow changes of the configuration after loading.

    A reload compares configurations to find changes. `ComponentConfig` is frozen; do not override that.
    """
    config = subject.factory.config.model_validate(subject.settings())
    for name in type(config).model_fields:
        try:
            setattr(config, name, None)
        except ValidationError:
            continue
        require(condition=False, happened=f"`{name}` can be set")


@contract()
def instruments_are_described(subject: Subject) -> None:
    """Give every instrument a help text.

    Users read help texts in dashboards, without the code.
    """
    for instrument in subject.factory.instruments:
        require(instrument.help.strip(), f"{instrument.name} has no help text")


CONTRACTS = (
    factory_is_complete,
    example_loads,
    unknown_keys_are_refused,
    keys_are_documented,
    configuration_is_frozen,
    instruments_are_described,
)
