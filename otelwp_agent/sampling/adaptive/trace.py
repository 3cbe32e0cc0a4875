"""What a sampling decision reads of a trace, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

Key = tuple[str, ...]
"""The values of the attributes that `per` names, in its order."""

OTHER: Key = ("other",)
"""The key of all traces whose own is not told apart, because there are too many."""


class Reason(StrEnum):
    """Why a trace was kept or dropped. Its text is what `sampling.reason` and metrics' labels say."""

    BUDGET = "budget"
    """Chance, with the probability that the budget leaves the trace's key."""
    SITE_RULE = "site_rule"
    """Chance, with the probability that a rule sets for the trace's site."""
    SITE_MINIMUM = "site_minimum"
    """Chance, with the probability that gives the site its minimum."""
    INCOMING = "incoming"
    """Chance, as a sampler before this one decided: its threshold is higher than ours."""
    GUARD = "guard"
    """Dropped, because the last minute's budget is spent; in no proportion to anything."""
    DEBUG = "debug"
    ERROR = "error"
    SLOW = "slow"
    FIRST_SEEN = "first_seen"
    """Among the first of its key."""
    RELEASE = "release"
    """Among the first of its release."""

    __hash__ = str.__hash__  # an enumeration's own is written in Python, and each trace needs it


@dataclass(slots=True)
class Trace:
    """One trace, or the part of it that is there when somebody must decide."""

    randomness: int
    """R, 56 bits: from the trace id, or `ot=rv`."""
    threshold: int = 0
    """Of samplers before this one (`ot=th`); 0 if there were none. Never above `randomness`."""
    key: Key = ()
    site: str = ""
    """For the rules by site; "" if it has none."""
    spans: int = 1
    bytes: int = 0
    duration: float = 0.0
    """Of the root span, or from the first start to the last end, in seconds."""
    error: bool = False
    debug: bool = False
    """Somebody asked for this very trace."""
    release: str = ""
    """Service and version, in one text; "" if it does not say."""


@dataclass(slots=True)
class Decision:
    """What becomes of a trace."""

    keep: bool
    threshold: int | None
    """T to write on what is kept, at least the trace's own. `None`: not kept by chance, so erase `th` and write
    `reason` as `sampling.reason`. Of what is dropped: the threshold that it did not reach."""
    reason: str
    """A `Reason`."""
