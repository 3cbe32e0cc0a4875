"""Whether the check in steps gives the verdict of the check in one call, and whether C and Python cut alike."""

from __future__ import annotations

from typing import Any

from otelwp_agent.errors import MalformedError, TooLargeError
from otelwp_agent.model import checking, cutting
from otelwp_agent.model.checking import DEFAULT_MAX_ITEMS, checker
from otelwp_agent.model.messages import request_class
from otelwp_agent.model.signal import Signal
from otelwp_agent.model.stepwise_checking import StepwiseChecker

TARGETS = (1, 16, 100)
"""Bytes of a piece: so small that small requests are cut everywhere."""


def in_steps(steps: Any) -> int:
    """Run all steps of a check and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def verdict(check: Any, body: bytes) -> int | type[Exception]:
    """Return the number of items, or the type of the error."""
    try:
        return check(body)
    except (MalformedError, TooLargeError) as error:
        return type(error)


def same_verdict(signal: Signal, body: bytes, max_items: int = DEFAULT_MAX_ITEMS) -> int | type[Exception]:
    """Assert that a body is judged alike in steps and in one call; return the verdict of full validation."""
    expected = verdict(checker(signal, max_items, full=True), body)
    for target in TARGETS:
        stepwise = StepwiseChecker(signal, max_items, full=True, piece=target)
        assert verdict(lambda body, steps=stepwise.steps: in_steps(steps(body)), body) == expected, (signal, target)
    keys = StepwiseChecker(signal, max_items)
    assert verdict(lambda body: in_steps(keys.steps(body)), body) == verdict(checker(signal, max_items), body)
    return expected


def same_cuts(body: bytes, native: Any) -> None:
    """Assert that C and Python cut `body` alike as a request of each signal."""
    for signal in Signal:
        schema = checking.schema(request_class(signal))
        for target in TARGETS:
            assert native.cut(body, schema, target) == cutting.cut(body, schema, target)
