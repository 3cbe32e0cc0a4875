"""Requests are refused by what they hold before anything is built from them, with and without the extension module."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time

import pytest

from otelwp_agent.errors import MalformedError, TooLargeError
from otelwp_agent.model import checking, projections
from otelwp_agent.model.checking import checker, refuse_too_many
from otelwp_agent.model.messages import request_class
from otelwp_agent.model.signal import Signal
from tests.kit.otlp import delimited

MOST = 1000
RESOURCES = b"\x0a\0"
SPINES = {
    "resources": lambda count: RESOURCES * count,
    "scopes": lambda count: delimited(1, b"\x12\0" * count),
    "items": lambda count: delimited(1, delimited(2, b"\x12\0" * count)),
}


@pytest.fixture(params=[True, False], ids=["native", "python"])
def native(request, monkeypatch):
    if request.param and checking.extension is None:
        pytest.skip("the extension module is not there")
    if not request.param:
        monkeypatch.setattr(checking, "extension", None)
        monkeypatch.setattr(checking, "_count", checking.counting.count)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("signal", Signal)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("what", SPINES)
def test_more_than_the_limit_is_refused_and_names_the_setting(signal, full, what):
    check = checker(signal, MOST, full=full)
    with pytest.raises(TooLargeError, match=r"more than 1000 resources, scopes and items.*max_items_per_request"):
        check(SPINES[what](MOST + 1))
    body = SPINES[what](MOST - 2)
    assert check(body) == projections.count(signal, body)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("full", [False, True])
def test_what_does_not_parse_is_malformed(full):
    for body in (b"\xff", delimited(1, delimited(2, delimited(2, b"\xff"))), RESOURCES * MOST + b"\x0a"):
        with pytest.raises(MalformedError):
            checker(Signal.TRACES, MOST, full=full)(body)


@pytest.mark.usefixtures("native")
def test_full_validation_bounds_what_stands_inside_of_items():
    attributes = b"\x4a\0" * (checking.PARTS * MOST)
    body = delimited(1, delimited(2, delimited(2, attributes)))
    assert checker(Signal.TRACES, MOST)(body) == 1
    with pytest.raises(TooLargeError):
        checker(Signal.TRACES, MOST, full=True)(body)


@pytest.mark.usefixtures("native")
def test_fields_that_are_items_weigh_more():
    kind = request_class(Signal.TRACES)
    items = frozenset({kind.DESCRIPTOR.fields_by_name["resource_spans"].full_name})
    refuse_too_many(RESOURCES * MOST, kind, MOST, items=items)
    checking._schemas.clear()
    with pytest.raises(TooLargeError):
        refuse_too_many(RESOURCES * (MOST + 1), kind, MOST, items=items)
    checking._schemas.clear()


def test_small_bodies_are_not_counted_in_python(monkeypatch):
    monkeypatch.setattr(checking, "extension", None)
    monkeypatch.setattr(checking.counting, "count", None)
    assert checker(Signal.TRACES, MOST)(RESOURCES * (MOST - 1)) == 0


@pytest.mark.parametrize("pure", ["", "1"])
def test_a_bomb_costs_neither_time_nor_memory(pure):
    """In a process of its own, whose peak of memory is its own."""
    if not pure and checking.extension is None:
        pytest.skip("the extension module is not there")
    done = subprocess.run(
        [sys.executable, "-c", "from tests.model.test_checking import bomb; bomb()"],
        env={**os.environ, "OTELWP_PURE_PYTHON": pure},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def bomb() -> None:
    """Refuse 20 MiB of empty resources, scopes and items of each signal."""
    bodies = [spine(10 << 20) for spine in SPINES.values()]
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    for signal in Signal:
        for body in bodies:
            for full in (False, True):
                with pytest.raises(TooLargeError):
                    checker(signal, 250_000, full=full)(body)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024
    # C counts everything in milliseconds. Python counts up to the limit: 0.3 to 0.5 s, twice that beside other work.
    assert (time.process_time() - started) / 18 < (1.5 if checking.extension is None else 0.05)
