"""Edit attributes in serialized requests in C, where the extension module is available.

The C code finds the attributes with the keys of actions and conditions in the bytes of a request, and replaces only
the bytes that change; no Python object is created for any other attribute. Requests with an unusual layout (groups, a
singular field twice, lengths that do not fit) are left to the Python code of the processors, which gives the same
result more slowly and decides whether a request is malformed.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from otelwp_agent.errors import MalformedError
from otelwp_agent.model import native
from otelwp_agent.model.attribute_actions import converter, extractor, hashed, value_of
from otelwp_agent.model.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.model.attribute_actions import Action
    from otelwp_agent.model.batch import Origin

    Test = Callable[[Any], bool]
    Enter = Callable[[bytes], int]

_MAX_PATTERNS = 64
_MAX_ANSWERS = 1024
"""Maximum number of cached results of a test; when it is reached, all are removed."""
_MAX_VALUE = 256
"""Maximum size in bytes of a value whose result is cached."""

_FIELDS = 16
"""The field numbers that are read are below this, so that their tags are one byte."""
_RESOURCE, _SCOPE, _TESTED = 1, 2, 4
"""Roles of message types: those whose first field is a resource or a scope, and those with the fields of conditions."""


def _type(children: dict[int, int] | None = None, *, attributes: int = 0, role: int = 0, once: Sequence[int] = (),
          added: int = 0) -> bytes:  # fmt: skip
    """Return a message type, in the layout of `Type` in native/edit.h.

    `children` has the index of a type for each field to read. `attributes` is the number of the field with attributes.
    Of the fields in `once`, a message has at most one. The field `added` is created if it is missing.
    """
    indexes = bytearray(_FIELDS)
    for number, index in (children or {}).items():
        indexes[number] = index + 1
    flags = sum(1 << number for number in once)
    return bytes([*indexes, attributes, role, *flags.to_bytes(2, "little"), added])


_GROUPS = (
    _type({1: 1}),  # request
    _type({2: 2}, role=_RESOURCE, once=[1]),
    _type({2: 3}, role=_SCOPE, once=[1]),
)
_ITEMS: dict[Signal, tuple[bytes, ...]] = {
    Signal.TRACES: (*_GROUPS, _type(attributes=9, role=_TESTED)),
    Signal.LOGS: (*_GROUPS, _type(attributes=6, role=_TESTED)),
    Signal.METRICS: (
        *_GROUPS,
        _type({5: 4, 7: 4, 9: 5, 10: 6, 11: 4}, role=_TESTED, once=[5, 7, 9, 10, 11]),
        *(_type({1: data_point}) for data_point in (7, 8, 9)),
        *(_type(attributes=number) for number in (7, 9, 1)),
    ),
}
"""The types of requests whose spans, log records or data points are edited. Numbers: see projection.proto."""
_RESOURCES = (_type({1: 1}), _type({1: 3, 2: 2}, once=[1], added=1), _type(), _type(attributes=1))
"""The types of requests whose resources are edited."""


K = TypeVar("K", bytes, int)
V = TypeVar("V")


class Answers(dict[K, V]):
    """The results of a function of a value, as a bounded cache that C reads."""

    __slots__ = ("_function",)
    _function: Callable[[K], V]

    def __init__(self, function: Callable[[K], V]) -> None:
        """Cache the results of `function` for short values."""
        super().__init__()
        self._function = function

    def __missing__(self, key: K) -> V:
        """Return the result for a value that is not cached."""
        answer: V = self._function(key)
        if isinstance(key, int) or len(key) <= _MAX_VALUE:
            if len(self) >= _MAX_ANSWERS:
                self.clear()
            self[key] = answer
        return answer


class _Kind(IntEnum):
    DELETE = 0
    SET = 1
    COPY = 2
    REWRITE = 3
    EXTRACT = 4


class Operation(NamedTuple):
    """An action, in the order in which native/edit_plan.c reads it."""

    kind: _Kind
    key: int = -1
    """Index of the attribute's key."""
    names: int = 0
    """Set of the patterns that select attributes in addition to `key`."""
    inserts: bool = False
    updates: bool = False
    source: int = -1
    """Index of the key whose value is copied."""
    value: int = -1
    """Index of the value in the values of a request, which is set if `source` does not exist."""
    results: Answers[bytes, Any] | None = None
    """A mapping from a value to the new value, for EXTRACT to the values of `groups`; to `None` for no change."""
    groups: tuple[int, ...] = ()
    """Indexes of the keys that EXTRACT sets."""
    all: bool = False
    """Whether all attributes that are selected are rewritten, and not only the first."""


class Where(IntEnum):
    """The part of an item that a condition reads."""

    BYTES_FIELD = 0
    NUMBER_FIELD = 1
    ATTRIBUTE = 2


