"""Tails of spans that are the same but for a value or two, such as an address or the number of a user.

Where a key's values are new again and again, the key is *volatile*. What is left of a tail without its volatile
attributes comes again, and with it what was written for it: a *template*, into which the new fragments are put. What
stands before a volatile attribute and behind it has to be, byte for byte, what was once read as whole fields; then what
is between them is one, if its length says so.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Generic

from otelwp_agent.codecs.recurring import Seen
from otelwp_agent.codecs.zipkin.fragments import F, Tags

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Frame = tuple[bytes | str, ...]
    """What stands before, between and behind volatile attributes, each tag included, with their keys in between."""

MAX_VOLATILE = 3
"""Volatile keys of one kind of span in one scope."""

MANY = 512
"""New values that make a key volatile."""

MAX_LOOKS = 8192
"""How often is looked for volatile keys, in one kind of span of one scope."""

MAX_TEMPLATES = 1024
"""Templates of one kind of span in one scope; when full, they are all forgotten."""

OFTEN = 7
"""Of so many volatile texts, one is looked at as others are, so that those which come often are remembered."""


class Templates(Generic[F]):
    """What was written for tails of one kind of span in one scope, but for volatile attributes."""

    __slots__ = ("_counts", "_known", "_looks", "_place", "_seen", "_turn", "_unknown", "heads")

    def __init__(self, nothing: F) -> None:
        """Begin with none; `nothing` is the format's empty string."""
        self.heads: list[tuple[bytes, str]] = []
        """What a volatile attribute begins with, behind its length, and its key."""
        self._known: dict[Frame, list[F]] = {}
        self._seen: Callable[[Frame], bool] = Seen().again
        self._unknown: Frame = ()
        self._counts: dict[str, int] = {}
        self._looks: int = 0
        self._turn: int = 0
        self._place: F = _PLACE if isinstance(nothing, bytes) else _PLACE.hex()

    def write(self, tail: bytes, tags: Tags[F]) -> F | None:
        """Write a tail, if it has volatile attributes and the rest of it is known."""
        at, key = 0, ""
        for head, name in self.heads:
            place = tail.find(head)
            if place > 1:
                if at:
                    return self._write_many(tail, tags)
                at, key = place, name
        if not at:
            return None
        begin, end = at - 1, at + tail[at - 1]
        frame = tail[:begin], key, tail[end:]
        parts = self._known.get(frame)
        if parts is None:
            self._unknown = frame
            return None
        self._turn = turn = (self._turn + 1) % OFTEN
        if turn:
            size = begin + len(key) + 4  # where the value's length is, behind the key, and the tags and lengths of both
            if (
                tail[at + 1] == len(key)
                and tail[size] == end - size - 1
                and tail[size + 1] == _STRING
                and tail[size + 2] == end - size - 3
                and end <= len(tail)
            ):
                tags.missed += 1
                return parts[0] + tags.tag(key, str(tail[size + 3 : end], "utf-8", "replace")) + parts[1]
        try:
            fragment, found = tags[tail[begin:end]]
        except ValueError:
            return None
        return parts[0] + fragment + parts[1] if found == key else None

    def _write_many(self, tail: bytes, tags: Tags[F]) -> F | None:
        """Write a tail with more than one volatile attribute."""
        spots = sorted(
            [(place, key) for place, key in [(tail.find(head), key) for head, key in self.heads] if place > 1]
        )
        frame: list[bytes | str] = []
        pieces = []
        last = 0
        for at, key in spots:
            frame += (tail[last : at - 1], key)
            last = at + tail[at - 1]
            pieces.append(tail[at - 1 : last])
        frame.append(tail[last:])
        known = tuple(frame)
        parts = self._known.get(known)
        if parts is None:
            self._unknown = known
            return None
        written = parts[0]
        try:
            for piece, (_, key), part in zip(pieces, spots, parts[1:], strict=True):
                fragment, found = tags[piece]
                if found != key:
                    return None
                written = written + fragment + part
        except ValueError:
            return None
        return written

    def learn(  # noqa: PLR0913, PLR0917 - all that is known of a tail
        self,
        pieces: Sequence[bytes],
        keys: Sequence[str],
        fragments: Sequence[F],
        tags: Tags[F],
        written: Callable[[Sequence[F]], F],
        told: Sequence[int],
    ) -> None:
        """Learn from a tail, some of whose attributes were new.

        `written` writes it with other fragments. The attributes at the places `told` are more than tags.
        """
        if self._unknown and self._seen(self._unknown):
            self._add(pieces, keys, fragments, written, told)
        self._unknown = ()
        if self._looks == MAX_LOOKS or len(self.heads) == MAX_VOLATILE:
            return
        self._looks += 1
        for place, (piece, key) in enumerate(zip(pieces, keys, strict=True)):
            if piece not in tags and place not in told:
                count = self._counts[key] = self._counts.get(key, 0) + 1
                head = piece[1 : 4 + piece[2]]
                if count >= MANY and len(self.heads) < MAX_VOLATILE and (head, key) not in self.heads:
                    self.heads.append((head, key))

    def _add(
        self,
        pieces: Sequence[bytes],
        keys: Sequence[str],
        fragments: Sequence[F],
        written: Callable[[Sequence[F]], F],
        told: Sequence[int],
    ) -> None:
        """Keep what is written for the frame that was not known, if it was cut where attributes begin."""
        volatile = self._unknown[1::2]
        places = []
        frame: list[bytes | str] = []
        before = b""
        for place, (piece, key) in enumerate(zip(pieces, keys, strict=True)):
            before += _ATTRIBUTE
            if key in volatile:
                frame += (before, key)
                places.append(place)
                before = b""
            else:
                before += piece
        if tuple(frame) != self._unknown[:-1] or not set(places).isdisjoint(told):
            return
        marked = list(fragments)
        for place in places:
            marked[place] = self._place
        parts = written(marked).split(self._place)
        if len(parts) == len(places) + 1:
            if len(self._known) >= MAX_TEMPLATES:
                self._known.clear()
            self._known[self._unknown] = parts


_STRING = 0x0A
"""The tag of AnyValue.string_value (common.proto)."""
_ATTRIBUTE = b"\x4a"
"""The tag of a span's attributes."""
_PLACE = b"\0" + secrets.token_bytes(16)
"""Stands for a fragment."""
