"""What the loop of commits does beyond writing: see test_journal.py for that."""

import pytest

from otelwp_agent.errors import Overloaded
from otelwp_agent.journal import commits
from otelwp_agent.journal.segments import SegmentStore
from tests.kit.graphs import until


async def test_a_check_that_is_due_during_a_write_follows_it(live, body, monkeypatch):
    life = live()
    checked = []
    monkeypatch.setattr(
        SegmentStore, "find_displaced", lambda _: checked.append(life.journal._commits.builder) or False
    )
    submit = life.journal._commits._writer.submit

    def check_meanwhile(work, done):
        life.journal._commits._on_check()
        submit(work, done)

    monkeypatch.setattr(life.journal._commits._writer, "submit", check_meanwhile)
    await life.put(body(0))
    assert checked == [None]


async def test_checks_end_with_the_journal(live, body, monkeypatch):
    monkeypatch.setattr(commits, "CHECK_INTERVAL", 0.01)
    life = live()
    checked = []
    monkeypatch.setattr(SegmentStore, "find_displaced", lambda _: checked.append(1) or False)
    life.journal.start()
    await until(lambda: len(checked) > 1)
    await life.journal.close()
    assert life.journal._commits._check is None
    with pytest.raises(Overloaded, match="shutting down"):
        life.journal.admit()
