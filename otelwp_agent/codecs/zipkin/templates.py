"""Cache tails of spans that are equal except for one or a few values, such as an address or a user id.

A key with new values again and again is *volatile*. The rest of a tail, without its volatile attributes, is repeated,
and so is its encoded form: a *template*, into which the new fragments are inserted. The bytes before and after a
volatile attribute must equal bytes that were once parsed as whole fields; then the bytes between them are one
attribute, if its length matches.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Generic

from otelwp_agent.codecs.recurring import Seen
from otelwp_agent.codecs.zipkin.fragments import F, TagCache

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Frame = tuple[bytes | str, ...]
    """The bytes before, between and after volatile attributes, including their tags, alternating with the volatile
    keys."""

MAX_VOLATILE = 3
"""Maximum number of volatile keys of one kind of span in one scope."""

MANY = 512
"""Number of new values that make a key volatile."""

MAX_LOOKS = 8192
"""Maximum number of searches for volatile keys, for one kind of span in one scope."""

MAX_TEMPLATES = 1024
"""Maximum number of templates of one kind of span in one scope; when it is reached, all are removed."""

OFTEN = 7
"""One of this many volatile texts is handled like other attributes, so that frequent ones are cached."""


class Templates(Generic[F]):
    """Encoded tails of one kind of span in one scope, without their volatile attributes."""

    __slots__ = ("_counts", "_known", "_looks", "_place", "_seen", "_turn", "_unknown", "heads")

    def __init__(self, nothing: F) -> None:
        """Start without templates; `nothing` is the format's empty string."""
        self.heads: list[tuple[bytes, str]] = []
        """The first bytes of a volatile attribute, after its length, and its key."""
        self._known: dict[Frame, list[F]] = {}
        self._seen: Callable[[Frame], bool] = Seen().again
        self._unknown: Frame = ()
        self._counts: dict[str, int] = {}
        self._looks: int = 0
        self._turn: int = 0
        self._place: F = _PLACE if isinstance(nothing, bytes) else _PLACE.hex()

    def write(self, tail: bytes, tags: TagCache[F]) -> F | None:
        """Return the encoded form of a tail with volatile attributes, if there is a template for the rest."""
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
            size = (
                begin + len(key) + 4
            )  # position of the value's length, after the key, and the tags and lengths of both
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

    def _write_many(self, tail: bytes, tags: TagCache[F]) -> F | None:
        """Return the encoded form of a tail with more than one volatile attribute."""
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

    def learn(  # noqa: PLR0913, PLR0917 - all that is known about a tail
        self,
        pieces: Sequence[bytes],
        keys: Sequence[str],
        fragments: Sequence[F],
        tags: TagCache[F],
        written: Callable[[Sequence[F]], F],
        peer: Sequence[int],
    ) -> None:
        """Learn from a tail that has some new attributes.

        `written` encodes the tail with other fragments. The attributes at the positions `peer` are used for the remote
        endpoint too.
        """
        if self._unknown and self._seen(self._unknown):
            self._add(pieces, keys, fragments, written, peer)
        self._unknown = ()
        if self._looks == MAX_LOOKS or len(self.heads) == MAX_VOLATILE:
            return
        self._looks += 1
        for place, (piece, key) in enumerate(zip(pieces, keys, strict=True)):
            if piece not in tags and place not in peer:
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
        peer: Sequence[int],
    ) -> None:
        """Add a template for the last unknown frame, if that was divided at the boundaries of attributes."""
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
        if tuple(frame) != self._unknown[:-1] or not set(places).isdisjoint(peer):
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
"""Tag of AnyValue.string_value (common.proto)."""
_ATTRIBUTE = b"\x4a"
"""Tag of a span's attributes."""
_PLACE = b"\0" + secrets.token_bytes(16)
"""Placeholder of a fragment."""
