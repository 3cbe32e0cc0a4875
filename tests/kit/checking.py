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
    """Return the result of a check in steps."""
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
    """Assert that a body is judged alike in steps and in one call; return the verdict of full validation.

    Without the extension module, the check of `keys` in one call accepts the field number 0 in messages of which it
    declares no field; the check in steps may refuse it, as the extension module does.
    """
    complete = verdict(checker(signal, max_items, full=True), body)
    keys = verdict(checker(signal, max_items), body)
    stricter = checking.extension is None and complete is MalformedError
    for full, wanted in ((True, {complete}), (False, {keys, complete} if stricter else {keys})):
        for target in TARGETS:
            stepwise = StepwiseChecker(signal, max_items, full=full, piece=target)
            found = verdict(lambda body, steps=stepwise.steps: in_steps(steps(body)), body)
            assert found in wanted, (signal, full, target)
    return complete


def same_cuts(body: bytes, native: Any) -> None:
    """Assert that C and Python cut `body` alike as a request of each signal."""
    for signal in Signal:
        schema = checking.schema(request_class(signal))
        for target in TARGETS:
            assert native.cut(body, schema, target) == cutting.cut(body, schema, target)
