"""Share a budget among keys: small demands are met completely, large ones share the rest, without remainder."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def share(demands: Sequence[float], budget: float, power: float = 0.25, cap: float = math.inf) -> list[float]:
    """Return the share of `budget` for each of `demands`: `min(demand, cap, level · demand ** power)`.

    `level` is chosen so that the whole budget is used if the demands exceed it (water-filling). With `power` 0 all
    reduced demands get the same amount, with 1 the same fraction. Demands must not be negative.
    """
    wanted = list(demands) if cap == math.inf else [min(demand, cap) for demand in demands]
    if math.fsum(wanted) <= budget:
        return wanted
    parts = [demand**power if demand else 0.0 for demand in demands]
    # A demand is met once the level reaches wanted / part. Those with the lowest quotient are met first, and the rest
    # shares what is left. Without a cap this is the order of the demands.
    keys = (
        wanted if cap == math.inf else [want / part if part else 0.0 for want, part in zip(wanted, parts, strict=True)]
    )
    order = sorted(range(len(wanted)), key=keys.__getitem__)
    left = max(budget, 0.0)
    shares = math.fsum(parts)
    given = [0.0] * len(wanted)
    for position, index in enumerate(order):
        part = parts[index]
        if not part:
            continue
        level = left / shares if shares > 0 else 0.0
        if wanted[index] > level * part:
            for other in order[position:]:
                given[other] = level * parts[other]
            break
        given[index] = wanted[index]
        left = max(left - wanted[index], 0.0)
        shares -= part
    return given
