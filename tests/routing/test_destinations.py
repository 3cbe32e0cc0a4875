"""A group of destinations whose exporters are fakes."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from otelwp_agent.capacity import Capacity
from otelwp_agent.errors import ForbiddenError, MalformedError, Overloaded, RetryableError
from otelwp_agent.routing.destinations import LOOK_AGAIN, DestinationGroup
from otelwp_agent.routing.outlets import Move, Outlets
from otelwp_agent.routing.strategies import Strategy
from otelwp_agent.testing import Catcher
from otelwp_agent.testing.fake_time import run
from tests.kit.senders import a_request

AWAY = RetryableError("away")


class FakeOutlet:
    """An exporter whose queue is a list."""

    blocked_until = 0.0
    broken = False

    def __init__(self):
        self.waiting = []
        self.watchers = []

    @property
    def backlog(self):
        return len(self.waiting)

    def watch(self, watcher):
        if watcher not in self.watchers:
            self.watchers.append(watcher)

    def unwatch(self, watcher):
        self.watchers.remove(watcher)

    def move(self, _pipeline, forward):
        while self.waiting and forward(self.waiting[0]):
            self.waiting.pop(0)


class Group:
    """A group with the destinations a, b and c."""

    def __init__(self, names="abc", **settings):
        self.entries = {name: Catcher() for name in names}
        self.outlets = {name: FakeOutlet() for name in names}
        self.counted = []
        self.clock = asyncio.get_running_loop().time
        settings = {"failures": 2, "retry_interval": 10.0, "return_time": 20.0, "sticky": False} | settings
        self.group = DestinationGroup(
            {name: [name] for name in names},
            strategy=Strategy(),
            entrance=lambda pipelines: self.entries[pipelines[0]],
            counts=self,
            clock=self.clock,
            log=structlog.get_logger(),
            **settings,
        )
        self.a, self.b, *_ = self.group.destinations
        self.group.connect({name: Outlets((outlet,), movable=True) for name, outlet in self.outlets.items()})

    def forwarded(self, destination, items):
        self.counted.append((destination, items))

    def moved(self, source, destination, items):
        self.counted.append((source, destination, items))

    def got(self):
        return {name: len(entry.batches) for name, entry in self.entries.items()}


def on_a_loop(scenario):
    async def whole():
        one = Group()
        await scenario(one)
        one.group.close()
        assert not any(outlet.watchers for outlet in one.outlets.values())

    return lambda: run(whole())


@on_a_loop
async def test_a_failed_batch_goes_to_each_destination_once(one):
    batch = a_request("x")
    assert one.a.failed(batch, AWAY, "a") is Move.DONE
    assert one.b.failed(batch, AWAY, "b") is Move.DONE
    assert one.group.destinations[2].failed(batch, AWAY, "c") is Move.NONE
    assert one.got() == {"a": 0, "b": 1, "c": 1}
    assert one.counted == [("a", "b", 1), ("b", "c", 1)]


@on_a_loop
async def test_after_a_final_refusal_it_goes_back_to_one_that_only_failed(one):
    batch = a_request("x")
    one.a.failed(batch, AWAY, "a")
    one.b.failed(batch, ForbiddenError("403"), "b")
    assert one.group.destinations[2].failed(batch, ForbiddenError("403"), "c") is Move.DONE
    assert one.a.failed(batch, ForbiddenError("403"), "a") is Move.NONE
    assert one.got() == {"a": 1, "b": 1, "c": 1}


@on_a_loop
async def test_a_batch_of_another_pipeline_is_counted_and_stays(one):
    assert one.a.failed(a_request("x"), AWAY, "other") is Move.NONE
    assert one.a.failed(a_request("x"), AWAY, "other") is Move.NONE
    assert one.a.state.share(0) == 0


@on_a_loop
async def test_what_no_other_accepts_now_may_move_later(one):
    for name in "bc":
        one.entries[name].error = Overloaded("full")
    batch = a_request("x")
    assert one.a.failed(batch, ForbiddenError("403"), "a") is Move.LATER
    assert not batch.tried


@on_a_loop
async def test_malformed_data_make_no_destination_down(one):
    for _ in range(9):
        one.a.failed(a_request("x"), MalformedError("400"), "a")
    assert one.a.state.share(0) == 1


@on_a_loop
async def test_the_queue_of_a_destination_whose_breaker_opens_moves_as_far_as_there_is_capacity(one):
    outlet, space = one.outlets["a"], Capacity("b", one.clock)
    outlet.waiting = [a_request(str(number)) for number in range(5)]
    outlet.broken, outlet.blocked_until = True, 5.0
    one.entries["c"].error = Overloaded("full")
    one.entries["b"].refusal = lambda _: None if len(one.entries["b"].batches) < 2 else Overloaded("b", capacity=space)
    one.group.consume(a_request("new"))
    await asyncio.sleep(0)
    assert one.got() == {"a": 0, "b": 2, "c": 0}
    assert len(outlet.waiting) == 4
    one.entries["b"].refusal = lambda _: None
    space.freed()
    await asyncio.sleep(0.001)
    assert one.got() == {"a": 0, "b": 6, "c": 0}


@on_a_loop
async def test_a_throttled_destination_gets_nothing_until_it_may_be_asked_again_and_then_everything(one):
    one.outlets["a"].blocked_until = 7.0
    one.group.consume(a_request("x"))
    await asyncio.sleep(7)
    for _ in range(3):
        one.group.consume(a_request("x"))
    assert one.got() == {"a": 3, "b": 1, "c": 0}


@on_a_loop
async def test_while_all_are_down_one_waiting_batch_tests_each_destination_in_each_interval(one):
    for destination in one.group.destinations:
        for _ in range(2):
            destination.failed(a_request("x"), MalformedError("400"), "")
            destination.failed(a_request("x"), AWAY, "")
    one.outlets["a"].waiting = [a_request(str(number)) for number in range(5)]
    await asyncio.sleep(10 + LOOK_AGAIN)
    assert one.got() == {"a": 0, "b": 1, "c": 1}
    one.group.destinations[2].delivered(0.1)
    await asyncio.sleep(LOOK_AGAIN)
    assert one.got() == {"a": 0, "b": 1, "c": 4}


@on_a_loop
async def test_refusals_change_nothing_and_agree_with_consume(one):
    assert one.group.refusal(a_request("x")) is None
    for entry in one.entries.values():
        entry.error = Overloaded("full")
    assert isinstance(one.group.refusal(a_request("x")), Overloaded)
    with pytest.raises(Overloaded):
        one.group.consume(a_request("x"))
    one.entries["c"].error = None
    assert one.group.refusal(a_request("x")) is None
    one.group.consume(a_request("x"))
    assert one.counted == [("c", 1)]


@on_a_loop
async def test_data_do_not_overflow_into_a_destination_that_is_down(one):
    one.outlets["a"].broken, one.outlets["a"].blocked_until = True, 5.0
    one.entries["b"].error = one.entries["c"].error = Overloaded("full")
    with pytest.raises(Overloaded):
        one.group.consume(a_request("x"))
    assert one.group.fill({"a": 0.1, "b": 0.8, "c": 0.9}) == 0.8


def test_sticky_batches_move_only_if_they_are_refused_for_good():
    async def scenario():
        one = Group(sticky=True)
        one.outlets["a"].waiting = [a_request("w")]
        assert [one.a.failed(a_request("x"), AWAY, "a") for _ in range(2)] == [Move.NONE, Move.NONE]
        await asyncio.sleep(LOOK_AGAIN)
        assert one.outlets["a"].backlog == 1
        assert one.a.failed(a_request("x"), ForbiddenError("403"), "a") is Move.DONE
        one.group.close()

    run(scenario())


def test_in_a_ring_everything_of_a_destination_that_fails_moves_to_the_next_one():
    async def scenario():
        one = Group(ring=True)
        c = one.group.destinations[2]
        one.outlets["c"].waiting = [a_request("w")]
        assert [c.failed(a_request("x"), AWAY, "c") for _ in range(2)] == [Move.DONE, Move.DONE]
        one.group.consume(a_request("new"), "c")
        await asyncio.sleep(LOOK_AGAIN)
        assert one.got() == {"a": 4, "b": 0, "c": 0}
        one.entries["a"].error = Overloaded("full")
        assert one.group.refusal(a_request("x"), "c") is None
        one.group.consume(a_request("new"), "c")
        assert one.got() == {"a": 4, "b": 1, "c": 0}
        one.group.close()

    run(scenario())
