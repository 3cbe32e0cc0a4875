"""`report` estimates all traces of a key from the kept ones."""

import random

from otelwp_agent.sampling.adaptive.controller import Controller
from otelwp_agent.sampling.adaptive.policy import Always, Budget, Policy
from otelwp_agent.sampling.adaptive.reporting import report
from otelwp_agent.sampling.adaptive.trace import Trace

KEY = ("shop", "/cart")
NOTHING = Always(debug=None, errors=None, slow=None, first=None)


def fed(always, *, error_every=0):
    """Return a controller that decided about 30 traces a second for 900 seconds, at a budget of 10 a second."""
    controller = Controller(Policy(budget=Budget.traces_per_second(10), always=always), 0.0)
    dice = random.Random(1)
    for number in range(900 * 30):
        now = number / 30
        error = bool(error_every) and number % error_every == 0
        controller.decide(Trace(dice.getrandbits(56), key=KEY, duration=0.2, error=error), now)
        if number % 30 == 29:
            controller.tick(now)
    return controller


def test_a_report_covers_the_last_one_to_two_windows():
    found = report(fed(NOTHING), KEY, 900.0)
    assert 300 <= found.seconds <= 600
    assert found.traces.low <= 30 * found.seconds <= found.traces.high
    assert found.error_ratio.low == 0
    assert found.percentiles[50.0].low <= 0.2 <= found.percentiles[50.0].high


def test_the_error_ratio_is_covered_by_its_interval():
    found = report(fed(NOTHING, error_every=10), KEY, 900.0)
    assert 0 < found.error_ratio.low <= 0.1 <= found.error_ratio.high < 0.3


def test_errors_that_are_all_kept_make_a_narrower_interval():
    by_chance = report(fed(NOTHING, error_every=100), KEY, 900.0).error_ratio
    all_kept = report(fed(Always(debug=None, slow=None, first=None), error_every=100), KEY, 900.0).error_ratio
    assert all_kept.low <= 0.01 <= all_kept.high
    assert all_kept.high - all_kept.low < by_chance.high - by_chance.low
