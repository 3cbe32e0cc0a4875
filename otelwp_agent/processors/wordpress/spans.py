"""Edit all attributes of a span at once, with a cache, because most sets of attributes are repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.model.wire import prefixed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.processors.wordpress.attributes import Facts, Known

    Block = tuple[bytes | None, Facts]
    """A span's edited attributes, serialized as fields of the span (`None`: unchanged), and its facts."""

_ATTRIBUTE = b"\x4a"
"""Tag of `attributes` in trace.proto's Span (9)."""
_BLOCKS = 2048
_MAX_BLOCK = 1024
"""Maximum number of cached sets of attributes, and maximum size in bytes of each; together they bound the memory."""


class Blocks:
    """A cache of edited sets of attributes, by their bytes."""

    __slots__ = ("_known", "_read")

    def __init__(self, read: Callable[[bytes], Known]) -> None:
        """Edit each attribute with `read`."""
        self._read = read
        self._known: dict[tuple[bytes, ...], Block] = {}

    def get(self, attributes: tuple[bytes, ...]) -> Block:
        """Return the edited attributes of a span, and its facts."""
        return self._known.get(attributes) or self._edit(attributes)

    def _edit(self, attributes: tuple[bytes, ...]) -> Block:
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
    """Return the edited attributes; `None` if all stay unchanged."""
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
