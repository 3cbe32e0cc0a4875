import pytest

from otelwp_agent.sampling.adaptive.controller import (
    Controller,
)
from otelwp_agent.sampling.adaptive.guard import CEILING_SECONDS
from otelwp_agent.sampling.adaptive.policy import Budget, Ceiling, Policy, Unit
from otelwp_agent.sampling.adaptive.trace import Trace
from otelwp_agent.sampling.consistent import threshold_of
from tests.kit.controllers import KEY, NOTHING, UNITS, always, fresh


@pytest.mark.parametrize(("budget", "costs", "more"), UNITS)
def test_late_spans_of_a_kept_trace_are_paid_for_and_planned(budget, costs, more):
    controller, _ = fresh(Policy(budget=budget, always=NOTHING))
    controller.book_late(5, 700)
    controller.book_late(5, 700)
    assert controller.certain == 2 * more
    assert controller.guard.spent == 2 * more
    without = Controller(Policy(key_budget=budget, always=NOTHING), 0.0)
    without.book_late(5, 700)
    assert without.certain == more


def test_spans_that_follow_a_decided_trace_count_for_its_key():
    controller, state = fresh()
    controller.decide(Trace(0, key=KEY), 100.0)
    spent, weight = controller.guard.spent, state.weight
    controller.follow(KEY, 3, 0, kept=True)
    assert (controller.guard.spent, state.weight, state.adjusted) == (spent + 3, weight + 3, weight + 3)
    controller.follow(KEY, 3, 0, kept=False)
    assert (controller.guard.spent, state.weight, state.adjusted) == (spent + 3, weight + 6, weight + 6)
    controller.follow(KEY, 3, threshold_of(0.25), kept=True)
    assert (controller.guard.spent, state.weight, state.adjusted) == (spent + 6, weight + 9, weight + 18)


def test_spans_that_follow_count_only_in_a_budget_of_spans():
    controller, state = fresh(Policy(budget=Budget.traces_per_second(100), always=NOTHING))
    spent = controller.guard.spent
    controller.follow(KEY, 3, 0, kept=True)
    assert (controller.guard.spent, state.weight, state.adjusted) == (spent, 0.0, 0.0)
    without = Controller(Policy(key_budget=Budget.spans_per_second(10), always=NOTHING), 0.0)
    without.follow(KEY, 3, 0, kept=True)
    assert without.key_states.other.weight == 3, "a key that is not known shares the state of the others"


def test_a_late_error_is_admitted_up_to_the_ceiling_of_errors():
    controller, _ = fresh(errors=Ceiling(traces_per_second=2))
    assert [controller.admit_error(5, 700, 100.0) for _ in range(11)] == [True] * 10 + [False]
    assert controller.always.errors.over == 1
    assert [controller.admit_error(5, 700, 101.0) for _ in range(3)] == [True, True, False]
    assert controller.always.errors.over == 2
    assert controller.guard.spent == 0, "the trace itself is booked when it comes back"


def test_a_late_error_is_charged_in_the_unit_of_the_budget():
    controller, _ = fresh(errors=Ceiling(share=0.5))
    assert controller.admit_error(5, 700, 100.0)
    assert controller.always.errors.levels == [0.5 * 100 * CEILING_SECONDS - 5]
    controller.book_rescued(7, 900)
    assert controller.always.errors.levels == [0.5 * 100 * CEILING_SECONDS - 12]
    assert (controller.guard.spent, controller.certain) == (7, 7)


def test_what_comes_back_of_a_late_error_is_no_further_trace():
    controller, _ = fresh(errors=Ceiling(traces_per_second=2))
    controller.book_rescued(7, 900)
    assert controller.always.errors.levels == [2 * CEILING_SECONDS]
    controller, _ = fresh()
    controller.book_rescued(7, 900)
    assert controller.guard.spent == 7, "it is paid for even if errors have no ceiling"


def test_a_late_error_is_refused_without_a_ceiling_or_when_the_minute_is_spent():
    controller, _ = fresh()
    assert not controller.admit_error(1, 100, 100.0)
    controller, _ = fresh(errors=Ceiling(traces_per_second=100))
    controller.guard.spend(6599)
    assert not controller.admit_error(2, 100, 100.0)
    assert controller.admit_error(1, 100, 100.0)
    assert controller.admit_error(2, 100, 161.0), "the minute is over"
    without = Controller(Policy(always=always(errors=Ceiling(traces_per_second=1))), 0.0)
    assert without.admit_error(10**9, 0, 0.0)


def test_late_errors_are_charged_in_bytes_as_well():
    controller, _ = fresh(Policy(budget=Budget(1e6, Unit.BYTES), always=always(errors=Ceiling(share=0.5))))
    full = 0.5 * 1e6 * CEILING_SECONDS
    assert controller.admit_error(5, 700, 100.0)
    assert controller.always.errors.levels == [full - 700]
    controller.book_rescued(5, 900)
    assert controller.always.errors.levels == [full - 1600]
    assert (controller.guard.spent, controller.certain) == (900, 900)
