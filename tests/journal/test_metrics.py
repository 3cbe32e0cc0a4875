import errno
import os

import pytest

from otelwp_agent.errors import Overloaded
from otelwp_agent.journal.metrics import INSTRUMENTS


def value(life, name, **labels):
    return life.registry.value(f"otelwp_journal_{name}", **labels)


async def test_what_is_written_waits_and_is_read_again_is_counted(live, body):
    first = live(max_size="1MiB")
    one, _ = await first.put(body(0), body(1))
    one.settle()
    await first.flush()
    assert (value(first, "appended_entries"), value(first, "entries"), value(first, "commits")) == (2, 1, 2)
    assert value(first, "bytes") == sum(path.stat().st_size for path in first.journal.directory.glob("*.journal"))
    assert value(first, "capacity_bytes") == 2**20
    first.kill()
    second = live()
    assert (value(second, "waiting_entries"), value(second, "replayed_entries")) == (1, 0)
    second.replay()
    assert (value(second, "waiting_entries"), value(second, "replayed_entries")) == (0, 1)
    assert value(second, "entries") == 1


async def test_what_could_not_be_written_is_counted_by_the_request_and_by_the_write(live, body, monkeypatch):
    life = live()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    await life.put(body(0), body(1))
    with pytest.raises(Overloaded):
        await life.put(body(2))
    assert value(life, "refused_entries", reason="journal_unwritable") == 3
    assert (value(life, "write_failures"), value(life, "appended_entries"), value(life, "commits")) == (1, 0, 0)


async def test_every_instrument_is_exposed(live, body):
    life = live()
    await life.put(body(0))
    life.journal._metrics.refused(1, "journal_full")
    text = life.registry.expose()
    assert [each.name for each in INSTRUMENTS if f"\n{each.name}" not in text and not text.startswith(each.name)] == []
    assert 'otelwp_journal_refused_entries{reason="journal_full"} 1\n' in text
    assert "otelwp_journal_commit_duration_seconds_count 1\n" in text


async def test_entries_that_the_disk_does_not_return_are_counted_while_they_wait(live):
    life = live()
    assert value(life, "unreadable_entries") == 0
    life.journal._entry_store.unreadable = {(1, 0): 0.0, (1, 1): 0.0}
    assert value(life, "unreadable_entries") == 2
