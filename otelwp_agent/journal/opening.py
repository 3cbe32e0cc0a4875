"""Lock and read a journal's directory, and correct the ledgers by its entries."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from otelwp_agent.at_rest.errors import FileKeyError, SealedDataError
from otelwp_agent.errors import StartError
from otelwp_agent.journal.recovery import read_directory
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.storage import files

if TYPE_CHECKING:
    from pathlib import Path

    from otelwp_agent.at_rest.keys import StorageKeys
    from otelwp_agent.journal.recovery import Recovered
    from otelwp_agent.model.ledgers import Ledgers


def take(directory: Path, keys: StorageKeys | None = None) -> tuple[int, Recovered]:
    """Open, lock and read a directory, encrypted segments with `keys`; raises `StartError`.

    Closing the descriptor unlocks it.
    """
    held = -1
    try:
        files.make_directory(directory)
        held = lock(directory)
        recovered = read_directory(directory, keys=keys)
        if recovered.torn:  # after the next write it would look like damage
            _cut(recovered)
    except (FileKeyError, SealedDataError) as error:
        files.close(held)
        raise StartError(
            f"service.journal.encryption: {error}. Nothing was changed: the requests in {directory} wait for it"
        ) from error
    except OSError as error:
        if held >= 0:
            files.close(held)
        if isinstance(error, BlockingIOError):
            raise StartError(
                f"service.journal.directory: another agent is using {directory}: give each agent its own"
            ) from error
        raise StartError(f"service.journal.directory: cannot use {directory}: {error.strerror or error}") from error
    return held, recovered


def lock(directory: Path) -> int:
    """Open and lock a directory; raises `OSError`, `BlockingIOError` if another process has it."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        files.close(fd)
        raise
    return fd


def _cut(recovered: Recovered) -> None:
    try:
        recovered.segments[-1].cut(recovered.torn)
    except OSError:
        recovered.close()
        raise


def put_right(recovered: Recovered, ledgers: Ledgers) -> tuple[int, int]:
    """Set the accounts to what was read.

    Returns the items that damage has cost, which are dropped now, and those that had been settled and will be again,
    because the record of it is damaged.
    """
    for pipeline, receiver, tenant, accepted, settled, reasons in recovered.accounts.values():
        ledger = ledgers.get(pipeline, receiver, tenant)
        ledger.accepted, ledger.settled, ledger.dropped_reasons = accepted, list(settled), dict(reasons)
    lost = again = 0
    for ledger in list(ledgers):
        missing = ledger.in_flight - recovered.live[ledger.key]
        if missing > 0:
            ledger.settle(Outcome.DROPPED, missing, "journal_damaged")
            lost += missing
        elif missing < 0:
            ledger.accepted -= missing
            again -= missing
    return lost, again
