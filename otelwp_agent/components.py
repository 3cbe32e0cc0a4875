"""Catalog of components by type. Their modules are imported when a configuration first names them.

Third parties add components with the entry-point group `otelwp_agent.components`, whose entries name a `FACTORY`.
"""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING

from otelwp_agent.component import Factory, Kind
from otelwp_agent.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from importlib.metadata import EntryPoint

ENTRY_POINTS = "otelwp_agent.components"
"""Entry-point group of third-party components; the name of an entry is `kind:type` (`processor:acme_redact`)."""

SHIPPED: dict[Kind, tuple[str, ...]] = {
    Kind.RECEIVER: ("datagram", "heartbeat", "jaeger", "jaeger_json", "otlp", "zipkin"),
    Kind.PROCESSOR: (
        "adaptive_sampling",
        "attributes",
        "batch",
        "compression",
        "encryption",
        "memory_limiter",
        "probabilistic_sampler",
        "resource",
        "wordpress",
    ),
    Kind.EXPORTER: (
        "debug",
        "file",
        "jaeger",
        "loadbalancing",
        "managed",
        "otlp_grpc",
        "otlp_http",
        "recent_traces",
        "zipkin",
    ),
    Kind.CONNECTOR: ("failover", "forward", "routing", "smart_routing"),
    Kind.EXTENSION: (
        "admin_api",
        "api_key",
        "basicauth",
        "bearertokenauth",
        "client_certificate",
        "control_store",
        "delivery_statements",
        "fleet",
        "headers_setter",
        "health_check",
        "license_server",
        "oauth2client",
        "oidc",
        "opamp_server",
        "rate_limiter",
        "remote_sampling",
        "ui",
    ),
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
        """Load and return a component's factory, or `None` if there is none of that type; raise `LoadError`."""
        type_ = ALIASES.get(kind, {}).get(type_, type_)
        if type_ in SHIPPED[kind]:
            factory: Factory = import_module(f"otelwp_agent.{kind.value}.{type_}").FACTORY
            return factory
        point = self._third_party.get((kind, type_))
        return None if point is None else _load(kind, type_, point)

    def factories(self, broken: Callable[[LoadError], None] | None = None) -> Iterator[Factory]:
        """Load and yield the factories of all components, grouped by kind.

        A third-party component that cannot be loaded is left out and given to `broken`, or raised if that is left out.
        """
        for kind in Kind:
            for type_ in self.types(kind):
                try:
                    factory = self.get(kind, type_)
                except LoadError as error:
                    if broken is None:
                        raise
                    broken(error)
                    continue
                if factory is not None:
                    yield factory


def _load(kind: Kind, type_: str, point: EntryPoint) -> Factory:
    """Return the factory that an entry point names; raise `LoadError`, whatever is wrong with its package."""
    package = f" of the package {point.dist.name} {point.dist.version}" if point.dist is not None else ""
    head = f"{kind.value}/{type_}: cannot be loaded from `{point.value}`{package}"
    try:
        factory = point.load()
    except Exception as error:
        what = " ".join(str(error).split())
        raise LoadError(f"{head}: {type(error).__name__}: {what}") from error
    if not isinstance(factory, Factory):
        raise LoadError(f"{head}: that is {factory!r}, not a Factory (otelwp_agent.component.Factory)")
    if factory.kind is not kind or factory.type != type_:
        declared = f"{factory.kind.label}:{factory.type}"
        raise LoadError(f"{head}: its Factory declares `{declared}`, its entry point `{kind.label}:{type_}`")
    return factory
