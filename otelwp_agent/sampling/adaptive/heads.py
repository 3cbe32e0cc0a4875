"""How many of their traces senders need to send, when a sampler behind them keeps only some.

A sender that leaves out traces at random spares itself and the network what would be dropped anyway. It must send more
than chance keeps: errors and slow traces are kept because they are seen. So the rate of a service is

    min(1, max(min_rate, headroom · p))

where p is the highest probability that the budget leaves any of its keys. A service with a rare key, which is kept
whole, is asked for everything; where the sampler's keys name operations (`span.name`), each has a rate of its own.

Senders that write their threshold (`ot=th`) are simple: p is of all traces, those that they left out among them. Of
others a sampler sees only what they send, and its p is of that: so their new rate is the old one times headroom · p.
That is right once they follow the old one, hence it is changed only when it has been asked for, and `settle` seconds
have gone by.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from otelwp_agent.sampling.consistent import probability_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.sampling.adaptive.controller import Controller

SERVICE, OPERATION = "service.name", "span.name"
"""What keys are made of, as far as senders know it."""
MOST = 10_000
"""Rates that are remembered, of services and operations."""
MOST_OPERATIONS = 1_000
"""Of one service that are told; the others get what is right for a new one."""

FRESH = 5.0
"""Seconds for which it is not looked again what samplers need: with 10 000 keys that takes some 20 ms."""

Id = tuple[str, str | None]
"""A service and an operation of it; `None`: all of them."""


class Rates(NamedTuple):
    """What a service is told."""

    rate: float
    operations: dict[str, float] | None
    """By span name; `None` where there are no such rates. `rate` is for those not named."""


class _Need:
    """What samplers need to see of something."""

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
    """What samplers need to see of a service, and of its operations."""

    __slots__ = ("operations",)

    def __init__(self) -> None:
        super().__init__()
        self.operations: dict[str, _Need] = {}


class HeadRates:
    """Works out rates, and remembers which it has told."""

    def __init__(self, min_rate: float, headroom: float, settle: float) -> None:
        """`min_rate` is the lowest to tell; `headroom` at least 1; `settle` in seconds."""
        self._min_rate = min_rate
        self._headroom = headroom
        self._settle = settle
        self._told: dict[Id, tuple[float, float]] = {}
        """Rates, and since when."""
        self._tables: list[tuple[Controller, float, dict[str, _Service]]] = []

    def rates(self, service: str, samplers: Sequence[tuple[Controller, Sequence[str]]], now: float) -> Rates:
        """Return what a service is to send to samplers, each with the names of what makes its keys."""
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
            operations = {name: self._tell((service, name), need, now) for name, need in heaviest}
            return Rates(self._bounded(new), operations)
        if not known:
            return Rates(self._bounded(new), None)  # nothing is remembered of names that anybody can make up
        need = _joined(known)
        if len(known) < len(found):
            # A sampler that knows nothing of it should see what a new key would get.
            need.probability = max(need.probability, new)
        return Rates(self._tell((service, None), need, now), None)

    def _tell(self, id_: Id, need: _Need, now: float) -> float:
        """Return the rate of something, and remember it."""
        rate, since = self._told.get(id_, (1.0, -math.inf))
        tells = need.adjusted >= need.weight / math.sqrt(rate)
        if rate >= 1 or (tells and need.weight):
            wanted = self._bounded(need.probability)
        elif now - since < self._settle:
            return rate
        else:
            wanted = self._bounded(rate * need.probability)
        if wanted != rate:
            if id_ not in self._told and len(self._told) >= MOST:
                del self._told[next(iter(self._told))]
            self._told[id_] = wanted, now
        return wanted

    def _bounded(self, probability: float) -> float:
        return min(1.0, max(self._min_rate, self._headroom * probability))

    def _read(self, samplers: Sequence[tuple[Controller, Sequence[str]]], now: float) -> list[dict[str, _Service]]:
        """Return what each sampler needs, by service."""
        known = {id(controller): (since, table) for controller, since, table in self._tables}
        self._tables = []
        for controller, per in samplers:
            since, table = known.get(id(controller), (-math.inf, {}))
            if now - since >= FRESH:
                since, table = now, _table(controller, per)
            self._tables.append((controller, since, table))
        return [table for _, _, table in self._tables]


def _table(controller: Controller, per: Sequence[str]) -> dict[str, _Service]:
    """Return the needs of all services; "" is the service where keys name none."""
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
    """Return what is enough for all samplers."""
    joined = _Need()
    for need in needs:
        joined.add(need.probability, need.weight, need.adjusted)
    return joined