class ItemCondition(NamedTuple):
    """A condition on items. All that include must hold; items for which all that exclude hold are not edited."""

    excludes: bool
    where: Where
    field: int
    """Number of a field of the item."""
    key: bytes
    """Key of an attribute of the item."""
    test: Test
    """Returns whether the value matches: the bytes or the number of the field, or a serialized AnyValue."""


class Editor:
    """Edits the attributes of requests as actions say."""

    __slots__ = ("_edit", "_fixed", "_sources")

    def __init__(self, types: tuple[bytes, ...], plan: _Plan, conditions: Sequence[ItemCondition]) -> None:
        """Compile the plan; the extension module must be available."""
        tests = tuple(
            (each.excludes, each.where, each.field, plan.key(each.key) if each.where is Where.ATTRIBUTE else -1,
             Answers(each.test))
            for each in conditions
        )  # fmt: skip
        names = Answers(plan.names_of) if plan.patterns else None
        keys = tuple((key, plan.names_of(key)) for key in plan.keys)
        self._edit = native.extension.editor(
            b"".join(types), keys, tuple(map(tuple, plan.operations)), tests, names
        ).edit
        self._sources = plan.sources
        self._fixed = tuple(source(None) for source in plan.sources) if not plan.reads_sender else None

    def edit(
        self, body: bytes, origin: Origin, on_resource: Enter | None = None, on_scope: Enter | None = None
    ) -> bytes | None:
        """Return the edited body, `body` itself if nothing has changed, or `None` if Python must read it.

        `on_resource` and `on_scope` are called with each serialized resource and scope. `on_scope` returns 0 if no item
        of the scope is to be edited, 1 if the conditions that exclude do not apply, and 2 if they do.
        """
        values = self._fixed
        if values is None:
            values = tuple([source(origin) for source in self._sources])
        try:
            edited: bytes | None = self._edit(body, values, on_resource, on_scope)
        except MalformedError:  # Python may not have to read that resource or scope
            return None
        return edited


def edit_items(actions: Sequence[Action], signal: Signal, conditions: Sequence[ItemCondition] = ()) -> Editor | None:
    """Return an editor of the attributes of a signal's items; `None` if it is not available in C."""
    return _compiled(actions, _ITEMS[signal], conditions)


def edit_resources(actions: Sequence[Action]) -> Editor | None:
    """Return an editor of the attributes of resources; `None` if it is not available in C."""
    return _compiled(actions, _RESOURCES, ())


def _compiled(
    actions: Sequence[Action], types: tuple[bytes, ...], conditions: Sequence[ItemCondition]
) -> Editor | None:
    if native.extension is None:
        return None
    plan = _Plan(actions)
    if len(plan.patterns) > _MAX_PATTERNS:
        return None
    return Editor(types, plan, conditions)


class _Plan:
    """The keys, patterns and operations of actions."""

    def __init__(self, actions: Sequence[Action]) -> None:
        self.keys: dict[bytes, int] = {}
        self.patterns: dict[str, re.Pattern[str]] = {}
        self.sources: list[Callable[[Any], bytes | None]] = []
        self.reads_sender = any(action.from_context for action in actions)
        self.operations = [self._operation(action) for action in actions]

    def key(self, key: bytes) -> int:
        """Return the index of a key; add it if it is new."""
        return self.keys.setdefault(key, len(self.keys))

    def names_of(self, key: bytes) -> int:
        """Return the set of the patterns that a key matches."""
        text = key.decode(errors="replace")
        return sum(1 << bit for bit, each in enumerate(self.patterns.values()) if each.search(text) is not None)

    def _operation(self, action: Action) -> Operation:
        key = self.key(action.key.encode()) if action.key else -1
        match action.kind:
            case "insert" | "update" | "upsert":
                self.sources.append(value_of(action))
                copied = action.from_attribute.encode()
                return Operation(
                    _Kind.COPY if copied else _Kind.SET,
                    key,
                    inserts=action.kind != "update",
                    updates=action.kind != "insert",
                    source=self.key(copied) if copied else -1,
                    value=len(self.sources) - 1,
                )
            case "delete":
                return Operation(_Kind.DELETE, key, self._name(action))
            case "hash":
                return Operation(_Kind.REWRITE, key, self._name(action), results=Answers(hashed), all=True)
            case "extract":
                groups, extract = extractor(action.pattern)
                return Operation(_Kind.EXTRACT, key, results=Answers(extract), groups=tuple(map(self.key, groups)))
            case "convert":
                return Operation(_Kind.REWRITE, key, results=Answers(converter(action.converted_type)))

    def _name(self, action: Action) -> int:
        """Return the set with the action's pattern."""
        if not action.pattern:
            return 0
        self.patterns.setdefault(action.pattern, re.compile(action.pattern))
        return 1 << list(self.patterns).index(action.pattern)
