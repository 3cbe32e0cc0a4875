from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otelwp_agent.config.blocks import Queue
from otelwp_agent.errors import MalformedError, PermanentError, TooLargeError
from otelwp_agent.model.batch import Batch, merge
from otelwp_agent.sending.parts import REFUSALS_BEFORE_GIVING_UP, parts_of
from otelwp_agent.sending.queue import SendingQueue
from tests.kit.senders import a_request, names_in

if TYPE_CHECKING:
    from otelwp_agent.sending.queued_batch import QueuedBatch

MERGED = [("a", "b"), ("c",), ("d", "e", "f")]


def an_entry(batch: Batch) -> QueuedBatch:
    queue = SendingQueue(Queue(), "x")
    queue.put(batch)
    return queue.take()


def merged() -> Batch:
    return merge([a_request(*names) for names in MERGED])


def parts(batch: Batch, error: PermanentError, limit: int | None = None) -> list[list[str]]:
    return [names_in(part) for part in parts_of(an_entry(batch), error, limit)[0]]


def test_what_is_malformed_is_halved_between_its_requests():
    assert parts(merged(), MalformedError("400")) == [["a", "b"], ["c", "d", "e", "f"]]
    assert parts(a_request("a", "b"), MalformedError("400")) == []


def test_what_is_too_large_is_halved_between_its_items():
    assert parts(merged(), TooLargeError("413")) == [["a", "b", "c"], ["d", "e", "f"]]
    assert parts(a_request("a", "b"), TooLargeError("413")) == [["a"], ["b"]]
    assert parts(a_request("a"), TooLargeError("413")) == []


def test_or_cut_to_the_size_that_is_known():
    batch = a_request("a", "b", "c", padding=100)
    assert parts(batch, TooLargeError("too large"), len(batch.body) - 1) == [["a", "b"], ["c"]]
    assert parts(batch, TooLargeError("too large"), 10) == [["a"], ["b"], ["c"]]


def test_what_is_refused_for_another_reason_stays_whole():
    assert parts(merged(), PermanentError("403")) == []


@pytest.mark.parametrize("error", [MalformedError("400"), TooLargeError("413")])
def test_what_was_encoded_stays_whole(error):
    batch = merged()
    encoded = Batch(batch.signal, batch.body, batch.items, batch.origin, batch.shares, ("zstd",))
    found, reported = parts_of(an_entry(encoded), error)
    assert (found, type(reported)) == ((), type(error))


def test_an_encoded_batch_that_is_too_large_says_where_to_limit_its_size():
    batch = merged().encoded("zstd", b"compressed").encoded("sealed", b"envelope")
    found, error = parts_of(an_entry(batch), TooLargeError("413: 20 MiB are the most"), 4)
    assert (found, error.reason) == ((), "too_large")
    assert str(error) == (
        "413: 20 MiB are the most; it is encoded (zstd, sealed) and cannot be split: limit its size before, with "
        "`send_batch_max_size` and `send_batch_bytes` of the processor `batch`"
    )


def test_what_cannot_be_read_is_malformed():
    none, error = parts_of(an_entry(merged().with_body(b"\xff\xff")), TooLargeError("413"))
    assert none == ()
    assert type(error) is MalformedError


@pytest.mark.parametrize(("taken", "more"), [(False, 0), (True, 2)])
def test_the_hunt_ends_when_everything_is_refused(taken, more):
    entry = an_entry(merged())
    for _ in range(REFUSALS_BEFORE_GIVING_UP):
        assert len(parts_of(entry, MalformedError("400"))[0]) == 2
    entry.search.accepted = taken
    assert len(parts_of(entry, MalformedError("400"))[0]) == more
