from types import SimpleNamespace

import pytest

from otelwp_agent.journal.books import Books, row_of
from otelwp_agent.journal.draft import Draft
from otelwp_agent.journal.records import Commit
from otelwp_agent.journal.segment import Segment
from otelwp_agent.model.receipt import Ledger, Outcome


def draft(tmp_path, number=1):
    segment = Segment.create(tmp_path, number, 1)
    return Draft(segment, {})


def said(written):
    (commit,) = written.segment.scan() if written.segment.size else [None]
    return Commit.decode(commit.payload)


def write(written):
    written.segment.write(written.parts, sync=False)
    written.segment.size = written.end
    return said(written)


def test_what_is_known_is_said_once(tmp_path):
    books, ledger = Books(), Ledger(("traces", "otlp", ""))
    assert not books
    ledger.accepted = 3
    ledger.settle(Outcome.DELIVERED, 2, "")
    books.changed(ledger)
    written = draft(tmp_path)
    written.segment.kept = 1
    books.released(written.segment, 0)
    assert books
    books.close(written)
    commit = write(written)
    books.on_disk(written)
    assert (list(commit.released), [row[3:5] for row in commit.accounts]) == ([1], [(3, [2, 0, 0, 0])])
    assert (bool(books), books.written, written.segment.kept) == (False, {ledger: row_of(ledger)}, 0)
    written.segment.close()


def test_what_could_not_be_written_is_said_again(tmp_path):
    books, ledger = Books(), Ledger(("traces", "otlp", ""))
    failed, again = draft(tmp_path), draft(tmp_path, 2)
    books.changed(ledger)
    books.released(failed.segment, 4)
    books.waits(SimpleNamespace(seq=9, done=frozenset({(0, "jaeger")})))
    failed.branches += books.take_branches()
    books.close(failed)
    assert not books
    books.take_back(failed)
    again.branches += books.take_branches()
    books.close(again)
    commit = write(again)
    assert (list(commit.released), commit.branches, len(commit.accounts)) == ([5], [(9, 0, "jaeger")], 1)
    failed.segment.close()
    again.segment.close()


def test_exporters_are_told_now_and_then_and_when_it_is_asked_for(tmp_path):
    books = Books()
    books.exporters = lambda: [("jaeger", 5, 3, {}, 2)]
    told = []
    for number in range(1, 4):
        one = draft(tmp_path, number)
        one.segment.size = 1  # it has its snapshot
        if number == 3:
            books.tell_exporters()
        books.close(one)
        told.append(b"jaeger" in b"".join(one.parts))
        one.segment.close()
    assert told == [True, False, True]


def test_what_is_done_of_an_entry_while_it_moves_goes_with_it(tmp_path):
    books, moving = Books(), draft(tmp_path)
    moving.branches = [(7, 0, "jaeger")]
    books.waits(SimpleNamespace(seq=5, done={(0, "jaeger")}))
    books.moved(moving, 7, [(0, "jaeger"), (0, "zipkin")])
    assert books.take_branches() == [(5, 0, "jaeger"), (7, 0, "zipkin")]
    moving.segment.close()


def commit_of(books, one):
    one.branches += books.take_branches()
    books.close(one)
    return write(one)


def claim_of(seq, pipeline, branches, *, running=1, parked=False, done=()):
    entry = SimpleNamespace(seq=seq, open=running, parked=parked, done=frozenset(done))
    return SimpleNamespace(entry=entry, pipeline=pipeline, branches_done=lambda: frozenset(branches))


@pytest.mark.parametrize("change", ["changed", "released", "progressed", "waits", "repeat"])
def test_anything_that_is_known_is_worth_a_commit(tmp_path, change):
    books, one = Books(), draft(tmp_path)
    {
        "changed": lambda: books.changed(Ledger()),
        "released": lambda: books.released(one.segment, 0),
        "progressed": lambda: books.progressed(claim_of(1, 0, "x")),
        "waits": lambda: books.waits(SimpleNamespace(seq=1, done={(0, "x")})),
        "repeat": lambda: books.repeat([3], []),
    }[change]()
    assert books
    commit_of(books, one)
    assert not books
    one.segment.close()


def test_a_branch_that_has_settled_something_is_noted_once_with_all_that_is_done(tmp_path):
    books = Books()
    running = claim_of(5, 1, ["x"], done=[(0, "y")])
    books.progressed(running)
    books.progressed(running)
    parked = claim_of(6, 0, ["z"], running=0, parked=True)
    books.progressed(parked)
    books.progressed(claim_of(7, 0, ["z"], running=0))  # it is released with this commit
    assert sorted(books.take_branches()) == [(5, 0, "y"), (5, 1, "x"), (6, 0, "z")]
    assert running.entry.done == {(0, "y"), (1, "x")}
    assert parked.entry.done == {(0, "z")}
    assert books.take_branches() == []


