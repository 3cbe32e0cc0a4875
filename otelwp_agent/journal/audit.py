"""Audit a journal on disk: compare the sums in its ledgers with its entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.journal.recovery import read_directory
from otelwp_agent.model.ledger_report import KINDS, LedgerLine, Report, totals
from otelwp_agent.model.receipt import Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from otelwp_agent.at_rest.keys import StorageKeys
    from otelwp_agent.journal.recovery import Recovered


def audit_directory(directory: Path, keys: StorageKeys | None = None) -> Report:
    """Return the ledgers of a journal, and every inconsistency. Raises `OSError` and the errors of `read_directory`.

    An agent may use the directory at the same time: its last write may look unfinished.
    """
    recovered = read_directory(directory, write=False, keys=keys)
    try:
        report = report_of(recovered)
        report.source = _source(recovered, directory)
        return report
    finally:
        recovered.close()


def report_of(recovered: Recovered) -> Report:
    """Return the ledgers of a journal that was read, and every inconsistency."""
    lines: list[LedgerLine] = []
    for place, kind in enumerate(KINDS[:3]):
        accounts = [
            LedgerLine(
                kind,
                key[place],
                accepted=accepted,
                delivered=settled[Outcome.DELIVERED],
                sampled_out=settled[Outcome.SAMPLED_OUT],
                filtered=settled[Outcome.FILTERED],
                dropped=settled[Outcome.DROPPED],
                in_flight=recovered.live[key],
                reasons=dict(reasons),
            )
            for key, (*_, accepted, settled, reasons) in recovered.accounts.items()
        ]
        accounts += [
            LedgerLine(kind, key[place], in_flight=items)
            for key, items in recovered.live.items()
            if key not in recovered.accounts
        ]
        lines += totals(kind, accounts)
    lines += [
        LedgerLine(
            "exporter",
            name,
            accepted=taken,
            delivered=delivered,
            dropped=sum(reasons.values()),
            in_flight=held,
            reasons=dict(reasons),
        )
        for name, taken, delivered, reasons, held in recovered.exporters
    ]
    problems = [
        f"{path.name}: {damage.length} bytes from offset {damage.offset} are damaged"
        for path, damage in recovered.damage
    ]
    problems += recovered.problems
    if recovered.missing:
        problems.append(f"the end of the journal is missing: up to {recovered.missing} acknowledged requests are lost")
    return Report(lines, problems)


def _source(recovered: Recovered, directory: Path) -> str:
    """Return a description of a journal that was read."""
    source = f"journal {directory}, {recovered.entries} requests not settled"
    if recovered.torn:
        source += f", a last write of {recovered.torn} bytes cut off (it was not acknowledged)"
    return source
