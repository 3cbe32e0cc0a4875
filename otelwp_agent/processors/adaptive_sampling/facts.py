"""Read the input of sampling decisions from a trace's root span and resource."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.message import DecodeError

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.attributes import as_string, decode
from otelwp_agent.model.site import UNKNOWN, site_of
from otelwp_agent.model.wire import prefixed
from otelwp_agent.processors.adaptive_sampling.config import SPAN_NAME
from otelwp_agent.sampling.consistent import TraceState, randomness_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from otelwp_agent.model.batch import Origin
    from otelwp_agent.processors.adaptive_sampling.config import AlwaysKeep, Drop, SiteRules

    Facts = tuple[tuple[str, ...], str, str, bool, tuple[str, bool] | None]
    """Key, site, release, debug flag, and the rule that drops the trace: its name, and whether it drops traces with
    errors."""

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
"""Number of resources whose facts are cached."""
_MAX_RESOURCE = 8192
_LONGEST = 200
"""Maximum characters of a value in a key. Longer values are cut, because keys are kept in memory."""
_UNSET = ("", "0", "false", "False")
_STRING = 0x0A
"""Tag of an AnyValue's `string_value` (1)."""
_ONE_BYTE = 0x80
"""Lengths below this take one byte."""
_KEY = b"\x0a"
"""Tag of a KeyValue's `key` (1)."""
_FOUND, _LARGE = 4096, 4096
"""Number of roots whose facts are cached, and the size in bytes from which a root is not cached."""


class Sampled(NamedTuple):
    """Earlier sampling according to trace states."""

    randomness: int
    threshold: int
    odd: str = ""
    """The problem, if any: `invalid_trace_state`, or `inconsistent_threshold`, which the trace should not have
    passed."""


class _Rule(NamedTuple):
    name: str
    tests: tuple[tuple[int, re.Pattern[str]], ...]
    every: bool
    """Whether all tests must match, or one."""
    errors: bool


class _Resource(NamedTuple):
    data: bytes
    """The serialized resource; one object for all users."""
    values: tuple[str | None, ...]
    missing: tuple[tuple[int, str], ...]
    """Requested values that the resource does not contain, by position and name."""
    release: str


class FactsReader:
    """Reads the facts of traces."""

    def __init__(self, per: Sequence[str], keep: AlwaysKeep, drop: Drop, sites: SiteRules | None) -> None:
        """Collect the attributes that keys, sites, rules and flags need."""
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
        self._resources: dict[bytes, _Resource] = {}
        self._found: dict[tuple[bytes, bytes, str], Facts] = {}
        self.marks = tuple([prefixed(_KEY, name.encode()) for name in dict.fromkeys((*slots, *self._debug))])
        """Serialized beginnings of the requested attributes of a root, for `traces.read`."""
        self.name = self._name >= 0
        """Whether the root's name is requested."""

    def read(self, resource: bytes, fields: bytes, origin: Origin) -> Facts:
        """Return the facts of a trace from its resource and its root's `fields` (see `traces.Piece`)."""
        known = self._resources.get(resource) or self._read_resource(resource)
        agent = "" if self._site < 0 else origin.headers.get("user-agent", "")
        key = (known.data, fields, agent)
        facts = self._found.get(key)
        if facts is None:
            facts = self._read(known, fields, agent)
            if len(resource) <= _MAX_RESOURCE and len(fields) + len(agent) <= _LARGE:
                if len(self._found) >= _FOUND:
                    self._found.clear()
                self._found[key] = facts
        return facts

    def _read(self, known: _Resource, fields: bytes, agent: str) -> Facts:
        try:
            root = pb.RootFacts.FromString(fields)
        except DecodeError:  # attribute keys that are not UTF-8
            root = _read_carefully(fields)
        attributes: Mapping[str, bytes] = root.attributes
        debug = any(name in attributes and _text(attributes[name]) not in _UNSET for name in self._debug)
        values = list(known.values)
        for slot, name in known.missing:
            if name in attributes:
                values[slot] = _text(attributes[name])
        if self._name >= 0 and fields:
            values[self._name] = root.name.decode(errors="replace")
        site = ""
        if self._site >= 0:
            site = values[self._site] or _site(agent)
        key = tuple([(values[slot] or "")[:_LONGEST] for slot in self._key])
        return key, site, known.release, debug, self._first_match(tuple(values)) if self._rules else None

    def _read_resource(self, data: bytes) -> _Resource:
        values = list(self._none)
        try:
            attributes = pb.Resource.FromString(data).attributes
        except DecodeError:  # treated like an empty one; later stages report the error
            attributes = pb.Resource().attributes
        texts = {attribute.key: as_string(decode(attribute.value)) for attribute in reversed(attributes)}
        for name, slot in self._slots.items():
            values[slot] = texts.get(name.encode())
        version = texts.get(self._release, "")
        release = f"{texts.get(b'service.name', '')} {version}".strip()[:_LONGEST] if version else ""
        missing = [(slot, name) for name, slot in self._slots.items() if values[slot] is None]
        known = _Resource(data, tuple(values), tuple(missing), release)
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
    """Return the earlier sampling of a trace. The trace states of its spans are usually equal."""
    own = randomness_of(trace_id)
    assert own is not None  # noqa: S101 - traces with an invalid id are not decided
    if not states:
        return Sampled(own, 0)
    parsed = [_parse_state(state) for state in states]
    explicit = [state.randomness for state in parsed if state.randomness is not None]
    randomness = max(explicit) if explicit else own
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


def _site(agent: str) -> str:
    site = site_of(agent)
    return "" if site == UNKNOWN else site


def _text(value: bytes) -> str:
    """Return a serialized AnyValue as text."""
    size = len(value) - 2
    if 0 <= size < _ONE_BYTE and value[0] == _STRING and value[1] == size:
        return value[2:].decode(errors="replace")
    return as_string(decode(value))


def _read_carefully(fields: bytes) -> pb.RootFacts:
    """Parse a root's fields that are invalid protobuf or have keys that are not UTF-8; skip those."""
    facts = pb.RootFacts()
    with suppress(DecodeError):
        span = pb.SpanAttributes.FromString(fields)
        facts.name = span.name
        for attribute in span.attributes:
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
