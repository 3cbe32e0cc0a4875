"""Cache the tags of a span in Jaeger's JSON by their text: a whole list, or else each tag."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import orjson

from otelwp_agent.codecs.jaeger import tags as tagging
from otelwp_agent.codecs.jaeger.receiving import ATTRIBUTE, SERVER, SPECIAL_KEYS
from otelwp_agent.codecs.key_value import text_attribute
from otelwp_agent.codecs.recurring import MAX_ENTRIES, Seen

if TYPE_CHECKING:
    from otelwp_agent.codecs.jaeger.receiving import Specials
    from otelwp_agent.codecs.jaeger.tags import OnRepair

MAX_LISTS, MAX_LIST = 1024, 1024
"""Maximum number of cached lists, and maximum length of each in bytes: two megabytes with their results."""

MAX_TAG = 192
"""Maximum length of a cached tag in bytes."""

PLAIN = rb"[ !#-\[\]-~]"
"""Text without escapes: printable ASCII without quotation marks and backslashes."""

_plain_tag = re.compile(rb'"(%b+)",(?:"type":"(string)",)?"value":"(%b*)"' % (PLAIN, PLAIN)).fullmatch
_SPECIAL = frozenset(key.encode() for key in SPECIAL_KEYS)
_BEGIN, _BETWEEN = b'{"key":', b'},{"key":'


class TagList(NamedTuple):
    """The result for the tags of a span."""

    fields: bytes
    """Fields of the span."""
    has_kind: bool
    """Whether one of the tags contains the kind."""
    untyped: bool
    """Whether one of the tags has no type."""
    specials: Specials
    """Tags that become other fields."""


class _Untyped(bytes):
    """The field of a tag without a type."""

    __slots__ = ()


class TagLists:
    """A cache of tags and lists of tags. Only those that are repeated are cached."""

    __slots__ = ("_seen", "_tags", "known")

    def __init__(self) -> None:
        """Start empty."""
        self.known: dict[bytes, TagList] = {}
        """Lists by their text, without the brackets."""
        self._tags: dict[bytes, bytes] = {}
        """Fields by the text of a tag, without the text in `_BETWEEN`."""
        self._seen = Seen()

    def read(self, text: bytes, repaired: OnRepair) -> TagList:
        """Return the result for a list whose `text` has no brackets; raise `ValueError` if it is not JSON."""
        found = self._joined(text)
        if found is None:
            repairs: list[str] = []
            found = _parsed(text, repairs)
            for kind in repairs:
                repaired(kind)
            if repairs:
                return found
        if len(text) <= MAX_LIST and self._seen.again(text):
            if len(self.known) >= MAX_LISTS:
                self.known.clear()
            self.known[text] = found
        return found

    def _joined(self, text: bytes) -> TagList | None:
        """Build a list from its tags; `None` if one of them becomes more than a field."""
        if not text.startswith(_BEGIN) or not text.endswith(b"}"):
            return None
        pieces = text[len(_BEGIN) : -1].split(_BETWEEN)
        known = self._tags.get
        fields: list[bytes] = []
        for piece in pieces:
            field = known(piece) or self._tag(piece)
            if field is None:
                return None
            fields.append(field)
        return TagList(b"".join(fields), len(min(fields, key=len)) == len(SERVER), _Untyped in map(type, fields), {})

    def _tag(self, piece: bytes) -> bytes | None:
        """Read an unknown tag."""
        found = _plain_tag(piece)
        if found is not None and (key := found[1]) not in _SPECIAL:
            field, untyped = ATTRIBUTE + text_attribute(key, found[3]), found[2] is None
        else:
            tag = orjson.loads(b"%b%b}" % (_BEGIN, piece))
            always = tagging.always(tag)
            if always is None:
                return None
            field, untyped = always, tag.get("type") is None
        if untyped:
            field = _Untyped(field)
        if len(piece) <= MAX_TAG and self._seen.again(piece):
            if len(self._tags) >= MAX_ENTRIES:
                self._tags.clear()
            self._tags[piece] = field
        return field


def _parsed(text: bytes, repairs: list[str]) -> TagList:
    tags = orjson.loads(b"[%b]" % text)
    fields, specials = tagging.decode(tags, repairs.append)
    untyped = "tag_without_type" in repairs
    if untyped:
        repairs.remove("tag_without_type")
    return TagList(fields, tagging.has_kind(tags), untyped, specials)
