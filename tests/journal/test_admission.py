from types import SimpleNamespace

import pytest
import structlog

from otelwp_agent.errors import Overloaded
from otelwp_agent.journal.admission import MAX_UNWRITTEN, Admission
from otelwp_agent.journal.failure import Failure
from otelwp_agent.journal.reserve import Reserve


@pytest.fixture
def admission(tmp_path):
    failure = Failure(Reserve(tmp_path, structlog.get_logger()), structlog.get_logger())
    return Admission(SimpleNamespace(stored=0), failure, 10 * MAX_UNWRITTEN)


def reason(admission):
    with pytest.raises(Overloaded) as raised:
        admission.admit()
    return raised.value.reason


def test_a_closed_journal_accepts_nothing(admission):
    admission.measure()
    assert reason(admission) == "shutting_down"
    admission.closed = False
    admission.measure()
    admission.admit()


def test_a_disk_that_does_not_keep_up_and_a_full_journal_are_told_apart(admission):
    admission.closed = False
    admission.measure()
    admission.unwritten = MAX_UNWRITTEN
    assert (reason(admission), admission.full) == ("journal_slow", False)
    admission._entry_store.stored = 10 * MAX_UNWRITTEN
    assert (reason(admission), admission.full) == ("journal_full", True)


def test_after_a_failed_write_nothing_is_accepted_until_it_is_time_to_try_again(admission):
    admission.closed = False
    admission.measure()
    admission._failure.set(OSError(5, "Input/output error"))
    assert reason(admission) == "journal_unwritable"
    admission._failure.refuse_until = 0.0
    admission.admit()


def small(admission, stored=40, max_size=100):
    admission.max_size = max_size
    admission.closed = False
    admission._entry_store.stored = stored
    admission.measure()
    return admission


def refusal(admission):
    with pytest.raises(Overloaded) as raised:
        admission.admit()
    return str(raised.value), raised.value.retry_after, raised.value.reason


def test_a_journal_that_is_closed_accepts_nothing_once_that_is_measured(admission):
    assert admission.unwritten == 0
    assert reason(admission) == "shutting_down"
    admission.closed = False
    admission.admit()
    admission.closed = True
    admission.measure()
    assert reason(admission) == "shutting_down"


def test_bodies_wait_up_to_the_space_that_is_left(admission):
    small(admission)
    admission.unwritten = 59
    admission.admit()
    assert not admission.full
    admission.unwritten = 60
    assert admission.full
    assert refusal(admission) == (
        "the journal is full (40 of 100 bytes): what it holds must be delivered first",
        5.0,
        "journal_full",
    )


def test_bodies_wait_up_to_what_may_be_in_memory(admission):
    small(admission, max_size=10 * MAX_UNWRITTEN)
    admission.unwritten = MAX_UNWRITTEN - 1
    admission.admit()
    admission.unwritten = MAX_UNWRITTEN
    assert refusal(admission) == ("the disk under the journal does not keep up", 1.0, "journal_slow")


def test_space_that_was_freed_since_the_last_write_is_used(admission):
    small(admission, stored=100)
    assert reason(admission) == "journal_full"
    admission._entry_store.stored = 50
    admission.admit()
    admission.unwritten = 49
    admission.admit()


def test_a_stopping_agent_says_so(admission):
    admission.measure()
    assert refusal(admission)[0] == "the agent is shutting down"


def test_a_failure_is_reported_before_anything_else(admission):
    small(admission, stored=100)
    admission._failure.set(OSError(5, "Input/output error"))
    assert reason(admission) == "journal_unwritable"
