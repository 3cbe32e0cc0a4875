"""Read a large JSON document in slices, so that no call of the parser holds the GIL for long.

A scan that only recognizes strings, brackets and commas finds runs of elements in long arrays. In the document, each
run is replaced by a placeholder, so that the document becomes small; each run is parsed separately. The scan also
counts: a document with more objects, arrays and commas than its receiver accepts is refused before objects are created.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Literal

from otelwp_agent.errors import MalformedError, TooLargeError
from otelwp_agent.model.checking import PARTS, too_many
from otelwp_agent.model.native import extension

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Load = Callable[[bytes], Any]
    Lazy = Literal["", "outermost", "all"]
    """Which long arrays are parsed only when they are needed: none, the outermost ones or all."""

LARGE = 512 * 1024
"""Bytes from which a document is read in slices; orjson parses the densest smaller document in 30 ms."""

SLICE = 256 * 1024
"""Approximate bytes of a slice; orjson parses the densest slice in 10 ms."""

VALUES_PER_ITEM = 2 * PARTS
"""Limit of the objects, arrays and commas in a document, as a multiple of the limit of items: 4 million by default, one
for each 5 bytes of the largest body. Spans have one for each 10 to 20 bytes."""

MAX_PIECE = 1024 * 1024
"""Bytes of an uncut piece (a long object, arrays in arrays) above which its values are counted."""

MAX_PIECE_VALUES = 250_000
"""Most values in such a piece, which orjson parses in 50 ms; and the least limit of elements in an array that its
receiver needs as a whole."""

_MAX_DEPTH = 1024
_MAX_CUT_DEPTH = 12
"""Maximum depth of arrays that are cut: the data points of metrics have depth 9."""
_RUNS_PER_TARGET = 64
"""The smallest run has the target size divided by this, so that there are not too many small runs."""
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{},"]', re.DOTALL)
_BLANKS = b" \n\r\t"


class Sliced:
    """A long array with placeholders for runs of elements; the runs are parsed one after the other."""

    __slots__ = ("_elements", "_load", "_runs", "most")

    def __init__(self, elements: list[Any], runs: Mapping[str, bytes], load: Load, most: int) -> None:
        """Store `elements`, in which the keys of `runs` are placeholders. `most` is the limit of elements to accept."""
        self._elements = elements
        self._runs = runs
        self._load = load
        self.most = most

    def chunks(self) -> Iterator[list[Any]]:
        """Yield all elements, as lists."""
        for element in self._elements:
            run = self._runs.get(element) if type(element) is str else None
            yield [element] if run is None else self._load(b"[%b]" % run)


def loads(data: bytes, load: Load, max_items: int, lazy: Lazy = "") -> Any:  # noqa: ANN401 - any value of JSON
    """Parse `data` with `load` and return the document; with `lazy`, long arrays are returned as `Sliced`.

    Raises `TooLargeError` if the document has too many values for `max_items`, and the errors of `load`.
    """
    if len(data) < LARGE:
        return load(data)
    values, places = _scan(data)
    if values > VALUES_PER_ITEM * max_items:
        raise too_many(max_items)
    cut = sorted(zip(places[::2], places[1::2], strict=True))
    name = os.urandom(16).hex()
    runs = {f"{name}{start}": data[start:end] for start, end in cut}
    parts, position = [], 0
    for start, end in cut:
        parts.append(b'%b"%b%d"' % (data[position:start], name.encode(), start))
        position = end
    parts.append(data[position:])
    outer = b"".join(parts)
    for piece in (outer, *runs.values()):
        if len(piece) > MAX_PIECE and _scan(piece)[0] > MAX_PIECE_VALUES:
            raise TooLargeError(
                f"the JSON has an object or a nested array of {len(piece)} bytes with more than {MAX_PIECE_VALUES} "
                "values: send smaller batches"
            )
    return _Joining(runs, load, max_items, lazy == "all").joined(load(outer), lazy=bool(lazy))


def _scan(data: bytes) -> tuple[int, list[int]]:
    found = (find_runs if extension is None else extension.find_runs)(data, SLICE)
    if found is None:
        raise MalformedError("the body is not JSON: its brackets do not match, or a string has no end")
    return found


class _Joining:
    """Puts the runs back into the document from which they were cut."""

    def __init__(self, runs: Mapping[str, bytes], load: Load, most: int, lazy: bool) -> None:  # noqa: FBT001 - private class
        self._runs = runs
        self._load = load
        self._most = most
        self._lazy = lazy

    def joined(self, value: Any, *, lazy: bool) -> Any:  # noqa: ANN401 - any value of JSON
        """Return a value of the small document with the placeholders replaced by the runs."""
        if type(value) is dict:
            for key, each in value.items():
                if type(each) is dict or type(each) is list:
                    value[key] = self.joined(each, lazy=self._lazy)
            return value
        if type(value) is not list:
            return value
        cut = False
        for index, each in enumerate(value):
            if type(each) is dict or type(each) is list:
                value[index] = self.joined(each, lazy=self._lazy)
            elif type(each) is str and each in self._runs:
                cut = True
        if not cut:
            return value
        sliced = Sliced(value, self._runs, self._load, self._most)
        return sliced if lazy else self._whole(sliced)

    def _whole(self, sliced: Sliced) -> list[Any]:
        """Return all elements; raise `TooLargeError` if there are so many that freeing them would hold the GIL."""
        elements: list[Any] = []
        most = max(self._most, MAX_PIECE_VALUES)
        for chunk in sliced.chunks():
            elements += chunk
            if len(elements) > most:
                raise too_many(most)
        return elements


def find_runs(data: bytes, target: int) -> tuple[int, list[int]] | None:  # noqa: C901 - one loop
    """Find runs of about `target` bytes in longer arrays, and a shorter last run in each of these arrays.

    Returns the number of objects, arrays and commas, and the start and end of each run; `None` if brackets do not
    match, a string has no end, or the nesting is too deep. Other errors in the JSON are not detected.
    """
    runs = _Runs(target)
    levels = [_Level(0, is_array=False)]
    values = 0
    for token in _TOKENS.finditer(data):
        at, kind = token.start(), data[token.start()]
        level = levels[-1]
        if kind in b"{[":
            if len(levels) > _MAX_DEPTH:
                return None
            values += 1
            levels.append(_Level(at + 1, is_array=kind == ord("[")))
        elif kind in b"}]":
            if len(levels) == 1 or level.is_array != (kind == ord("]")):
                return None
            if level.is_array and len(levels) <= _MAX_CUT_DEPTH + 1:
                level.end_element(data, at, runs)
            if level.is_cut:
                level.end_run(runs)
            levels.pop()
            levels[-1].inner_cut |= level.is_cut or level.inner_cut
        elif kind == ord(","):
            values += 1
            if level.is_array and len(levels) <= _MAX_CUT_DEPTH + 1:
                level.end_element(data, at, runs)
        elif token.end() == at + 1:
            return None  # a quote without a closing quote
    return None if len(levels) > 1 else (values, runs.places)


class _Runs:
    """The start and end positions of the runs found so far."""

    __slots__ = ("places", "smallest", "target")

    def __init__(self, target: int) -> None:
        self.places: list[int] = []
        self.target = target
        self.smallest = target // _RUNS_PER_TARGET + 1


class _Level:
    """An object or an array whose end has not been read yet."""

    __slots__ = ("element", "inner_cut", "is_array", "is_cut", "run")

    def __init__(self, start: int, *, is_array: bool) -> None:
        self.element = start
        self.is_array = is_array
        self.is_cut = self.inner_cut = False
        self.run: tuple[int, int] | None = None

    def end_element(self, data: bytes, at: int, runs: _Runs) -> None:
        """Record the end of an element at `at`."""
        if self.inner_cut:
            self.end_run(runs)
            self.is_cut, self.inner_cut = True, False
        elif not data[self.element : at].strip(_BLANKS):
            self.run = None
        else:
            self.run = (self.run[0] if self.run else self.element, at)
            if at - self.run[0] >= runs.target:
                self.end_run(runs)
        self.element = at + 1

    def end_run(self, runs: _Runs) -> None:
        """Store the run if it is large enough."""
        if self.run and self.run[1] - self.run[0] >= runs.smallest:
            runs.places += self.run
            self.is_cut = True
        self.run = None
