"""Share a budget among keys: rare ones whole, heavy ones what is left, exactly."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def share(demands: Sequence[float], budget: float, power: float = 0.25, cap: float = math.inf) -> list[float]:
    """Return what each of `demands` gets of `budget`: `min(demand, cap, level · demand ** power)`.

    The level is the one at which nothing is left over, if there is not enough for all: water-filling. `power` 0 gives
    all that are cut the same, 1 the same part of what they ask. No demand is negative.
    """
    wanted = list(demands) if cap == math.inf else [min(demand, cap) for demand in demands]
    if math.fsum(wanted) <= budget:
        return wanted
    parts = [demand**power if demand else 0.0 for demand in demands]
    # A key is whole once the level reaches wanted / part: those with the lowest first, until the rest has to share.
    # Without a cap that is the order of what they want.
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
