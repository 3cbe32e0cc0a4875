"""The input and the result of a sampling decision."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

Key = tuple[str, ...]
"""Values of the attributes in `per`, in that order."""

OTHER: Key = ("other",)
"""The key of all traces whose own key is not tracked, because there are too many keys."""


class Reason(StrEnum):
    """Why a trace was kept or dropped; the value of `sampling.reason` and of metric labels."""

    BUDGET = "budget"
    """Probability: the one that the budget gives the trace's key."""
    SITE_RULE = "site_rule"
    """Probability: the one that a rule sets for the trace's site."""
    SITE_MINIMUM = "site_minimum"
    """Probability: the one that gives the site its minimum."""
    INCOMING = "incoming"
    """Probability: the one of a sampler before this one, whose threshold is higher."""
    GUARD = "guard"
    """Dropped because the budget of the last minute was spent. Such drops are not in proportion to the traffic."""
    DEBUG = "debug"
    ERROR = "error"
    SLOW = "slow"
    FIRST_SEEN = "first_seen"
    """Among the first traces of its key."""
    RELEASE = "release"
    """Among the first traces of its release."""

    __hash__ = str.__hash__  # the enumeration's own is written in Python, and each trace needs it


@dataclass(slots=True)
class Trace:
    """One trace, or the part of it that has arrived when the decision is due."""

    randomness: int
    """R, 56 bits: from the trace id, or `ot=rv`."""
    threshold: int = 0
    """Threshold of samplers before this one (`ot=th`), 0 if there were none. Never above `randomness`."""
    key: Key = ()
    site: str = ""
    """The site for rules by site; "" if none."""
    spans: int = 1
    bytes: int = 0
    duration: float = 0.0
    """Seconds: of the root span, or from the earliest start to the latest end."""
    error: bool = False
    debug: bool = False
    """Whether this trace was requested explicitly."""
    release: str = ""
    """Service and version in one text; "" if unknown."""


@dataclass(slots=True)
class Decision:
    """The decision about a trace."""

    keep: bool
    threshold: int | None
    """For a kept trace: the T to write, at least the trace's own; `None` if it was not kept by probability, so that
    `th` is removed and `reason` is written as `sampling.reason`. For a dropped trace: the threshold that it did not
    reach."""
    reason: str
    """A `Reason`."""
