"""Files of a running journal that disappear: nothing is acknowledged into them, and what they held is kept."""

import asyncio
import os
import shutil

import pytest
from structlog.testing import capture_logs

from otelwp_agent.journal import commits, segments
from otelwp_agent.journal.audit import audit_directory
from otelwp_agent.model.receipt import Outcome
from tests.journal.conftest import KEYS, open_files
from tests.kit.graphs import until


def remove_directory(directory):
    shutil.rmtree(directory)


def remove_segments(directory):
    for path in directory.glob("*.journal"):
        path.unlink()


def move_directory(directory):
    directory.rename(directory.with_name("moved"))


def replace_directory(directory):
    move_directory(directory)
    directory.mkdir()


def replace_by_copy(directory):
    move_directory(directory)
    shutil.copytree(directory.with_name("moved"), directory)


LOSSES = [remove_directory, remove_segments, move_directory, replace_directory, replace_by_copy]


@pytest.fixture
def log():
    with capture_logs() as lines:
        yield lines


def errors(log):
    return [line["event"] for line in log if line["log_level"] == "error"]


@pytest.mark.parametrize("lose", LOSSES)
async def test_nothing_is_acknowledged_into_files_that_disappeared_and_nothing_before_is_lost(live, body, lose, log):
    first = live()
    settled, *_ = await first.put(body(0), body(1), body(2))
    settled.settle()
    await first.flush()
    lose(first.journal.directory)
    (request,) = await first.put(body(3))
    assert request.entry is not None
    await first.flush()
    assert "removed or replaced" in errors(log)[0]
    assert "removed or replaced" in first.journal.health().message
    assert first.registry.value("otelwp_journal_displaced_segments") == 1
    first.kill()
    second = live()
    assert sorted(second.bodies()) == [body(1), body(2), body(3)]
    assert second.sums() == (8, [2, 0, 0, 0], 6)
    assert second.recovered.missing == 0
    second.kill()
    assert audit_directory(second.journal.directory, KEYS).all_problems() == []


@pytest.mark.parametrize("lose", LOSSES)
async def test_it_is_noticed_within_a_second_when_nothing_is_written(live, body, lose, log, monkeypatch):
    monkeypatch.setattr(commits, "CHECK_INTERVAL", 0.02)
    life = live()
    await life.put(body(0))
    life.journal.start()
    lose(life.journal.directory)
    await until(lambda: not life.journal._store.must_copy and errors(log))
    await life.flush()
    life.kill()
    assert live().bodies() == [body(0)]


async def test_an_older_segment_that_disappears_is_copied(live, log):
    life = live(max_size="4MiB")
    bodies = [bytes([number]) * 100_000 for number in range(8)]
    requests = [(await life.put(each))[0] for each in bodies]
    requests[6].settle()
    requests[5].claims[0].receipt.fork(["a", "b"])[0].settle(Outcome.DELIVERED, 2)
    await life.flush()
    paths = sorted(life.journal.directory.glob("*.journal"))
    assert len(paths) > 2
    paths[0].unlink()
    paths[1].unlink()
    assert life.journal._store.find_displaced()
    await life.flush()
    await until(lambda: not life.journal._store.must_copy)
    assert not life.journal._store.find_displaced()
    life.kill()
    second = live(max_size="4MiB")
    replays = second.replay()
    assert {record.body(): entry.done for entry, record, _ in replays} == {
        each: frozenset({(0, "a")} if number == 5 else ()) for number, each in enumerate(bodies) if number != 6
    }
    assert len(errors(log)) == 1


async def test_releases_in_a_segment_that_disappears_are_repeated(live, log):
    """Else what was settled before would be delivered once more after a restart."""
    life = live(max_size="4MiB")
    bodies = [bytes([number]) * 100_000 for number in range(4)]
    requests = [(await life.put(each))[0] for each in bodies]
    requests[1].settle()
    await life.flush()  # the release is in the newest segment, the entry in the oldest
    newest = life.journal._store.current
    assert requests[1].entry.segment is not newest
    newest.path.unlink()
    await life.flush()
    await until(lambda: not life.journal._store.must_copy)
    life.kill()
    second = live(max_size="4MiB")
    assert sorted(second.bodies()) == [bodies[number] for number in (0, 2, 3)]
    assert second.sums() == (8, [2, 0, 0, 0], 6)
    assert len(errors(log)) == 1


async def test_senders_are_refused_while_the_directory_cannot_be_created_again(live, body, tmp_path, log):
    life = live()
    await life.put(body(0))
    shutil.rmtree(life.journal.directory)
    life.journal.directory.write_text("a file in its place")
    (request,) = await life.put(body(1))
    assert (request.entry, request.error.reason) == (None, "journal_unwritable")
    assert "cannot be written" in life.journal.health().message
    life.journal.directory.unlink()
    life.journal._failure.refuse_until = 0.0
    (request,) = await life.put(body(2))
    assert request.entry is not None
    await until(lambda: not life.journal._store.must_copy)
    life.kill()
    assert sorted(live().bodies()) == [body(0), body(2)]