def test_the_notes_of_several_entries_that_wait_add_up():
    books = Books()
    books.waits(SimpleNamespace(seq=1, done={(0, "x")}))
    books.waits(SimpleNamespace(seq=2, done={(0, "x")}))
    books.repeat([], [(3, 0, "x")])
    assert books.take_branches() == [(1, 0, "x"), (2, 0, "x"), (3, 0, "x")]


def test_releases_of_lost_commits_are_written_again_before_new_ones_that_failed(tmp_path):
    books, failed, again = Books(), draft(tmp_path), draft(tmp_path, 2)
    books.repeat([7], [(8, 0, "x")])
    books.repeat([9], [])
    failed.branches += books.take_branches()
    books.close(failed)
    assert (list(failed.repeated), failed.branches, bool(books)) == ([7, 9], [(8, 0, "x")], False)
    books.take_back(failed)
    books.repeat([10], [(11, 0, "x")])
    books.released(again.segment, 3)
    commit = commit_of(books, again)
    assert (list(commit.released), commit.branches) == ([4, 7, 9, 10], [(8, 0, "x"), (11, 0, "x")])
    failed.segment.close()
    again.segment.close()


def test_accounts_and_releases_of_a_failed_commit_come_with_the_next_one(tmp_path):
    books, failed, again = Books(), draft(tmp_path), draft(tmp_path, 2)
    one, two = Ledger(("a", "otlp", "")), Ledger(("b", "otlp", ""))
    books.changed(one)
    books.released(failed.segment, 4)
    books.close(failed)
    assert failed.segment.kept == 0
    books.take_back(failed)
    one.accepted = 7
    books.changed(two)
    books.released(failed.segment, 6)
    commit = commit_of(books, again)
    assert sorted((row[0], row[3]) for row in commit.accounts) == [("a", 7), ("b", 0)]
    assert list(commit.released) == [5, 7]
    failed.segment.close()
    again.segment.close()


def test_the_accounts_on_disk_are_those_of_the_last_commit(tmp_path):
    books, one, two = Books(), draft(tmp_path), draft(tmp_path, 2)
    ledger, other = Ledger(("a", "otlp", "")), Ledger(("b", "otlp", ""))
    books.changed(ledger)
    books.close(one)
    books.on_disk(one)
    ledger.accepted = 5
    books.changed(other)
    books.close(two)
    books.on_disk(two)
    assert {key.key[0]: row[3] for key, row in books.written.items()} == {"a": 0, "b": 0}
    one.segment.kept, two.segment.kept = 5, 5
    three = draft(tmp_path, 3)
    for index in range(2):
        books.released(one.segment, index)
    books.released(two.segment, 0)
    books.close(three)
    books.on_disk(three)
    assert (one.segment.kept, two.segment.kept) == (3, 4)
    for each in (one, two, three):
        each.segment.close()


def test_exporters_are_remembered_each_second_and_at_the_beginning_of_a_segment(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("otelwp_agent.journal.books.time", SimpleNamespace(monotonic=lambda: now[0]))
    books = Books()
    books.exporters = lambda: [("jaeger", 5, 3, {}, 2)]
    said_at = []
    for number, (second, size) in enumerate([(0.0, 1), (0.9, 1), (0.95, 0), (1.9, 1), (1.95, 1), (2.9, 1)], 1):
        now[0] = 1000.0 + second
        one = draft(tmp_path, number)
        one.segment.size = size
        books.close(one)
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
    books, failed, again = Books(), draft(tmp_path), draft(tmp_path, 2)
    one, two = Ledger(("a", "otlp", "")), Ledger(("b", "otlp", ""))
    books.changed(one)
    books.released(failed.segment, 4)
    books.repeat([7], [(8, 0, "x")])
    failed.branches += books.take_branches()
    books.close(failed)
    books.changed(two)
    books.released(failed.segment, 5)
    books.repeat([9], [(10, 0, "x")])
    books.take_back(failed)
    commit = commit_of(books, again)
    assert sorted(row[0] for row in commit.accounts) == ["a", "b"]
    assert list(commit.released) == [5, 6, 7, 9]
    assert sorted(commit.branches) == [(8, 0, "x"), (10, 0, "x")]
    failed.segment.close()
    again.segment.close()
