import errno
import os
from collections import Counter

import pytest

from otelwp_agent.errors import StartError
from otelwp_agent.journal import opening
from otelwp_agent.journal.recovery import Recovered
from otelwp_agent.model.ledgers import Ledgers
from otelwp_agent.model.receipt import Outcome

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
    with pytest.raises(StartError, match="another agent is using"):
        opening.take(tmp_path / "made" / "journal")
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
