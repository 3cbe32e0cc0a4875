"""A component under test: its factory and the settings of its example; builds the component and its test batches."""

from __future__ import annotations

import sys
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

import yaml

from otelwp_agent.component import ComponentId, Connector, Kind, Processor, Receiver
from otelwp_agent.components import Catalog
from otelwp_agent.config.describe import block_of
from otelwp_agent.config.references import references
from otelwp_agent.config.types import Endpoint
from otelwp_agent.model.batch import Batch
from otelwp_agent.model.projections import count
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.signal import Signal
from otelwp_agent.testing.corpus import batch_of, make_corpus
from otelwp_agent.testing.examples import example, strings_in
from otelwp_agent.testing.fakes import Catcher, make_context
from otelwp_agent.testing.requirement import LISTENERS, require
from otelwp_agent.transport.compression import decompress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pydantic import BaseModel

    from otelwp_agent.component import Component, Factory
    from otelwp_agent.telemetry.metrics import Registry

_MAX_PLAIN = 2**30
_LISTEN = "127.0.0.1:0"
_SEND = "http://127.0.0.1:9"
"""An address on which nothing listens (port 9 is `discard`)."""


class Subject:
    """Builds one component with the settings of its example, changed to free ports and to files below `folder`."""

    def __init__(
        self,
        factory: Factory,
        folder: Path,
        settings: Mapping[str, Any] | None = None,
        requests: Mapping[Signal, Sequence[bytes]] | None = None,
        opens: Callable[[Batch], bytes] | None = None,
    ) -> None:
        """Test the component of `factory`; `settings` replace those of its example, `requests` extend the corpus.

        `opens` decodes the bodies of a component that encodes them.
        """
        self.factory = factory
        self.folder = folder
        self._replaced = settings or {}
        self._requests = requests or {}
        self._opens = opens or decompressed

    @property
    def name(self) -> str:
        """The name of the component in messages: `processors/acme_redact`."""
        return f"{self.factory.kind.value}/{self.factory.type}"

    @property
    def docstring(self) -> str:
        """The docstring of the module that defines the component's `Config`."""
        return sys.modules[self.factory.config.__module__].__doc__ or ""

    def example(self) -> str:
        """Return the configuration example in the docstring."""
        try:
            return example(self.docstring)
        except ValueError as error:
            require(condition=False, happened=f"{error}, in the module {self.factory.config.__module__}")
            raise

    def settings(self) -> dict[str, Any]:
        """Return the component's settings from its example, changed to free ports and to files below `folder`."""
        factory = self.factory
        sections = yaml.safe_load(self.example())
        names = {factory.type, *factory.aliases}
        of_kind = (sections.get(factory.kind.value) or {}).items()
        found = [value or {} for name, value in of_kind if name.partition("/")[0] in names]
        require(found, f"the example in its docstring has no `{factory.type}` under `{factory.kind.value}`")
        settings = {**_localize(found[0], self.folder), **self._replaced}
        return _with_endpoints(factory.config, settings, _LISTEN if factory.kind in LISTENERS else _SEND)

    def build(
        self, settings: Mapping[str, Any] | None = None, registry: Registry | None = None
    ) -> tuple[Component, Catcher]:
        """Return the component, not started, and the fake stage after it."""
        factory = self.factory
        config = factory.config.model_validate(self.settings() if settings is None else settings)
        pipeline = "traces" if factory.kind is Kind.PROCESSOR else ""
        extensions = self._extensions(config)
        context = make_context(
            factory.kind, factory.type, "contract", registry=registry, pipeline=pipeline, extensions=extensions
        )
        component, catcher = factory.build(config, context), Catcher()
        if isinstance(component, Processor):
            component.next = catcher  # type: ignore[assignment] # its `consume` has optional arguments that a processor does not pass
        elif isinstance(component, (Receiver, Connector)):
            component.next = dict.fromkeys(Signal, catcher)
            if isinstance(component, Connector):
                component.choose = lambda _signal, _pipelines: catcher
        return component, catcher

    def _extensions(self, config: BaseModel) -> dict[ComponentId, Component]:
        """Return the extensions that `config` refers to, with the settings of the example; they are not started."""
        found: dict[ComponentId, Component] = {}
        for reference, _ in references(config):
            identifier = ComponentId.parse(reference)
            factory = Catalog().get(Kind.EXTENSION, identifier.type)
            settings = (yaml.safe_load(self.example()).get("extensions") or {}).get(reference) or {}
            require(factory, f"its example refers to the extension `{reference}`, of an unknown type")
            if factory is not None:
                referred = factory.config.model_validate(_localize(settings, self.folder))
                context = make_context(
                    Kind.EXTENSION, identifier.type, identifier.name, extensions=self._extensions(referred)
                )
                found[identifier] = factory.build(referred, context)
        return found

    def batches(self, signal: Signal) -> list[Batch]:
        """Return test batches with new receipts; they contain the strings of the example."""
        words = [*dict.fromkeys(strings_in(self.settings()))]
        more = [batch_of(signal, body) for body in self._requests.get(signal, ())]
        return [*make_corpus(signal, words), *more]

    def opened(self, batch: Batch) -> Batch:
        """Return a forwarded batch with a plain body."""
        if not batch.encodings:
            return batch
        return Batch(batch.signal, self._opens(batch), batch.items, batch.origin, batch.shares)

    def count(self, batch: Batch) -> int:
        """Return the items in a batch's body."""
        return count(batch.signal, batch.body)

    def signals(self) -> list[Signal]:
        """Return the signals that the component accepts, in a fixed order."""
        return [signal for signal in Signal if signal in self.factory.signals]

    async def passed(self, settings: Mapping[str, Any] | None = None) -> dict[Signal, tuple[list[Batch], list[Batch]]]:
        """Run the test batches of each signal through a stage; return the batches before and after it, by signal."""
        found = {}
        for signal in self.signals():
            component, catcher = self.build(settings)
            await component.start()
            given = self.batches(signal)
            for batch in given:
                component.consume(batch)  # type: ignore[attr-defined] # only stages come here
            await component.shutdown()
            deliver(catcher)
            found[signal] = (given, [self.opened(batch) for batch in catcher.batches])
        return found


