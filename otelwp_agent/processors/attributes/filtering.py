"""Select items by `include` and `exclude`, group by group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.projections import parse
from otelwp_agent.processors.attributes.matching import Matcher

if TYPE_CHECKING:
    from otelwp_agent.model.attribute_edits import ItemCondition
    from otelwp_agent.model.attributes import Attributes
    from otelwp_agent.model.signal import Signal
    from otelwp_agent.processors.attributes.matching import Item, Properties


class ItemFilter:
    """`include` and `exclude` for one signal. False if every item is selected.

    Call `enter_resource` and `enter_scope` for a group of items, then `match` for each of them.
    """

    def __init__(self, include: Properties | None, exclude: Properties | None, signal: Signal) -> None:
        """Compile the properties."""
        self._include = None if include is None else Matcher(include, signal)
        self._exclude = None if exclude is None else Matcher(exclude, signal)
        self._excludes = False
        self._resource = pb.Resource()
        self.reads_items = any(not each.by_group for each in (self._include, self._exclude) if each is not None)
        """Whether `match` must be called for each item after `enter_scope`."""

    def __bool__(self) -> bool:
        """Whether any item may not be selected."""
        return self._include is not None or self._exclude is not None

    def conditions(self) -> list[ItemCondition]:
        """Return what `match` checks, for an editor."""
        include = [] if self._include is None else self._include.conditions(excludes=False)
        exclude = [] if self._exclude is None else self._exclude.conditions(excludes=True)
        return [*include, *exclude]

    def enter_resource(self, data: bytes) -> int:
        """Read the serialized resource of the following scopes. Raises `MalformedError`."""
        self._resource = parse(pb.Resource.FromString, data)
        return 1

    def enter_scope(self, data: bytes) -> int:
        """Return 0 if no item of a serialized scope can be selected, 2 if `exclude` may exclude items, 1 if not.

        Raises `MalformedError`.
        """
        scope = parse(pb.Scope.FromString, data)
        include, exclude = self._include, self._exclude
        self._excludes = exclude is not None and exclude.group(self._resource, scope)
        if exclude is not None and self._excludes and exclude.by_group:
            return 0
        if include is not None and not include.group(self._resource, scope):
            return 0
        return 1 + self._excludes

    def match(self, item: Item, attributes: Attributes) -> bool:
        """Return whether an item is selected."""
        include, exclude = self._include, self._exclude
        if include is not None and not (include.item(item) and include.attributes(attributes)):
            return False
        if exclude is None or not self._excludes:
            return True
        return not (exclude.item(item) and exclude.attributes(attributes))
