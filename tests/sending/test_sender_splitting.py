"""Batches that a sender splits: too large, or malformed."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from otelwp_agent.config.blocks import Queue
from otelwp_agent.errors import MalformedError, RetryableError, TooLargeError
from otelwp_agent.model.batch import Batch, merge
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.sending.parts import REFUSALS_BEFORE_GIVING_UP
from tests.kit.senders import (
    Destination,
    Letters,
    a_request,
    outcomes,
    refuse,
    scripted,
)


def test_splits_beforehand_what_the_exporter_cannot_send_at_once(deliver):
    batch = merge([a_request("a", "b", padding=50), a_request("c", "d", padding=50)])
    exporter = deliver(scripted(), batch, max_request_bytes=150)
    assert len(exporter.tries) > 1
    assert sorted(name for _, names in exporter.tries for name in names) == ["a", "b", "c", "d"]
    assert outcomes(batch) == [(2, 0, ""), (2, 0, "")]


def test_one_item_above_the_limit_is_dropped_and_its_neighbours_pass(deliver):
    batch = merge([a_request("a"), a_request("giant", padding=500), a_request("b")])
    exporter = deliver(scripted(), batch, max_request_bytes=200)
    assert outcomes(batch) == [(1, 0, ""), (0, 1, "too_large"), (1, 0, "")]
    assert "giant" not in [name for _, names in exporter.tries for name in names]


def test_halves_what_is_refused_as_too_large(deliver):
    async def at_most_two(names: list[str]) -> int:
        if len(names) > 2:
            raise TooLargeError("413")
        return 0

    batch = a_request(*"abcdefg")
    exporter = deliver(at_most_two, batch)
    assert sorted(name for _, names in exporter.tries if len(names) <= 2 for name in names) == list("abcdefg")
    assert outcomes(batch) == [(7, 0, "")]


def test_a_single_item_refused_as_too_large_is_dropped(deliver):
    batch = a_request("a")
    deliver(scripted(TooLargeError("413")), batch)
    assert outcomes(batch) == [(0, 1, "too_large")]


@pytest.mark.parametrize("poison", ["s0", "s3", "s6"])
def test_a_malformed_request_is_found_and_its_neighbours_pass(deliver, poison):
    batch = merge([a_request(f"s{number}", "more") for number in range(7)])
    deliver(refuse(poison), batch)
    bad = int(poison[1])
    assert outcomes(batch) == [(0, 2, "malformed") if n == bad else (2, 0, "") for n in range(7)]


def test_many_bad_senders_in_a_row_do_not_hide_the_good_ones(deliver):
    batch = merge([a_request(f"s{number}") for number in range(400)])
    deliver(refuse(*[f"s{number}" for number in range(200)]), batch)
    assert outcomes(batch) == [(0, 1, "malformed")] * 200 + [(1, 0, "")] * 200


def test_a_backend_that_refuses_everything_is_not_asked_for_each_request(deliver):
    batch = merge([a_request(f"s{number}") for number in range(1000)])

    async def never(_: list[str]) -> int:
        raise MalformedError("400")

    exporter = deliver(never, batch)
    assert outcomes(batch) == [(0, 1, "malformed")] * 1000
    assert len(exporter.tries) <= 2 * REFUSALS_BEFORE_GIVING_UP + 2


def test_a_malformed_request_is_dropped_whole(deliver):
    batch = a_request("a", "b", "c")
    assert len(deliver(refuse("a"), batch).tries) == 1
    assert outcomes(batch) == [(0, 3, "malformed")]


def test_a_body_that_cannot_be_split_is_dropped_as_malformed(deliver, monkeypatch):
    async def export(*_: object) -> int:
        raise TooLargeError("413")

    monkeypatch.setattr(Destination, "export", export)
    batch = merge([a_request("a"), a_request("b")]).with_body(b"\xff\xff")
    deliver(scripted(), batch)
    assert outcomes(batch) == [(0, 1, "malformed")] * 2


def test_a_batch_that_cannot_be_split_for_a_bug_is_dropped_and_its_neighbours_pass(deliver):
    whole, good = a_request("a", "b", "c"), a_request("d")
    broken = whole.with_body(whole.body, shares=[(whole.shares[0][0], 3), (Receipt(1), 1)])
    letters = Letters()
    with capture_logs() as logs:
        deliver(scripted(MalformedError("400")), broken, good, queue=Queue(num_consumers=1), dead_letters=letters)
    assert [reason for _, _, reason, _ in letters.letters] == ["internal_error"]
    assert outcomes(broken) == [(0, 3, "dead_letter:internal_error"), (0, 1, "dead_letter:internal_error")]
    assert outcomes(good) == [(1, 0, "")]
    assert "sending broke" in [log["event"] for log in logs]


def test_an_encoded_body_is_never_split(deliver):
    whole = merge([a_request("a"), a_request("b")])
    batch = Batch(whole.signal, whole.body, whole.items, whole.origin, whole.shares, ("zstd",))
    assert len(deliver(scripted(MalformedError("400")), batch).tries) == 1
    assert outcomes(batch) == [(0, 1, "malformed")] * 2


def test_each_part_is_retried_on_its_own(deliver):
    failed = []

    async def answer(names: list[str]) -> int:
        if len(names) > 1:
            raise TooLargeError("413")
        if names == ["b"] and not failed:
            failed.append(names)
            raise RetryableError("busy")
        return 0

    batch = a_request("a", "b")
    exporter = deliver(answer, batch)
    assert exporter.tries[1:] == [(0, ["a"]), (0, ["b"]), (5, ["b"])]
    assert outcomes(batch) == [(2, 0, "")]
