"""Compute head sampling rates: the part of their traces that senders need to send when a sampler after them drops most.

A sender that drops traces at random saves itself and the network traces that the agent would drop anyway. It must send
more than the sampler's probability: errors and slow traces can only be kept if they arrive. So the rate of a service is

    min(1, max(min_rate, headroom · p))

where p is the highest probability among the keys of the service. A service with a rare key, which is kept completely,
must send everything. Where the sampler's keys contain operations (`span.name`), each operation has a rate of its own.

If senders write their threshold (`ot=th`), p refers to all traces, including those that the sender dropped. Otherwise
the sampler sees only what is sent and p refers to that, so the new rate is the old rate times headroom · p. This is
right only once senders follow the old rate. Hence a rate changes only when it is requested, and at most every `settle`
seconds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from otelwp_agent.sampling.consistent import probability_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.sampling.adaptive.controller import Controller

SERVICE, OPERATION = "service.name", "span.name"
"""Key attributes that senders can use."""
MOST = 10_000
"""Maximum number of remembered rates, of services and operations."""
MOST_OPERATIONS = 1_000
"""Maximum number of operations of one service in an answer; the others get the rate of a new operation."""

FRESH = 5.0
"""Seconds for which the needs of samplers are cached. Computing them takes some 20 ms for 10 000 keys."""

Id = tuple[str, str | None]
"""A service and one of its operations; `None` stands for all operations."""


class Rates(NamedTuple):
    """The rates for one service."""

    rate: float
    operations: dict[str, float] | None
    """Rates by span name, `None` without rates of operations. `rate` is for all other names."""


class _Need:
    """The probability that samplers use for a service or operation, and its traffic."""

    __slots__ = ("adjusted", "probability", "weight")

    def __init__(self) -> None:
        self.probability = 0.0
        self.weight = 0.0
        self.adjusted = 0.0

    def add(self, probability: float, weight: float, adjusted: float) -> None:
        self.probability = max(self.probability, probability)
        self.weight += weight
        self.adjusted += adjusted


class _Service(_Need):
    """The needs of a service and of its operations."""

    __slots__ = ("operations",)

    def __init__(self) -> None:
        super().__init__()
        self.operations: dict[str, _Need] = {}


class HeadRates:
    """Computes rates and remembers those it returned."""

    def __init__(self, min_rate: float, headroom: float, settle: float) -> None:
        """Set the limits: `min_rate` is the lowest rate to return, `headroom` at least 1, `settle` in seconds."""
        self._min_rate = min_rate
        self._headroom = headroom
        self._settle = settle
        self._rates: dict[Id, tuple[float, float]] = {}
        """By id: the rate, and when it was set."""
        self._tables: list[tuple[Controller, float, dict[str, _Service]]] = []

    def rates(self, service: str, samplers: Sequence[tuple[Controller, Sequence[str]]], now: float) -> Rates:
        """Return the rates for a service. `samplers` are controllers, each with the attribute names of its keys."""
        new = max([probability_of(controller.key_states.new_threshold) for controller, _ in samplers], default=1.0)
        found = [
            table.get(service if SERVICE in per else "")
            for table, (_, per) in zip(self._read(samplers, now), samplers, strict=True)
        ]
        known = [each for each in found if each is not None]
        if samplers and all(SERVICE in per and OPERATION in per for _, per in samplers):
            names = {name for each in known for name in each.operations}
            needs = {
                name: _joined([each.operations[name] for each in known if name in each.operations]) for name in names
            }
            heaviest = sorted(needs.items(), key=lambda entry: (-entry[1].adjusted, entry[0]))[:MOST_OPERATIONS]
            operations = {name: self._rate_of((service, name), need, now) for name, need in heaviest}
            return Rates(self._bounded(new), operations)
        if not known:
            return Rates(self._bounded(new), None)  # not remembered: anyone could invent names of services
        need = _joined(known)
        if len(known) < len(found):
            # A sampler that has not seen the service should get the traffic that a new key needs.
            need.probability = max(need.probability, new)
        return Rates(self._rate_of((service, None), need, now), None)

    def _rate_of(self, id_: Id, need: _Need, now: float) -> float:
        """Return the rate for `id_`, and remember it."""
        rate, since = self._rates.get(id_, (1.0, -math.inf))
        writes_threshold = need.adjusted >= need.weight / math.sqrt(rate)
        if rate >= 1 or (writes_threshold and need.weight):
            wanted = self._bounded(need.probability)
        elif now - since < self._settle:
            return rate
        else:
            wanted = self._bounded(rate * need.probability)
        if wanted != rate:
            if id_ not in self._rates and len(self._rates) >= MOST:
                del self._rates[next(iter(self._rates))]
            self._rates[id_] = wanted, now
        return wanted

    def _bounded(self, probability: float) -> float:
        return min(1.0, max(self._min_rate, self._headroom * probability))

    def _read(self, samplers: Sequence[tuple[Controller, Sequence[str]]], now: float) -> list[dict[str, _Service]]:
        """Return the needs of each sampler, by service."""
        known = {id(controller): (since, table) for controller, since, table in self._tables}
        self._tables = []
        for controller, per in samplers:
            since, table = known.get(id(controller), (-math.inf, {}))
            if now - since >= FRESH:
                since, table = now, _table(controller, per)
            self._tables.append((controller, since, table))
        return [table for _, _, table in self._tables]


def _table(controller: Controller, per: Sequence[str]) -> dict[str, _Service]:
    """Return the needs of all services; "" is the service where keys contain none."""
    service_at = list(per).index(SERVICE) if SERVICE in per else -1
    operation_at = list(per).index(OPERATION) if OPERATION in per else -1
    table: dict[str, _Service] = {}
    for key, state in controller.key_states.states.items():
        name = key[service_at] if service_at >= 0 else ""
        service = table.get(name)
        if service is None:
            service = table[name] = _Service()
        probability = probability_of(state.threshold)
        service.add(probability, state.weight_rate, state.adjusted_rate)
        if operation_at >= 0:
            operation = service.operations.get(key[operation_at])
            if operation is None:
                operation = service.operations[key[operation_at]] = _Need()
            operation.add(probability, state.weight_rate, state.adjusted_rate)
    return table


def _joined(needs: Sequence[_Need]) -> _Need:
    """Return the needs that satisfy all samplers."""
    joined = _Need()
    for need in needs:
        joined.add(need.probability, need.weight, need.adjusted)
    return joined
