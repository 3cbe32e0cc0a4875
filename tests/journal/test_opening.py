import errno
import os
from collections import Counter
from pathlib import Path

import pytest

from otelwp_agent.at_rest.errors import FileKeyError
from otelwp_agent.errors import StartError
from otelwp_agent.journal import opening, records
from otelwp_agent.journal.recovery import Recovered
from otelwp_agent.journal.segment import Segment
from otelwp_agent.model.ledgers import Ledgers
from otelwp_agent.model.receipt import Outcome
from tests.journal.conftest import KEYS

KEY = ("traces", "otlp", "shop")


def recovered(accepted, settled, live, reasons=None):
    return Recovered(accounts={KEY: (*KEY, accepted, settled, reasons or {})}, live=Counter({KEY: live}))


@pytest.mark.parametrize("why", ["is a file", "is read-only"])
def test_a_directory_that_cannot_be_used_is_told(tmp_path, why, monkeypatch):
    directory = tmp_path / "journal"
    if why == "is a file":
        directory.write_text("")
    else:
        monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(OSError(errno.EROFS, "Read-only file system")))
    with pytest.raises(StartError, match=r"service\.journal\.directory: cannot use .*journal: "):
        opening.take(directory)


def test_a_directory_has_one_agent_at_a_time(tmp_path):
    lock, found = opening.take(tmp_path / "made" / "journal")
    assert found.segments == []
    with pytest.raises(StartError) as error:
        opening.take(tmp_path / "made" / "journal")
    directory = tmp_path / "made" / "journal"
    assert str(error.value) == (
        f"service.journal.directory: another agent is using {directory}: give each agent its own"
    )
    os.close(lock)
    os.close(opening.take(tmp_path / "made" / "journal")[0])


@pytest.mark.parametrize(
    ("live", "told", "accepted", "dropped"),
    [(4, (0, 0), 10, 1), (1, (3, 0), 10, 4), (6, (0, 2), 12, 1)],
    ids=["it fits", "entries are missing", "entries come again"],
)
def test_accounts_are_put_where_the_entries_say(live, told, accepted, dropped):
    ledgers = Ledgers()
    found = opening.put_right(recovered(10, [5, 0, 0, 1], live, {"malformed": 1}), ledgers)
    ledger = ledgers.get(*KEY)
    assert (found, ledger.accepted, ledger.settled[Outcome.DROPPED]) == (told, accepted, dropped)
    assert ledger.in_flight == live
    assert sum(ledger.dropped_reasons.values()) == dropped


def account(pipeline, accepted, live):
    return (pipeline, "otlp", ""), (pipeline, "otlp", "", accepted, [0, 0, 0, 0], {}), live


def test_damage_is_summed_up_over_all_accounts_and_named_as_the_reason():
    rows = [account("a", 3, 2), account("b", 5, 0), account("c", 4, 4), account("d", 1, 2), account("e", 1, 4)]
    found = Recovered(accounts={key: row for key, row, _ in rows}, live=Counter({key: live for key, _, live in rows}))
    ledgers = Ledgers()
    assert opening.put_right(found, ledgers) == (6, 4)
    assert {ledger.key[0]: ledger.dropped_reasons for ledger in ledgers} == {
        "a": {"journal_damaged": 1}, "b": {"journal_damaged": 5}, "c": {}, "d": {}, "e": {}
    }  # fmt: skip
    assert {ledger.key[0]: ledger.accepted for ledger in ledgers} == {"a": 3, "b": 5, "c": 4, "d": 2, "e": 4}


def test_an_account_is_independent_of_what_was_read():
    found = recovered(10, [5, 0, 0, 1], 4, {"malformed": 1})
    ledgers = Ledgers()
    opening.put_right(found, ledgers)
    ledgers.get(*KEY).settle(Outcome.DROPPED, 1, "malformed")
    assert found.accounts[KEY][3:] == (10, [5, 0, 0, 1], {"malformed": 1})


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_directory_that_cannot_be_used_stays_open_nowhere(tmp_path, monkeypatch):
    def broken(_, keys):
        raise OSError("the disk is gone")

    held, _ = opening.take(tmp_path / "journal")
    before = open_files()
    with pytest.raises(StartError, match="another agent is using"):
        opening.take(tmp_path / "journal")
    assert open_files() == before
    os.close(held)
    monkeypatch.setattr(opening, "read_directory", broken)
    with pytest.raises(StartError, match=r"cannot use .*: the disk is gone$"):
        opening.take(tmp_path / "journal")
    assert open_files() == before - 1
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"cannot use .*: (File exists|Not a directory)$"):
        opening.take(tmp_path / "file")


async def test_a_torn_last_write_is_cut_off(live, body):
    first = live()
    await first.put(body(0))
    first.kill()
    path = first.journal._entry_store.segments[-1].path
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"torn")
    held, found = opening.take(first.journal.directory, KEYS)
    assert (path.stat().st_size, found.segments[-1].size, found.torn) == (size, size, 4)
    found.close()
    os.close(held)


async def test_no_file_stays_open_if_a_torn_last_write_cannot_be_cut_off(live, body, monkeypatch):
    def read_only(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    first = live()
    await first.put(body(0))
    first.journal._store.current = None
    await first.put(body(1))
    first.kill()
    segments = first.journal._entry_store.segments
    assert len(segments) == 2
    with segments[-1].path.open("ab") as file:
        file.write(b"torn")
    monkeypatch.setattr(Segment, "cut", read_only)
    before = open_files()
    with pytest.raises(StartError, match=r"cannot use .*: Read-only file system$"):
        opening.take(first.journal.directory, KEYS)
    assert open_files() == before


def test_a_directory_whose_key_is_missing_is_not_opened_and_stays_open_nowhere(tmp_path):
    directory = tmp_path / "journal"
    directory.mkdir()
    segment = Segment.create(directory, 1, 1, KEYS)
    segment.write(records.other(segment.marker, records.RecordKind.KEY, segment.data_key), sync=False)
    segment.close()
    before = open_files()
    with pytest.raises(StartError) as error:
        opening.take(directory)
    assert open_files() == before
    assert str(error.value) == (
        f"service.journal.encryption: {FileKeyError(segment.path.name, KEYS.ids, ())}. Nothing was changed: the "
        f"requests in {directory} wait for it"
    )
    held, found = opening.take(directory, KEYS)
    found.close()
    os.close(held)
