"""What a journal yields when entries that wait are read again, and what it does with those that cannot be read."""

import errno
import os

from structlog.testing import capture_logs

from otelwp_agent.journal import entry_store


async def test_others_have_their_turn_while_entries_that_cannot_be_fed_are_passed(live, body, monkeypatch):
    monkeypatch.setattr(entry_store, "GLANCES", 2)
    first = live()
    await first.put(*[body(number) for number in range(5)], pipelines=("full",))
    await first.put(body(5), pipelines=("free",))
    first.kill()
    found = list(live().journal.replays(lambda context, _: context.pipelines == ("free",)))
    assert [replay and replay[1].body() for replay in found] == [None, None, body(5)]


async def test_an_entry_that_the_disk_does_not_return_is_reported_and_waits(live, body, monkeypatch):
    first = live()
    await first.put(body(0))
    first.kill()
    second = live()

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(os, "pread", broken)
        assert second.replay() == []
    assert [line["event"] for line in logs] == ["journal cannot be read; entries wait"]
    assert (second.journal.entries, second.journal.waiting) == (1, 1)
    assert second.journal.health().message == "1 entries cannot be read: check the disk"
