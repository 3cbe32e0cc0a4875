"""What decisions want to know of a trace, read from its root span and its resource."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.attributes import as_string, decode
from otelwp_agent.model.projections import parse
from otelwp_agent.model.sampling import TraceState, randomness_of
from otelwp_agent.model.site import UNKNOWN, site_of
from otelwp_agent.processors.adaptive_sampling.config import SPAN_NAME

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from otelwp_agent.model.batch import Origin
    from otelwp_agent.processors.adaptive_sampling.config import AlwaysKeep, Drop, Sites

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
_ONE_BYTE = 0x80
"""Lengths below this take one byte."""


class Facts(NamedTuple):
    """What a trace's root and resource say."""

    key: tuple[str, ...]
    site: str
    release: str
    debug: bool
    duration: float
    """Seconds; below 0 if the clock was put back."""
    dropped_by: tuple[str, bool] | None
    """The rule that drops the trace, and whether even with an error."""


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
    missing: int
    """How many of the values wanted it does not tell."""
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
        self._slots = {name.encode(): slot for name, slot in slots.items()}
        self._none: tuple[str | None, ...] = (None,) * len(slots)
        self._debug = frozenset(name.encode() for name in keep.debug.attributes) if keep.debug.enabled else frozenset()
        self._release = keep.releases.attribute.encode() if keep.releases.enabled else b""
        self._rules = _rules(drop, slots)
        self._first_match = lru_cache(4096)(self._match)
        self._resources: dict[bytes, _Resource] = {}

    def read(self, root: pb.RootSpan | None, resource: bytes, origin: Origin) -> Facts:
        """Read what a root span (`None`: it has not come) and its resource say."""
        known = self._resources.get(resource) or self._read_resource(resource)
        values: Sequence[str | None] = known.values
        debug = False
        duration = 0.0
        if root is not None:
            duration = (root.end_time_unix_nano - root.start_time_unix_nano) * 1e-9
            if known.missing or self._debug:
                values = filled = list(values)
                debug = self._read_attributes(root.attributes[:], filled)
                if self._name >= 0:
                    filled[self._name] = root.name.decode(errors="replace")
        site = ""
        if self._site >= 0:
            site = values[self._site] or _site(origin)
        key = tuple([(values[slot] or "")[:_LONGEST] for slot in self._key])
        dropped_by = self._first_match(tuple(values)) if self._rules else None
        return Facts(key, site, known.release, debug, duration, dropped_by)

    def _read_attributes(self, attributes: Sequence[bytes], values: list[str | None]) -> bool:
        """Fill in values that are still missing; return whether a debug flag is set."""
        slots, flags = self._slots, self._debug
        debug = False
        for data in attributes:
            if len(data) < 2 or data[0] != 0x0A or data[1] >= _ONE_BYTE:  # noqa: PLR2004 - a tag and a length
                name = parse(pb.KeyValue.FromString, data).key
                behind = 0
            else:
                behind = 2 + data[1]
                name = data[2:behind]
            if name in slots:
                slot = slots[name]
                if values[slot] is None:
                    values[slot] = _text(data, behind)
            elif name in flags and _text(data, behind) not in _UNSET:
                debug = True
        return debug

    def _read_resource(self, data: bytes) -> _Resource:
        values = list(self._none)
        attributes = parse(pb.Resource.FromString, data).attributes
        told = {attribute.key: as_string(decode(attribute.value)) for attribute in reversed(attributes)}
        for name, slot in self._slots.items():
            values[slot] = told.get(name)
        version = told.get(self._release, "")
        release = f"{told.get(b'service.name', '')} {version}".strip()[:_LONGEST] if version else ""
        known = _Resource(tuple(values), values.count(None), release)
        if len(data) <= _MAX_RESOURCE:
            if len(self._resources) >= _RESOURCES:
                self._resources.clear()
            self._resources[data] = known
        return known

    def _match(self, values: tuple[str | None, ...]) -> tuple[str, bool] | None:
        for rule in self._rules:
            found = [
                (value := values[slot]) is not None and pattern.match(value) is not None
                for slot, pattern in rule.tests
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


def _site(origin: Origin) -> str:
    site = site_of(origin.headers.get("user-agent", ""))
    return "" if site == UNKNOWN else site


def _text(data: bytes, behind: int) -> str:
    """Return the value of a serialized KeyValue as text; `behind` its key (0: look for it)."""
    size = len(data) - behind
    if behind and 4 <= size < _ONE_BYTE and data[behind] == 0x12 and data[behind + 1] == size - 2:  # noqa: PLR2004
        if data[behind + 2] == 0x0A and data[behind + 3] == size - 4:
            return data[behind + 4 :].decode(errors="replace")
    return as_string(decode(parse(pb.KeyValue.FromString, data).value))


def _rules(drop: Drop, slots: dict[str, int]) -> list[_Rule]:
    rules = []
    if drop.health_checks:
        tests = [*((name, _whole(HEALTH_PATH)) for name in _PATHS), *((name, _within(HEALTH_AGENT)) for name in _AGENTS)]
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