async def test_copying_is_tried_again_each_second_when_no_request_arrives(live, body, monkeypatch, log):
    monkeypatch.setattr(commits, "CHECK_INTERVAL", 0.02)
    life = live()
    await life.put(body(0))
    shutil.rmtree(life.journal.directory)
    life.journal.directory.write_text("a file in its place")
    life.journal.start()
    await until(lambda: life.journal.failure)
    life.journal.directory.unlink()
    await until(lambda: not life.journal._store.must_copy)
    await life.journal.close()
    assert live().bodies() == [body(0)]


async def test_the_segments_of_another_journal_are_not_mixed_with_ours(live, body, log):
    life = live()
    await life.put(body(0))
    replace_directory(life.journal.directory)
    foreign = life.journal.directory / "0000000001-0123456789abcdef.journal"
    foreign.write_bytes(b"")
    (request,) = await life.put(body(1))
    assert "now holds another journal (0000000001-0123456789abcdef.journal)" in str(request.error)
    foreign.unlink()
    life.journal._failure.refuse_until = 0.0
    (request,) = await life.put(body(1))
    assert request.entry is not None


async def test_a_directory_that_another_agent_has_taken_refuses_senders(live, body, log):
    life = live()
    await life.put(body(0))
    move_directory(life.journal.directory)
    other = live()
    (request,) = await life.put(body(1))
    assert request.entry is None
    other.kill()


async def test_a_segment_that_disappears_again_and_again_refuses_senders(live, body, monkeypatch, log):
    life = live()

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", lambda _: remove_segments(life.journal.directory))
        async with asyncio.timeout(60):
            (request,) = await life.put(body(1))
    assert request.entry is None
    life.journal._failure.refuse_until = 0.0
    (request,) = await life.put(body(2))
    assert request.entry is not None


async def test_entries_that_cannot_be_copied_are_reported_and_still_delivered(live, body, monkeypatch, log):
    life = live()
    (request,) = await life.put(body(0))
    remove_segments(life.journal.directory)

    def broken(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", broken)
        await life.put(body(1))
        await until(lambda: not life.journal._store.must_copy)
    assert "journal entries cannot be copied; they exist in memory only" in errors(log)
    request.settle()
    await life.flush()
    assert life.journal.live() == {("traces", "otlp", ""): 2}


async def test_a_directory_that_cannot_be_checked_is_reported(live, body, monkeypatch, log):
    life = live()
    await life.put(body(0))

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", denied)
        assert not life.journal._store.find_displaced()
        (request,) = await life.put(body(1))
        assert request.entry is None, "nobody can tell whether the file is still there"
    assert errors(log)[0] == "journal directory cannot be checked"


async def test_a_directory_that_has_not_changed_is_not_listed_again(live, body, monkeypatch):
    life = live()
    await life.put(body(0))
    store = life.journal._store
    monkeypatch.setattr(segments, "SETTLED_SECONDS", -1.0)
    store.find_displaced()
    seen = []
    monkeypatch.setattr(store, "_not_in_place", lambda: seen.append(1) or [])
    store.find_displaced()
    assert not seen
    (life.journal.directory / "x").touch()
    store.find_displaced()
    assert seen


async def test_a_new_directory_gets_mark_and_reserve_and_the_old_one_is_unlocked(live, body, log):
    life = live()
    await life.put(body(0))
    replace_directory(life.journal.directory)
    moved = life.journal.directory.with_name("moved")
    await life.put(body(1))
    await until(lambda: not life.journal._store.must_copy)
    assert {path.name for path in life.journal.directory.iterdir()} >= {"mark", "reserve"}
    assert str(moved) not in open_files(moved)
    assert str(moved / "mark") not in open_files(moved)
    assert str(life.journal.directory) in open_files(life.journal.directory)


async def test_a_directory_with_another_journal_is_not_kept_open(live, body, log):
    life = live()
    await life.put(body(0))
    replace_directory(life.journal.directory)
    foreign = life.journal.directory / "0000000001-0123456789abcdef.journal"
    foreign.write_bytes(b"")
    (request,) = await life.put(body(1))
    assert str(request.error) == (
        f"the journal cannot be written: {life.journal.directory} now holds another journal ({foreign.name}): "
        "move it away, or restart the agent to read it"
    )
    assert open_files(life.journal.directory) == []
    foreign.unlink()


async def two_segments(life, body):
    """Write an entry to each of two segments, then settle the first; return the segments."""
    (settled,) = await life.put(body(0))
    first = life.journal._store.current
    await life.put(body(1))
    life.journal._store.current = None
    await life.put(body(2))
    settled.settle()
    await life.flush()
    return first, life.journal._store.current


async def test_segments_that_disappear_one_after_another_are_all_copied(live, body, log):
    life = live()
    for segment in await two_segments(life, body):
        segment.path.unlink()
        assert life.journal._store.find_displaced()
    await life.flush()
    await until(lambda: not life.journal._store.must_copy)
    life.kill()
    assert live().bodies() == [body(1), body(2)]


async def test_sums_may_differ_from_the_segment_before_if_one_between_them_disappeared(live, body, log):
    life = live()
    _, newest = await two_segments(life, body)
    newest.path.unlink()
    await life.put(body(3))
    await until(lambda: not life.journal._store.must_copy)
    life.kill()
    assert audit_directory(life.journal.directory, KEYS).all_problems() == []
