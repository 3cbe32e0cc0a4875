from otelwp_agent.sampling.adaptive.controller import (
    ESTIMATES_WINDOW,
    SHORTEST_TICK,
    Controller,
)
from otelwp_agent.sampling.adaptive.policy import Budget, Policy
from otelwp_agent.sampling.adaptive.trace import Trace
from otelwp_agent.sampling.consistent import ALWAYS, NEVER, lowered, threshold_of
from tests.kit.controllers import KEY, fresh


def test_time_may_go_back_or_leap():
    controller = Controller(Policy(budget=Budget.traces_per_second(10)), 100.0)
    for now in (100.0, 50.0, 101.0, 101.0, 1e7, 99.0):
        controller.decide(Trace(5, key=KEY), now)
        controller.tick(now)
    assert controller.probability(KEY) == 1


def test_a_tick_too_soon_after_the_last_changes_nothing():
    controller, state = fresh()
    controller.decide(Trace(0, key=KEY), 100.0)
    controller.decide(Trace(0, key=KEY), 100.0)
    controller.tick(100.0 + 0.9 * SHORTEST_TICK)
    assert (controller.ticked, state.seen) == (100.0, 2)
    controller.tick(100.0 + 1.1 * SHORTEST_TICK)
    assert (controller.ticked, state.seen) == (100.0 + 1.1 * SHORTEST_TICK, 0)


def test_estimates_change_windows_after_five_minutes():
    controller, state = fresh(now=1000.0)
    assert (controller.window_before, controller.window_began) == (910.0, 910.0)
    tally = state.tally
    controller.tick(910.0 + ESTIMATES_WINDOW - 0.5)
    assert state.tally is tally
    controller.tick(910.0 + ESTIMATES_WINDOW)
    assert (controller.window_before, controller.window_began) == (910.0, 910.0 + ESTIMATES_WINDOW)
    assert state.earlier is tally
    assert state.tally is not tally
    controller.tick(910.0 + 2 * ESTIMATES_WINDOW + 7)
    assert (controller.window_before, controller.window_began) == (1210.0, 910.0 + 2 * ESTIMATES_WINDOW + 7)


def test_a_guard_that_is_low_lowers_probabilities_between_ticks():
    controller, state = fresh()
    state.threshold = threshold_of(0.5)
    controller.guard.tokens.level = controller.guard.low / 2
    assert controller.decide(Trace(0, key=KEY), 100.0).threshold == lowered(threshold_of(0.5), 0.5)
    controller.guard.tokens.level = controller.guard.low / 4
    assert controller.decide(Trace(0, key=KEY), 100.0).threshold == lowered(threshold_of(0.5), 0.25)
    controller.guard.tokens.level = controller.guard.low
    assert controller.decide(Trace(0, key=KEY), 100.0).threshold == threshold_of(0.5)


def test_an_overdrawn_guard_has_the_probabilities_computed_before_the_next_tick():
    controller, state = fresh()
    for _ in range(100):
        controller.decide(Trace(NEVER - 1, key=KEY, spans=10), 100.0)
    assert controller.guard.tokens.level < 0
    assert state.threshold == ALWAYS
    controller.decide(Trace(NEVER - 1, key=KEY, spans=10), 100.19)
    assert (controller.ticked, state.threshold) == (100.0, ALWAYS)
    controller.decide(Trace(NEVER - 1, key=KEY, spans=10), 100.21)
    assert controller.ticked == 100.21
    assert state.threshold > ALWAYS


def overdrawn(level, now=100.25):
    """Decide at `now`, when refilling has brought the tokens to `level`; return when the controller ticked last."""
    controller, _ = fresh()
    controller.guard.tokens.level = level - 25.0  # 100 a second for a quarter of a second
    controller.decide(Trace(NEVER - 1, key=KEY), now)
    return controller.ticked


def test_only_an_overdrawn_guard_has_the_probabilities_computed_early():
    assert overdrawn(0.5) == overdrawn(0.0) == 100.0
    assert overdrawn(-0.5) == 100.25


def test_the_probabilities_are_computed_early_after_a_fifth_of_a_second_and_more_for_many_keys():
    controller, _ = fresh()
    controller._hurry = 0.25
    controller.guard.tokens.level = -1000.0
    controller.decide(Trace(NEVER - 1, key=KEY), 100.25)
    assert controller.ticked == 100.25
    controller, _ = fresh()
    for number in range(2000):
        controller.key_states.admit((str(number),), 100.0)
    controller.tick(101.0)
    controller.guard.tokens.level = -1000.0
    for now, ticked in ((101.39, 101.0), (101.41, 101.41)):
        controller.decide(Trace(NEVER - 1, key=KEY), now)
        assert controller.ticked == ticked


def test_within_one_instant_nothing_is_computed_anew():
    controller, _ = fresh()
    for _ in range(2):
        controller.decide(Trace(NEVER - 1, key=KEY, spans=5000), 100.5)
        assert controller.ticked == 100.0
    assert controller.guard.tokens.level < 0
    controller.decide(Trace(NEVER - 1, key=KEY), 100.6)
    assert controller.ticked == 100.6


def test_a_tick_is_long_enough_after_a_tenth_of_a_second():
    controller = Controller(Policy(), 0.0)
    controller.tick(SHORTEST_TICK)
    assert controller.ticked == SHORTEST_TICK
