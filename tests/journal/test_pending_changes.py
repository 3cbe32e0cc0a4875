from types import SimpleNamespace

from otelwp_agent.journal.commit_builder import CommitBuilder
from otelwp_agent.journal.pending_changes import PendingChanges, row_of
from otelwp_agent.journal.records import Commit
from otelwp_agent.journal.segment import Segment
from otelwp_agent.model.receipt import Ledger, Outcome


def builder(tmp_path, number=1):
    segment = Segment.create(tmp_path, number, 1)
    return CommitBuilder(segment, {})


def said(written):
    (commit,) = written.segment.scan() if written.segment.size else [None]
    return Commit.decode(commit.payload)


def write(written):
    written.segment.write(written.parts, sync=False)
    written.segment.size = written.end
    return said(written)


def test_what_is_known_is_said_once(tmp_path):
    changes, ledger = PendingChanges(), Ledger(("traces", "otlp", ""))
    assert not changes
    ledger.accepted = 3
    ledger.settle(Outcome.DELIVERED, 2, "")
    changes.changed(ledger)
    written = builder(tmp_path)
    written.segment.kept = 1
    changes.released(written.segment, 0)
    assert changes
    changes.close(written)
    commit = write(written)
    changes.on_disk(written)
    assert (list(commit.released), [row[3:5] for row in commit.accounts]) == ([1], [(3, [2, 0, 0, 0])])
    assert (bool(changes), changes.written, written.segment.kept) == (False, {ledger: row_of(ledger)}, 0)
    written.segment.close()


def test_what_could_not_be_written_is_said_again(tmp_path):
    changes, ledger = PendingChanges(), Ledger(("traces", "otlp", ""))
    failed, again = builder(tmp_path), builder(tmp_path, 2)
    changes.changed(ledger)
    changes.released(failed.segment, 4)
    changes.waits(SimpleNamespace(seq=9, done=frozenset({(0, "jaeger")})))
    failed.branches += changes.take_branches()
    changes.close(failed)
    assert not changes
    changes.take_back(failed)
    again.branches += changes.take_branches()
    changes.close(again)
    commit = write(again)
    assert (list(commit.released), commit.branches, len(commit.accounts)) == ([5], [(9, 0, "jaeger")], 1)
    failed.segment.close()
    again.segment.close()


def test_exporters_are_told_now_and_then_and_when_it_is_asked_for(tmp_path):
    changes = PendingChanges()
    changes.exporters = lambda: [("jaeger", 5, 3, {}, 2)]
    told = []
    for number in range(1, 4):
        one = builder(tmp_path, number)
        one.segment.size = 1  # it has its snapshot
        if number == 3:
            changes.tell_exporters()
        changes.close(one)
        told.append(b"jaeger" in b"".join(one.parts))
        one.segment.close()
    assert told == [True, False, True]


def test_what_is_done_of_an_entry_while_it_moves_goes_with_it(tmp_path):
    changes, moving = PendingChanges(), builder(tmp_path)
    moving.branches = [(7, 0, "jaeger")]
    changes.moved(moving, 7, [(0, "jaeger"), (0, "zipkin")])
    assert changes.take_branches() == [(7, 0, "zipkin")]
    moving.segment.close()
