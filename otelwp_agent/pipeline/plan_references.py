"""Check the references of components to extensions, and put the extensions into the order of their references."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.component import ComponentId, Kind
from otelwp_agent.config.explain import did_you_mean, listing
from otelwp_agent.config.references import references

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from otelwp_agent.config.document import Document, Path
    from otelwp_agent.config.references import Capability, ExtensionRef
    from otelwp_agent.errors import Problem
    from otelwp_agent.pipeline.plan_types import ComponentPlan, Components, Key


def check_references(
    components: Mapping[Key, ComponentPlan | None],
    listed: Sequence[ComponentId],
    document: Document,
    catalog: Components,
) -> list[Problem]:
    """Return an error for each reference to an extension that is missing, does not run or is of another kind.

    `components` are all components of the document (`None`: invalid, and reported), `listed` the extensions that run.
    """
    checker = _References(components, listed, catalog)
    problems = []
    for (kind, identifier), planned in components.items():
        for reference, path in references(planned.config) if planned is not None else ():
            message = checker.problem(reference)
            if message:
                problems.append(_at(document, (kind.value, str(identifier), *path), message))
    return problems + [
        _at(
            document,
            ("extensions", str(circle[0])),
            f"extensions refer to each other: {listing(map(str, circle), 'and')}",
        )
        for circle in circles(components, listed)
    ]


def in_order(components: Mapping[Key, ComponentPlan], listed: Sequence[ComponentId]) -> list[ComponentId]:
    """Return extensions so that each comes after those that it refers to, otherwise in the order of `listed`."""
    ordered: dict[ComponentId, None] = {}

    def add(identifier: ComponentId) -> None:
        if identifier in ordered:
            return
        for other in _referred(components.get((Kind.EXTENSION, identifier))):
            add(other)
        ordered[identifier] = None

    for identifier in listed:
        add(identifier)
    return list(ordered)


def circles(
    components: Mapping[Key, ComponentPlan | None], listed: Sequence[ComponentId]
) -> Iterator[list[ComponentId]]:
    """Yield each circle of extensions that refer to each other, once."""
    done: set[ComponentId] = set()
    for start in listed:
        path = [start]
        while path[-1] not in done:
            done.add(path[-1])
            following = [other for other in _referred(components.get((Kind.EXTENSION, path[-1]))) if other in listed]
            found = next((other for other in following if other in path), None)
            if found is not None:
                yield path[path.index(found) :]
                break
            if not following:
                break
            path.append(following[0])


def _referred(planned: ComponentPlan | None) -> list[ComponentId]:
    return list(planned.references) if planned is not None else []


class _References:
    def __init__(
        self, components: Mapping[Key, ComponentPlan | None], listed: Sequence[ComponentId], catalog: Components
    ) -> None:
        self._extensions = {identifier: one for (kind, identifier), one in components.items() if kind is Kind.EXTENSION}
        self._listed = listed
        self._catalog = catalog

    def problem(self, reference: ExtensionRef) -> str:
        """Return what is wrong with a reference, or ""."""
        identifier = ComponentId.parse(reference)
        if identifier not in self._extensions:
            return self._undefined(identifier, reference.needs)
        planned = self._extensions[identifier]
        if planned is None:
            return ""  # invalid, and reported
        if reference.needs not in planned.factory.capabilities:
            return f"extension `{identifier}` cannot be used here: this must be {self._wanted(reference.needs)}"
        if lack := planned.config.lack(reference.needs):
            return f"extension `{identifier}` cannot be used here: {lack}"
        if identifier not in self._listed:
            return f"extension `{identifier}` does not run: add it to `service.extensions`"
        return ""

    def _undefined(self, identifier: ComponentId, needs: Capability) -> str:
        message = f"extension `{identifier}` is not configured"
        if hint := did_you_mean(str(identifier), [str(known) for known in self._extensions]):
            return message + hint
        if identifier.type in self._catalog.names(Kind.EXTENSION):
            return f"{message}: write `{identifier}:` with its settings under `extensions`"
        return f"{message}: this must be {self._wanted(needs)}"

    def _wanted(self, needs: Capability) -> str:
        """Return in words what an extension must be able to do, with the types that can."""
        capable = []
        for type_ in self._catalog.names(Kind.EXTENSION):
            factory = self._catalog.get(Kind.EXTENSION, type_)
            if factory is not None and needs in factory.capabilities:
                capable.append(type_)
        return needs.value + (f", of the type {listing(capable)}" if capable else "")


def _at(document: Document, path: Path, message: str) -> Problem:
    node = document.root
    for part in path:
        node = node.get(part) or node
    return node.problem(message, path)
