"""Build components from a plan, and check that a factory returned what its kind requires."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from otelwp_agent.component import BackendGroup, Component, Connector, Exporter, Extension, Kind, Processor, Receiver
from otelwp_agent.component_errors import failure
from otelwp_agent.config.references import Capability
from otelwp_agent.errors import StartError
from otelwp_agent.transport.authentication import ClientAuthenticator, ServerAuthenticator
from otelwp_agent.transport.limiting import RequestLimiter

if TYPE_CHECKING:
    from collections.abc import Collection

    from otelwp_agent.component import Context
    from otelwp_agent.pipeline.plan_types import ComponentPlan

_CLASSES: dict[Kind, type[Component]] = {
    Kind.RECEIVER: Receiver,
    Kind.PROCESSOR: Processor,
    Kind.EXPORTER: Exporter,
    Kind.CONNECTOR: Connector,
    Kind.EXTENSION: Extension,
}
_CONTRACTS: dict[Capability, type] = {
    Capability.SERVER_AUTHENTICATOR: ServerAuthenticator,
    Capability.CLIENT_AUTHENTICATOR: ClientAuthenticator,
    Capability.REQUEST_LIMITER: RequestLimiter,
}
"""The classes that an extension with a capability must derive from."""
_REQUIRED = {Kind.PROCESSOR: "consume", Kind.CONNECTOR: "consume", Kind.EXPORTER: "export"}
"""The method that a component of this kind must define; it is called with one batch."""


def build_component(planned: ComponentPlan, context: Context) -> Component:
    """Return the component, built; raise `StartError` that names it if its factory fails or returns something else."""
    name = f"{planned.kind.value}/{planned.id}"
    try:
        component = planned.factory.build(planned.config, context)
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:  # the call itself failed
            message = (
                f"{name}: cannot be built as build(config, context): {error}. Define __init__(self, config, context) "
                "and call super().__init__(context)"
            )
            raise StartError(message) from error
        raise failure(name, "cannot be built", error, context.log) from error
    except Exception as error:
        raise failure(name, "cannot be built", error, context.log) from error
    if problem := _problem(planned.kind, component, planned.factory.capabilities):
        raise StartError(f"{name}: {problem}")
    return component


def _problem(kind: Kind, component: object, capabilities: Collection[Capability]) -> str:
    """Return what is wrong with a component that its factory returned, or ""."""
    base = _CLASSES[kind]
    if not isinstance(component, base):
        return f"its factory returned {component!r}, not a {base.__name__} (otelwp_agent.component.{base.__name__})"
    if not hasattr(component, "context"):
        return "its __init__ must call super().__init__(context)"
    for capability, contract in _CONTRACTS.items():
        if capability in capabilities and not isinstance(component, contract):
            return f"its factory declares {capability.name}, but it is not {contract.__name__}"
    if isinstance(component, BackendGroup):
        return ""  # its backends export
    method = _REQUIRED.get(kind)
    return "" if method is None else _method_problem(kind, component, method, getattr(base, method))


def _method_problem(kind: Kind, component: Component, method: str, inherited: object) -> str:
    """Return what is wrong with the method that takes batches, or ""."""
    function = getattr(component, method)
    owner = type(component).__name__
    if getattr(function, "__func__", None) is inherited:
        return f"{owner} must define {method}(self, batch)"
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        return f"{owner}.{method} must accept one batch, {method}(self, batch): {error}"
    if kind is Kind.EXPORTER and not inspect.iscoroutinefunction(function):
        return f"{owner}.export must be a coroutine function, `async def export(self, batch)`"
    return ""
