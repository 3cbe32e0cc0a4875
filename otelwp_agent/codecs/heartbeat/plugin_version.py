"""Compare versions of plugins by the precedence of Semantic Versioning, with one to four numbers.

The library `semver` refuses versions such as `6.4`, which WordPress and many plugins have.
"""

from __future__ import annotations

import re

PATTERN = r"^[0-9]{1,6}(\.[0-9]{1,6}){0,3}(-[0-9A-Za-z.-]{1,32})?(\+[0-9A-Za-z.-]{1,32})?$"
"""Pattern of a version: `1.3.5`, `6.4`, `2.0.0-beta.1`, `1.0.0+build.5`."""
LONGEST = 64
"""Most characters of a version."""

_VERSION = re.compile(PATTERN.strip("^$"))
_NUMBERS = 4

Precedence = tuple[tuple[int, ...], int, tuple[tuple[int, int, str], ...]]
"""A sortable form: the numbers; 0 for a pre-release or 1; the identifiers of the pre-release."""


def is_version(text: str) -> bool:
    """Return whether a text is a version that can be compared."""
    return len(text) <= LONGEST and _VERSION.fullmatch(text) is not None


def precedence(version: str) -> Precedence:
    """Return the sortable form of a valid version; the build (`+…`) does not count."""
    numbers, _, identifiers = version.partition("+")[0].partition("-")
    parts = [int(part) for part in numbers.split(".")]
    parts += [0] * (_NUMBERS - len(parts))
    if not identifiers:
        return tuple(parts), 1, ()
    # Numeric identifiers are lower than others (Semantic Versioning 2.0.0, 11.4).
    keys = tuple((0, int(each), "") if each.isdecimal() else (1, 0, each) for each in identifiers.split("."))
    return tuple(parts), 0, keys


def is_older(version: str, other: str) -> bool:
    """Return whether `version` comes before `other`."""
    return precedence(version) < precedence(other)


def change(before: str, after: str) -> str:
    """Return the largest part of the version that differs: `major`, `minor` or `patch`."""
    (old, _, _), (new, _, _) = precedence(before), precedence(after)
    if old[0] != new[0]:
        return "major"
    return "minor" if old[1] != new[1] else "patch"
