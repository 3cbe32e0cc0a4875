"""Catalog of components by type. Their modules are imported when a configuration first names them.

Third parties add components with the entry-point group `otelwp_agent.components`, whose entries name a `FACTORY`.
"""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING

from otelwp_agent.component import Factory, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import EntryPoint

ENTRY_POINTS = "otelwp_agent.components"
"""Entry-point group of third-party components; the name of an entry is `kind:type` (`processor:acme_redact`)."""

SHIPPED: dict[Kind, tuple[str, ...]] = {
    Kind.RECEIVER: ("datagram", "jaeger", "jaeger_json", "otlp", "zipkin"),
    Kind.PROCESSOR: (
        "adaptive_sampling",
        "attributes",
        "batch",
        "memory_limiter",
        "probabilistic_sampler",
        "resource",
        "wordpress",
    ),
    Kind.EXPORTER: ("debug", "file", "jaeger", "otlp_grpc", "otlp_http", "zipkin"),
    Kind.CONNECTOR: ("forward",),
    Kind.EXTENSION: ("health_check", "remote_sampling"),
}
"""Built-in types. The file name is the YAML type: `processors/batch.py` is the processor `batch`."""

ALIASES: dict[Kind, dict[str, str]] = {Kind.EXPORTER: {"otlp": "otlp_grpc", "otlphttp": "otlp_http"}}
"""Other names of a type in the OpenTelemetry Collector's files."""


class Catalog:
    """The available components: built-in ones and those of other installed packages."""

    @cached_property
    def _third_party(self) -> dict[tuple[Kind, str], EntryPoint]:
        """Entry points of third-party components; looked up when a type that is not built in is requested."""
        from importlib.metadata import entry_points  # noqa: PLC0415 - takes 3 MB that few configurations need

        return {
            (kind, type_): point
            for point in entry_points(group=ENTRY_POINTS)
            for label, _, type_ in [point.name.partition(":")]
            for kind in Kind
            if kind.label == label
        }

    def types(self, kind: Kind) -> list[str]:
        """Return the sorted types of a kind, without aliases."""
        return sorted({*SHIPPED[kind], *(type_ for of, type_ in self._third_party if of is kind)})

    def names(self, kind: Kind) -> list[str]:
        """Return every type name of a kind that YAML may use, aliases included."""
        return sorted({*self.types(kind), *ALIASES.get(kind, {})})

    def get(self, kind: Kind, type_: str) -> Factory | None:
        """Load and return a component's factory, or `None` if there is none of that type."""
        type_ = ALIASES.get(kind, {}).get(type_, type_)
        if type_ in SHIPPED[kind]:
            factory = import_module(f"otelwp_agent.{kind.value}.{type_}").FACTORY
        elif (kind, type_) in self._third_party:
            factory = self._third_party[kind, type_].load()
        else:
            return None
        if not isinstance(factory, Factory) or factory.kind is not kind:
            message = f"{kind.label} {type_}: its module names no Factory of that kind"
            raise TypeError(message)
        return factory

    def factories(self) -> Iterator[Factory]:
        """Load and yield the factories of all components, grouped by kind."""
        for kind in Kind:
            for type_ in self.types(kind):
                factory = self.get(kind, type_)
                if factory is not None:
                    yield factory
