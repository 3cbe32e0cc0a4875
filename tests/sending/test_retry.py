from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.config.blocks import Retry
from otelwp_agent.sending.retry import Backoff


def middle() -> float:
    return 0.5


def waits(backoff: Backoff, count: int) -> list[float | None]:
    return [backoff.next_wait(0) for _ in range(count)]


def test_waits_grow_to_the_longest_and_stay_there():
    backoff = Backoff(Retry(), 0, middle)
    assert waits(backoff, 7) == pytest.approx([5, 7.5, 11.25, 16.875, 25.3125, 30, 30])


def test_an_initial_interval_above_the_longest_is_cut():
    backoff = Backoff(Retry(initial_interval="10s", max_interval="4s", max_elapsed_time=0), 0, middle)
    assert waits(backoff, 2) == [4, 4]


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1))
def test_chance_moves_a_wait_by_its_share_at_most(chance, factor):
    backoff = Backoff(Retry(randomization_factor=factor), 0, lambda: chance)
    wait = backoff.next_wait(0)
    assert wait is not None
    assert 5 * (1 - factor) - 1e-9 <= wait <= 5 * (1 + factor) + 1e-9


def test_both_ends_of_chance_are_reached():
    settings = Retry(randomization_factor=0.5)
    assert Backoff(settings, 0, lambda: 0.0).next_wait(0) == 2.5
    assert Backoff(settings, 0, lambda: 1.0).next_wait(0) == 7.5


def test_the_other_sides_word_is_a_minimum():
    backoff = Backoff(Retry(), 0, middle)
    assert backoff.next_wait(0, 60) == 60
    assert backoff.next_wait(0, 1) == 7.5


def test_gives_up_when_the_next_try_would_come_too_late():
    backoff = Backoff(Retry(max_elapsed_time="20s"), 100, middle)
    assert backoff.next_wait(115) == 5
    assert backoff.next_wait(115) is None


def test_gives_up_when_the_other_side_asks_for_longer_than_there_is():
    assert Backoff(Retry(max_elapsed_time="20s"), 0, middle).next_wait(0, 21) is None


def test_never_gives_up_without_a_limit():
    assert Backoff(Retry(max_elapsed_time=0), 0, middle).next_wait(1e9) == 5


def test_disabled_gives_up_at_once():
    assert Backoff(Retry(enabled=False), 0, middle).next_wait(0) is None


def test_a_limit_below_a_second_is_one():
    backoff = Backoff(Retry(initial_interval="100ms", max_elapsed_time="250ms"), 0, middle)
    assert backoff.next_wait(0) == pytest.approx(0.1)
    assert backoff.next_wait(0.2) is None
