"""Conditions: compiled tests of facts.

A condition keeps its text, so that `route explain` can show why it did not match.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from fnmatch import translate
from typing import TYPE_CHECKING, Any, Protocol

from otelwp_agent.routing.facts import Depth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from otelwp_agent.routing.facts import FactReader, Facts, Value

ORDERINGS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Pattern(Protocol):
    """A compiled regular expression that takes linear time (RE2)."""

    def search(self, text: str) -> object | None:
        """Return a match anywhere in the text, or `None`."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A test of facts."""

    text: str
    test: Callable[[Facts], bool]
    readers: tuple[FactReader, ...] = ()
    """All facts that it may read."""

    @property
    def depth(self) -> Depth:
        """The depth to which telemetry must be read for it."""
        return max((reader.depth for reader in self.readers), default=Depth.REQUEST)


def constant(text: str, *, result: bool) -> Condition:
    """Return a condition that is always `result`."""
    return Condition(text, lambda _facts: result)


def negated(text: str, inner: Condition) -> Condition:
    """Return the opposite of a condition."""
    test = inner.test
    return Condition(text, lambda facts: not test(facts), inner.readers)


def combined(text: str, parts: Sequence[Condition], *, every: bool) -> Condition:
    """Return a condition that holds if all of `parts` hold, or without `every` if one of them holds."""
    tests = [part.test for part in parts]
    readers = tuple(dict.fromkeys(reader for part in parts for reader in part.readers))
    if every:
        return Condition(text, lambda facts: all(test(facts) for test in tests), readers)
    return Condition(text, lambda facts: any(test(facts) for test in tests), readers)


def equal(text: str, reader: FactReader, wanted: Value, *, negate: bool) -> Condition:
    """Return a condition that a fact has a value; `None` means that the telemetry does not have the fact."""
    read = reader.read
    if negate:
        return Condition(text, lambda facts: not _same(read(facts), wanted), (reader,))
    return Condition(text, lambda facts: _same(read(facts), wanted), (reader,))


def ordered(text: str, reader: FactReader, sign: str, wanted: float | str) -> Condition:
    """Return a condition that compares a fact with a value; a fact of another type does not match."""
    read, compare, number = reader.read, ORDERINGS[sign], not isinstance(wanted, str)

    def test(facts: Facts) -> bool:
        value = read(facts)
        if isinstance(value, bool) or not isinstance(value, (int, float) if number else str):
            return False
        return bool(compare(value, wanted))

    return Condition(text, test, (reader,))


def member(text: str, reader: FactReader, wanted: Iterable[Value]) -> Condition:
    """Return a condition that a fact is one of several values."""
    read, values = reader.read, [*wanted]

    def test(facts: Facts) -> bool:
        value = read(facts)
        return any(_same(value, each) for each in values)

    return Condition(text, test, (reader,))


def matching(text: str, reader: FactReader, pattern: Pattern) -> Condition:
    """Return a condition that a text contains a match of a regular expression."""
    search = pattern.search
    return _of_text(text, reader, lambda value: search(value) is not None)


def affixed(text: str, reader: FactReader, affix: str, *, at_start: bool) -> Condition:
    """Return a condition that a text begins, or without `at_start` ends, with another."""
    if at_start:
        return _of_text(text, reader, lambda value: value.startswith(affix))
    return _of_text(text, reader, lambda value: value.endswith(affix))


def globbing(text: str, reader: FactReader, pattern: str, compiled: Callable[[str], Pattern]) -> Condition:
    """Return a condition that a whole text matches a pattern with `*`, `?` and `[…]`."""
    # `translate` uses atomic groups, which RE2 does not have and a linear-time engine does not need.
    return matching(text, reader, compiled("^" + translate(pattern).replace("(?>", "(?:").replace(r"\Z", "$")))


def _of_text(text: str, reader: FactReader, holds: Callable[[str], bool]) -> Condition:
    read = reader.read

    def test(facts: Facts) -> bool:
        value = read(facts)
        return isinstance(value, str) and holds(value)

    return Condition(text, test, (reader,))


def _same(value: Value, wanted: Value) -> bool:
    """Return whether two values are equal and of one type; integers and other numbers are of one type."""
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    return value == wanted
