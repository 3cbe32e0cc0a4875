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