def decompressed(batch: Batch) -> bytes:
    """Return the plain body of a compressed batch."""
    return decompress(", ".join(batch.encodings), batch.body, _MAX_PLAIN, ratio=0)


def deliver(catcher: Catcher) -> None:
    """Settle all batches that `catcher` has stored as delivered."""
    for batch in catcher.batches:
        batch.settle(Outcome.DELIVERED)


def _localize(value: Any, folder: Path) -> Any:  # noqa: ANN401 - a value of YAML
    """Return a YAML value in which absolute paths are moved into `folder`."""
    if isinstance(value, dict):
        return {key: _localize(each, folder) for key, each in value.items()}
    if isinstance(value, list):
        return [_localize(each, folder) for each in value]
    if isinstance(value, str) and value.startswith("/") and "." in value:
        path = folder / value.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        return str(path)
    return value


def _holds_endpoint(annotation: object) -> bool:
    """Return whether a field of this type is an endpoint, possibly optional or annotated."""
    return annotation is Endpoint or (
        (get_origin(annotation) in {Annotated, Union, UnionType})
        and any(_holds_endpoint(argument) for argument in get_args(annotation))
    )


def _with_endpoints(model: type[BaseModel], settings: dict[str, Any], endpoint: str) -> dict[str, Any]:
    """Return `settings` with all endpoints of the blocks in use set to `endpoint`, including default endpoints."""
    filled = dict(settings)
    for name, field in model.model_fields.items():
        found = block_of(field.annotation)
        if _holds_endpoint(field.annotation):
            filled[name] = endpoint
        elif found is not None and isinstance(filled.get(name), dict) and not found[1]:
            filled[name] = _with_endpoints(found[0], filled[name], endpoint)
        elif found is not None and name in filled and filled[name] is None:
            filled[name] = _with_endpoints(found[0], {}, endpoint)
    return filled
