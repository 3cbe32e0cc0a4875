"""What decisions want to know of a trace, read from its root span and its resource."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.message import DecodeError

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.attributes import as_string, decode
from otelwp_agent.model.projections import parse
from otelwp_agent.model.sampling import TraceState, randomness_of
from otelwp_agent.model.site import UNKNOWN, site_of
from otelwp_agent.model.wire import prefixed
from otelwp_agent.processors.adaptive_sampling.config import SPAN_NAME

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from otelwp_agent.model.batch import Origin
    from otelwp_agent.processors.adaptive_sampling.config import AlwaysKeep, Drop, Sites

    Facts = tuple[tuple[str, ...], str, str, bool, float, tuple[str, bool] | None]
    """Key, site, release, debug flag, duration in seconds (below 0 if the clock was put back), and the rule that drops
    the trace with whether it does so even if there is an error."""

_PATHS = ("url.path", "http.target", "http.route", "url.full", "http.url")
_AGENTS = ("user_agent.original", "http.user_agent")
HEALTH_PATH = re.compile(
    r"(?:https?://[^/]*)?/(?:(?:api|actuator|_)?/?(?:health|healthz|health[-_]?check|livez|readyz|alive|ready|ping|up)"
    r"|wp-json/[^?]*/health|server-status|nginx_status|fpm-(?:ping|status))/?(?:\?.*)?"
)
HEALTH_AGENT = re.compile(
    r"kube-probe/|ELB-HealthChecker|GoogleHC/|Amazon-Route53-Health-Check|Consul Health Check|HAProxy|Envoy/HC"
    r"|UptimeRobot|Pingdom|StatusCake|Better ?Uptime|Site24x7|Uptime-Kuma|NodePing|updown\.io",
    re.IGNORECASE,
)
BOT_AGENT = re.compile(
    r"bot\b|bot/|crawl|spider|slurp|facebookexternalhit|mediapartners|feedfetcher|archiver|headlesschrome|scrapy"
    r"|python-requests|go-http-client|semrush|ahrefs",
    re.IGNORECASE,
)
_RESOURCES = 1024
"""Resources that are remembered with what they say."""
_MAX_RESOURCE = 8192
_LONGEST = 200
"""Characters of a value in a key; what is longer is cut, for keys are kept in memory."""
_UNSET = ("", "0", "false", "False")
_ATTRIBUTE = b"\x4a"
"""The tag of a span's `attributes` (9)."""
_STRING = 0x0A
"""The tag of an AnyValue's `string_value` (1)."""
_ONE_BYTE = 0x80
"""Lengths below this take one byte."""


_KEY = b"\x0a"
"""The tag of a KeyValue's `key` (1), which comes first."""
_BOUNDARY = b"\x00\x00"
"""Stands as an attribute behind those of each root; none of a sender's can be it, for it does not parse."""
_END = prefixed(_ATTRIBUTE, _BOUNDARY)
_FOUND, _LARGE = 4096, 4096
"""What roots said that is remembered, and the bytes of such a root and its resource."""


class Sampled(NamedTuple):
    """What trace states say of earlier sampling."""

    randomness: int
    threshold: int
    odd: str = ""
    """What is wrong with it: `invalid_trace_state`, or `inconsistent_threshold`, which nobody can have reached."""


class _Rule(NamedTuple):
    name: str
    tests: tuple[tuple[int, re.Pattern[str]], ...]
    every: bool
    """Whether all tests must match, or one."""
    errors: bool


class _Resource(NamedTuple):
    values: tuple[str | None, ...]
    missing: tuple[tuple[int, str], ...]
    """Which of the values wanted it does not tell, by place and name."""
    key: tuple[str, ...]
    """The key as far as it tells."""
    release: str


