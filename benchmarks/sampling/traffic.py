"""Seeded traffic of a shop: routes with a Zipf distribution, bursts of twentyfold traffic, an incident, a release."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from otelwp_agent.sampling.adaptive.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUTES = 300
NEW_ROUTES = 20
"""Number of routes that the new release adds."""
ZIPF = 1.1
RATE = 100.0
"""Traces per second of normal traffic."""
BURST = 20
SECONDS = 720
ROUTE_BURST = (120, 150)
"""Start and end of the burst of one route, which has medium traffic and was kept nearly completely before."""
BURST_ROUTE = 12
ALL_BURST = (240, 255)
"""Start and end of the burst of all routes."""
INCIDENT = (360, 480)
INCIDENT_ERRORS = 0.3
ERRORS = 0.01
RELEASE = 570
RARE = 0.05
"""Traces per second below which a route is rare: three per minute."""


@dataclass(frozen=True, slots=True)
class Route:
    """Properties of a route and its traces."""

    name: str
    weight: float
    """Share of the traffic."""
    spans: float
    median: float
    """Seconds."""


def routes(seed: int = 1) -> list[Route]:
    """Return all routes, with those of the new release last."""
    dice = random.Random(seed)
    weights = [1 / rank**ZIPF for rank in range(1, ROUTES + 1)]
    weights += [weights[ROUTES // 4]] * NEW_ROUTES
    scale = sum(weights[:ROUTES])
    return [
        Route(f"/{index}", weight / scale, dice.uniform(5, 45), math.exp(dice.uniform(-3.5, 0)))
        for index, weight in enumerate(weights)
    ]


def traffic(seed: int = 1) -> Iterator[tuple[float, Trace]]:
    """Yield (time, trace) in order of time."""
    dice = random.Random(seed)
    known = routes(seed)
    old = list(accumulate(route.weight for route in known[:ROUTES]))
    new = list(accumulate(route.weight for route in known))
    now = 0.0
    while True:
        everything = BURST if _within(now, ALL_BURST) else 1
        one = known[BURST_ROUTE].weight * (BURST - 1) if _within(now, ROUTE_BURST) else 0.0
        released = now >= RELEASE
        part = (new if released else old)[-1]
        now += dice.expovariate(RATE * (part * everything + one))
        if now >= SECONDS:
            return
        if one and dice.random() < one / (one + part):
            route = known[BURST_ROUTE]
        else:
            (route,) = dice.choices(known[: len(new if released else old)], cum_weights=new if released else old)
        incident = _within(now, INCIDENT)
        error = dice.random() < (INCIDENT_ERRORS if incident else ERRORS)
        yield (
            now,
            Trace(
                randomness=dice.getrandbits(56),
                key=("shop", route.name),
                spans=max(1, round(route.spans * dice.uniform(0.7, 1.3))),
                duration=route.median * dice.lognormvariate(0, 0.5) * (3 if error else 1),
                error=error,
                release="shop@2" if released else "shop@1",
            ),
        )


def _within(now: float, period: tuple[int, int]) -> bool:
    return period[0] <= now < period[1]
