"""Classes of requests with a limit each. A request of an unknown class has the limit of the class `general`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.limiting.gcra import Rate

if TYPE_CHECKING:
    from collections.abc import Mapping

HOUR = 3600.0
GENERAL = "general"

FOUNDING: Mapping[str, Rate] = {
    GENERAL: Rate(100 / HOUR, 100),
    "auth": Rate(10 / HOUR, 10),
    "payment": Rate(50 / HOUR, 50),
}
"""The preset `founding`: requests per hour of each client, by class. The whole amount may be used at once."""

PRESETS: Mapping[str, Mapping[str, Rate]] = {"founding": FOUNDING}


def class_of(name: str, classes: Mapping[str, Rate]) -> str:
    """Return the class whose limit applies to a request of the class `name`: itself, or `general` if it is unknown."""
    return name if name in classes else GENERAL


def class_of_path(path: str, classes: Mapping[str, Rate]) -> str:
    """Return the class of a request to `path`: the first part of the path that names a class, else `general`."""
    return next((part for part in path.lower().split("/") if part in classes), GENERAL)
