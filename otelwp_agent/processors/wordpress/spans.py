"""Works out what becomes of the attributes of a span, and remembers it: most spans come again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.model.wire import prefixed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.processors.wordpress.attributes import Facts, Known

    Block = tuple[bytes | None, Facts]
    """A span's attributes as they go on, serialized as fields of it (`None`: as they came), and what they tell."""

_ATTRIBUTE = b"\x4a"
"""The tag of `attributes` in trace.proto's Span (9)."""
_BLOCKS = 2048
_MAX_BLOCK = 1024
"""Sets of attributes that are remembered, and the bytes of the largest; together they bound the memory."""


class Blocks:
    """Sets of attributes, by their bytes."""

    __slots__ = ("_known", "_read")

    def __init__(self, read: Callable[[bytes], Known]) -> None:
        """Read each attribute with `read`."""
        self._read = read
        self._known: dict[tuple[bytes, ...], Block] = {}

    def get(self, attributes: tuple[bytes, ...]) -> Block:
        """Return what becomes of a span's attributes, and what they tell."""
        return self._known.get(attributes) or self._work_out(attributes)

    def _work_out(self, attributes: tuple[bytes, ...]) -> Block:
        knowns = [self._read(each) for each in attributes]
        facts: Facts = {known.fact: known.value for known in knowns if known.fact}
        new = replaced(attributes, knowns, facts)
        block = (None if new is None else b"".join([prefixed(_ATTRIBUTE, each) for each in new]), facts)
        if sum(map(len, attributes)) <= _MAX_BLOCK:
            if len(self._known) >= _BLOCKS:
                self._known.clear()
            self._known[attributes] = block
        return block


def replaced(attributes: Sequence[bytes], knowns: Sequence[Known], facts: Facts) -> list[bytes] | None:
    """Return the attributes as they go on; `None` if all of them stay."""
    new: list[bytes] = []
    changed = False
    for data, known in zip(attributes, knowns, strict=True):
        if known.new is None:
            new.append(data)
        else:
            new += known.new
            changed = True
        name, added = known.added
        if name and name not in facts:
            facts[name] = True
            new.append(added)
            changed = True
    return new if changed else None