class FactsReader:
    """Reads facts; knows which attributes are wanted."""

    def __init__(self, per: Sequence[str], keep: AlwaysKeep, drop: Drop, sites: Sites | None) -> None:
        """Want what keys, sites, rules and flags need."""
        wanted = dict.fromkeys(per)
        if sites is not None:
            wanted[sites.attribute] = None
        if drop.health_checks:
            wanted.update(dict.fromkeys((*_PATHS, *_AGENTS)))
        if drop.bots:
            wanted.update(dict.fromkeys(_AGENTS))
        for rule in drop.rules:
            wanted.update(dict.fromkeys(rule.attributes))
        slots = {name: slot for slot, name in enumerate(wanted)}
        self._key = tuple([slots[name] for name in per])
        self._site = slots[sites.attribute] if sites is not None else -1
        self._name = slots.get(SPAN_NAME, -1)
        self._slots = slots
        self._none: tuple[str | None, ...] = (None,) * len(slots)
        self._debug = tuple(keep.debug.attributes) if keep.debug.enabled else ()
        self._release = keep.releases.attribute.encode() if keep.releases.enabled else b""
        self._rules = _rules(drop, slots)
        self._first_match = lru_cache(4096)(self._match)
        self._key_alone = len(slots) == len(per) and self._name < 0 and self._site < 0 and not self._rules
        """Whether nothing but the key is wanted."""
        self._resources: dict[bytes, _Resource] = {}
        self._varied = self._name >= 0 or self._site >= 0
        """Whether facts depend on more than the attributes of root and resource."""
        marks = [prefixed(_KEY, name.encode()) for name in dict.fromkeys((*slots, *self._debug))]
        self._marks = (_BOUNDARY, *marks)
        """How attributes begin that are wanted."""
        self._lengths = {mark[1] for mark in self._marks}
        """Their second bytes: the lengths of keys."""
        self._varied |= any(length >= _ONE_BYTE for length in self._lengths)
        self._found: dict[object, Facts] = {}

    def read(self, root: bytes | None, resource: bytes, origin: Origin) -> Facts:
        """Read what a serialized root span (`None`: it has not come) and its resource say."""
        known = self._resources.get(resource) or self._read_resource(resource)
        debug = False
        duration = 0.0
        told: Mapping[str, bytes] = {}
        if root is not None:
            try:
                span = pb.RootFacts.FromString(root)
            except DecodeError:  # names that are no UTF-8
                span = _read_carefully(root)
            duration = (span.end_time_unix_nano - span.start_time_unix_nano) * 1e-9
            told = span.attributes
            for name in self._debug:
                if name in told and _text(told[name]) not in _UNSET:
                    debug = True
        if self._key_alone:
            key = known.key
            for place, name in known.missing:
                if name in told:
                    key = (*key[:place], _text(told[name])[:_LONGEST], *key[place + 1 :])
            return key, "", known.release, debug, duration, None
        values = self._read_values(root, told, known)
        site = ""
        if self._site >= 0:
            site = values[self._site] or _site(origin)
        key = tuple([(values[slot] or "")[:_LONGEST] for slot in self._key])
        dropped_by = self._first_match(tuple(values)) if self._rules else None
        return key, site, known.release, debug, duration, dropped_by

    def read_all(self, roots: Sequence[tuple[bytes | None, bytes, Origin]]) -> Sequence[Facts]:
        """Return what `read` would of each root span, its resource and its origin.

        They are read as one. What a root says is looked up by its attributes as they were sent, of those wanted.
        """
        times = None if self._varied or len(roots) == 1 else _read_times([root for root, _, _ in roots])
        if times is None:
            return [self.read(*each) for each in roots]
        starts, ends, attributes = times
        said = self._wanted(attributes, len(roots))
        each = None if said is None else _by_root(said, len(roots))
        if each is None:
            return [self.read(*root) for root in roots]
        found = self._found
        facts = []
        for (root, resource, origin), says, start, end in zip(roots, each, starts, ends, strict=True):
            known = found.get((resource, says))
            if known is None:
                known = self.read(root, resource, origin)
                if len(root or b"") + len(resource) <= _LARGE:
                    if len(found) >= _FOUND:
                        found.clear()
                    found[resource, says] = known
            key, site, release, debug, _, rule = known
            facts.append((key, site, release, debug, (end - start) * 1e-9, rule))
        return facts

    def _wanted(self, attributes: Sequence[bytes], boundaries: int) -> list[bytes] | None:
        """Return those that are wanted and the boundaries, in order; `None` if some are not written as usual."""
        lengths, marks = self._lengths, self._marks
        try:
            # Whose key does not come first, or has a length of two bytes, may be any.
            if bytes([attribute[0] for attribute in attributes]).count(_KEY) != len(attributes) - boundaries:
                return None
            likely = [attribute for attribute in attributes if attribute[1] in lengths]
        except IndexError:  # one is empty
            return None
        return [attribute for attribute in likely if attribute.startswith(marks)]

    def _read_values(self, root: bytes | None, told: Mapping[str, bytes], known: _Resource) -> Sequence[str | None]:
        """Return all values wanted."""
        if root is None or not known.missing:
            return known.values
        values = list(known.values)
        for slot, name in known.missing:
            if name in told:
                values[slot] = _text(told[name])
        if self._name >= 0:
            values[self._name] = parse(pb.RootSpan.FromString, root).name.decode(errors="replace")
        return values

    def _read_resource(self, data: bytes) -> _Resource:
        values = list(self._none)
        try:
            attributes = pb.Resource.FromString(data).attributes
        except DecodeError:  # decided about like one that says nothing: whose fault it is, others find out
            attributes = pb.Resource().attributes
        told = {attribute.key: as_string(decode(attribute.value)) for attribute in reversed(attributes)}
        for name, slot in self._slots.items():
            values[slot] = told.get(name.encode())
        version = told.get(self._release, "")
        release = f"{told.get(b'service.name', '')} {version}".strip()[:_LONGEST] if version else ""
        missing = [(slot, name) for name, slot in self._slots.items() if values[slot] is None]
        key = tuple([(values[slot] or "")[:_LONGEST] for slot in self._key])
        known = _Resource(tuple(values), tuple(missing), key, release)
        if len(data) <= _MAX_RESOURCE:
            if len(self._resources) >= _RESOURCES:
                self._resources.clear()
            self._resources[data] = known
        return known

    def _match(self, values: tuple[str | None, ...]) -> tuple[str, bool] | None:
        for rule in self._rules:
            found = [
                (value := values[slot]) is not None and pattern.match(value) is not None for slot, pattern in rule.tests
            ]
            if all(found) if rule.every else any(found):
                return rule.name, rule.errors
        return None


