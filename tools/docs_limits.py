"""The table of limits in docs/topics/security.md: every key of the configuration that bounds something, by its name.

A key appears by itself once a block has it, so that the page cannot miss a new limit or keep an old default.
"""

from __future__ import annotations

import re
from inspect import cleandoc
from typing import TYPE_CHECKING

from docs_fields import default_words, foreign_words

from otelwp_agent.component import Kind
from otelwp_agent.components import SHIPPED, Catalog
from otelwp_agent.config import blocks
from otelwp_agent.config.describe import describe
from otelwp_agent.transport import in_flight

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import BaseModel

BEGIN, END = "<!-- limits: begin, written by `make docs` -->\n", "<!-- limits: end -->\n"

HEAD = ("where", "key", "default", "meaning")

_BOUNDS = re.compile(
    r"max_(?!gc_).*|.*limit_(mib|percentage)|.*timeout|backlog|queue_size|isolate_after|allow.*|unix_mode|on_overload"
    r"|compression_algorithms|receive_buffer_size|threshold"
)
"""Names of keys that bound what a client, a backend or a disk can use."""

_SHARED: tuple[tuple[str, type[BaseModel]], ...] = (
    ("HTTP servers", blocks.HttpServer),
    ("gRPC servers", blocks.GrpcServer),
    ("`sending_queue` of exporters", blocks.Queue),
)
_ALONE = ((Kind.RECEIVER, None), (Kind.PROCESSOR, "memory_limiter"), (Kind.EXTENSION, "health_check"))
"""Components whose own keys are listed: all of a kind, or one."""


def rows() -> Iterator[Sequence[str]]:
    """Yield the cells of the table."""
    shared: set[tuple[str, str]] = set()
    for where, block in _SHARED:
        for key, default, meaning in bounds(block):
            shared.add((key, default))
            yield where, key, default, meaning
    seen: dict[tuple[str, str, str], list[str]] = {}
    for kind, only in _ALONE:
        for type_ in SHIPPED[kind]:
            factory = Catalog().get(kind, type_)
            if factory is not None and only in (None, type_):
                for key, default, meaning in bounds(factory.config):
                    if (key, default) not in shared:
                        seen.setdefault((key, default, meaning), []).append(f"`{type_}`")
    for (key, default, meaning), types in seen.items():
        yield ", ".join(types), key, default, meaning
    for name, size in (("soft", in_flight.DEFAULT_SOFT), ("hard", in_flight.DEFAULT_HARD)):
        yield "the process", f"in-flight bytes, {name} limit", f"`{size // 2**20}MiB`", _IN_FLIGHT[name]


_IN_FLIGHT = {
    "soft": "Receivers stop reading bodies above it. A `memory_limiter` sets it.",
    "hard": "The largest and slowest requests that are arriving are refused above it. A `memory_limiter` sets it.",
}


def bounds(block: type[BaseModel]) -> Iterator[tuple[str, str, str]]:
    """Yield key, default and meaning of each field of `block` that bounds something."""
    describe(block)
    for name, field in block.model_fields.items():
        key = field.alias or name
        if _BOUNDS.fullmatch(key) and not foreign_words(field):
            yield f"`{key}`", default_words(field) or "not set", cleandoc(field.description or "")


def filled(page: str, table: str) -> str:
    """Return a page with the table between its marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        message = f"docs/topics/security.md has no place for the limits: write {BEGIN.strip()} and {END.strip()}"
        raise ValueError(message)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"
