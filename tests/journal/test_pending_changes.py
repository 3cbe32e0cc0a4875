from types import SimpleNamespace

import pytest

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
    changes.waits(SimpleNamespace(seq=5, done={(0, "jaeger")}))
    changes.moved(moving, 7, [(0, "jaeger"), (0, "zipkin")])
    assert changes.take_branches() == [(5, 0, "jaeger"), (7, 0, "zipkin")]
    moving.segment.close()


def commit_of(changes, one):
    one.branches += changes.take_branches()
    changes.close(one)
    return write(one)


def claim_of(seq, pipeline, branches, *, running=1, parked=False, done=()):
    entry = SimpleNamespace(seq=seq, open=running, parked=parked, done=frozenset(done))
    return SimpleNamespace(entry=entry, pipeline=pipeline, branches_done=lambda: frozenset(branches))


@pytest.mark.parametrize("change", ["changed", "released", "progressed", "waits", "repeat"])
def test_anything_that_is_known_is_worth_a_commit(tmp_path, change):
    changes, one = PendingChanges(), builder(tmp_path)
    {
        "changed": lambda: changes.changed(Ledger()),
        "released": lambda: changes.released(one.segment, 0),
        "progressed": lambda: changes.progressed(claim_of(1, 0, "x")),
        "waits": lambda: changes.waits(SimpleNamespace(seq=1, done={(0, "x")})),
        "repeat": lambda: changes.repeat([3], []),
    }[change]()
    assert changes
    commit_of(changes, one)
    assert not changes
    one.segment.close()


def test_a_branch_that_has_settled_something_is_noted_once_with_all_that_is_done(tmp_path):
    changes = PendingChanges()
    running = claim_of(5, 1, ["x"], done=[(0, "y")])
    changes.progressed(running)
    changes.progressed(running)
    parked = claim_of(6, 0, ["z"], running=0, parked=True)
    changes.progressed(parked)
    changes.progressed(claim_of(7, 0, ["z"], running=0))  # it is released with this commit
    assert sorted(changes.take_branches()) == [(5, 0, "y"), (5, 1, "x"), (6, 0, "z")]
    assert running.entry.done == {(0, "y"), (1, "x")}
    assert parked.entry.done == {(0, "z")}
    assert changes.take_branches() == []


def test_the_notes_of_several_entries_that_wait_add_up():
    changes = PendingChanges()
    changes.waits(SimpleNamespace(seq=1, done={(0, "x")}))
    changes.waits(SimpleNamespace(seq=2, done={(0, "x")}))
    changes.repeat([], [(3, 0, "x")])
    assert changes.take_branches() == [(1, 0, "x"), (2, 0, "x"), (3, 0, "x")]


def test_releases_of_lost_commits_are_written_again_before_new_ones_that_failed(tmp_path):
    changes, failed, again = PendingChanges(), builder(tmp_path), builder(tmp_path, 2)
    changes.repeat([7], [(8, 0, "x")])
    changes.repeat([9], [])
    failed.branches += changes.take_branches()
    changes.close(failed)
    assert (list(failed.repeated), failed.branches, bool(changes)) == ([7, 9], [(8, 0, "x")], False)
    changes.take_back(failed)
    changes.repeat([10], [(11, 0, "x")])
    changes.released(again.segment, 3)
    commit = commit_of(changes, again)
    assert (list(commit.released), commit.branches) == ([4, 7, 9, 10], [(8, 0, "x"), (11, 0, "x")])
    failed.segment.close()
    again.segment.close()


def test_accounts_and_releases_of_a_failed_commit_come_with_the_next_one(tmp_path):
    changes, failed, again = PendingChanges(), builder(tmp_path), builder(tmp_path, 2)
    one, two = Ledger(("a", "otlp", "")), Ledger(("b", "otlp", ""))
    changes.changed(one)
    changes.released(failed.segment, 4)
    changes.close(failed)
    assert failed.segment.kept == 0
    changes.take_back(failed)
    one.accepted = 7
    changes.changed(two)
    changes.released(failed.segment, 6)
    commit = commit_of(changes, again)
    assert sorted((row[0], row[3]) for row in commit.accounts) == [("a", 7), ("b", 0)]
    assert list(commit.released) == [5, 7]
    failed.segment.close()
    again.segment.close()


def test_the_accounts_on_disk_are_those_of_the_last_commit(tmp_path):
    changes, one, two = PendingChanges(), builder(tmp_path), builder(tmp_path, 2)
    ledger, other = Ledger(("a", "otlp", "")), Ledger(("b", "otlp", ""))
    changes.changed(ledger)
    changes.close(one)
    changes.on_disk(one)
    ledger.accepted = 5
    changes.changed(other)
    changes.close(two)
    changes.on_disk(two)
    assert {key.key[0]: row[3] for key, row in changes.written.items()} == {"a": 0, "b": 0}
    one.segment.kept, two.segment.kept = 5, 5
    three = builder(tmp_path, 3)
    for index in range(2):
        changes.released(one.segment, index)
    changes.released(two.segment, 0)
    changes.close(three)
    changes.on_disk(three)
    assert (one.segment.kept, two.segment.kept) == (3, 4)
    for each in (one, two, three):
        each.segment.close()


def test_exporters_are_remembered_each_second_and_at_the_beginning_of_a_segment(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("otelwp_agent.journal.pending_changes.time", SimpleNamespace(monotonic=lambda: now[0]))
    changes = PendingChanges()
    changes.exporters = lambda: [("jaeger", 5, 3, {}, 2)]
    said_at = []
    for number, (second, size) in enumerate([(0.0, 1), (0.9, 1), (0.95, 0), (1.9, 1), (1.95, 1), (2.9, 1)], 1):
        now[0] = 1000.0 + second
        one = builder(tmp_path, number)
        one.segment.size = size
        changes.close(one)
        if b"jaeger" in b"".join(one.parts):
            said_at.append(second)
        one.segment.close()
    assert said_at == [0.0, 0.95, 1.95]


def test_an_account_is_written_as_it_stands():
    ledger = Ledger(("traces", "otlp", "shop"))
    ledger.accepted = 9
    ledger.settle(Outcome.DROPPED, 2, "timeout")
    row = row_of(ledger)
    ledger.settle(Outcome.DROPPED, 1, "timeout")
    assert row == ("traces", "otlp", "shop", 9, [0, 0, 0, 2], {"timeout": 2})


def test_what_comes_while_a_commit_that_fails_is_written_is_not_lost(tmp_path):
    changes, failed, again = PendingChanges(), builder(tmp_path), builder(tmp_path, 2)
    one, two = Ledger(("a", "otlp", "")), Ledger(("b", "otlp", ""))
    changes.changed(one)
    changes.released(failed.segment, 4)
    changes.repeat([7], [(8, 0, "x")])
    failed.branches += changes.take_branches()
    changes.close(failed)
    changes.changed(two)
    changes.released(failed.segment, 5)
    changes.repeat([9], [(10, 0, "x")])
    changes.take_back(failed)
    commit = commit_of(changes, again)
    assert sorted(row[0] for row in commit.accounts) == ["a", "b"]
    assert list(commit.released) == [5, 6, 7, 9]
    assert sorted(commit.branches) == [(8, 0, "x"), (10, 0, "x")]
    failed.segment.close()
    again.segment.close()