def sampled_before(trace_id: bytes, states: Collection[bytes]) -> Sampled:
    """Return what is known of a trace's earlier sampling; trace states of its spans are mostly the same one."""
    own = randomness_of(trace_id)
    assert own is not None  # noqa: S101 - others are not decided about
    if not states:
        return Sampled(own, 0)
    parsed = [_parse_state(state) for state in states]
    told = [state.randomness for state in parsed if state.randomness is not None]
    randomness = max(told) if told else own
    arrived = [state.threshold for state in parsed if state.threshold is not None]
    honest = [threshold for threshold in arrived if threshold <= randomness]
    odd = ""
    if len(honest) < len(arrived):
        odd = "inconsistent_threshold"
    elif not all(state.valid for state in parsed):
        odd = "invalid_trace_state"
    return Sampled(randomness, max(honest, default=0), odd)


@lru_cache(1024)
def _parse_state(state: bytes) -> TraceState:
    return TraceState.parse(state.decode(errors="surrogateescape"))


def _read_times(roots: Sequence[bytes | None]) -> tuple[Sequence[int], Sequence[int], Sequence[bytes]] | None:
    """Return when spans begin and end, and their attributes with boundaries; `None` if they do not look alike."""
    try:
        columns = pb.RootColumns.FromString(_END.join([*roots, b""]))  # type: ignore[list-item] # see below
    except (DecodeError, TypeError):  # one does not parse, or has not come
        return None
    starts, ends = columns.start_times[:], columns.end_times[:]
    if len(starts) != len(roots) or len(ends) != len(roots):
        return None
    return starts, ends, columns.attributes[:]


def _by_root(said: Sequence[bytes], roots: int) -> Sequence[object] | None:
    """Cut attributes where boundaries stand; `None` if there are others than ours."""
    if said[1::2] == [_BOUNDARY] * roots and said.count(_BOUNDARY) == roots:  # one of each, as it mostly is
        return said[::2]
    groups: list[object] = []
    group: list[bytes] = []
    for attribute in said:
        if attribute == _BOUNDARY:
            groups.append(tuple(group))
            group = []
        else:
            group.append(attribute)
    return groups if len(groups) == roots else None


def _site(origin: Origin) -> str:
    site = site_of(origin.headers.get("user-agent", ""))
    return "" if site == UNKNOWN else site


def _text(value: bytes) -> str:
    """Return a serialized AnyValue as text."""
    size = len(value) - 2
    if 0 <= size < _ONE_BYTE and value[0] == _STRING and value[1] == size:
        return value[2:].decode(errors="replace")
    return as_string(decode(value))


def _read_carefully(root: bytes) -> pb.RootFacts:
    """Read a root span whose attributes have names that are no text, which are left out, or do not parse at all."""
    times = parse(pb.RootSpan.FromString, root)
    facts = pb.RootFacts(start_time_unix_nano=times.start_time_unix_nano, end_time_unix_nano=times.end_time_unix_nano)
    with suppress(DecodeError):
        for attribute in pb.SpanAttributes.FromString(root).attributes:
            with suppress(UnicodeDecodeError):
                facts.attributes[attribute.key.decode()] = attribute.value
    return facts


def _rules(drop: Drop, slots: dict[str, int]) -> list[_Rule]:
    rules = []
    if drop.health_checks:
        tests = [(name, _whole(HEALTH_PATH)) for name in _PATHS] + [(name, _within(HEALTH_AGENT)) for name in _AGENTS]
        rules.append(_Rule("health_check", _tests(tests, slots), every=False, errors=False))
    if drop.bots:
        tests = [(name, _within(BOT_AGENT)) for name in _AGENTS]
        rules.append(_Rule("bot", _tests(tests, slots), every=False, errors=False))
    rules += [
        _Rule(rule.name, _tests(rule.compiled().items(), slots), every=True, errors=rule.errors) for rule in drop.rules
    ]
    return rules


def _tests(
    tests: Iterable[tuple[str, re.Pattern[str]]], slots: dict[str, int]
) -> tuple[tuple[int, re.Pattern[str]], ...]:
    return tuple([(slots[name], pattern) for name, pattern in tests])


def _whole(pattern: re.Pattern[str]) -> re.Pattern[str]:
    return re.compile(rf"(?:{pattern.pattern})\Z", pattern.flags)


def _within(pattern: re.Pattern[str]) -> re.Pattern[str]:
    return re.compile(rf"(?s:.*?)(?:{pattern.pattern})", pattern.flags)
