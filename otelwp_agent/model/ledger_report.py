"""Report of `otelwp-agent audit`: every ledger as a line, and whether its equation holds.

`accepted = delivered + sampled_out + filtered + dropped + in_flight`; of the dropped items, those kept as dead letters
are reported apart from those that are lost. Each figure is counted separately: `in_flight` is
not calculated from the others where it can be measured, because the equation would then hold by definition.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from otelwp_agent.model.receipt import kept_as_dead_letter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Kind = Literal["pipeline", "receiver", "tenant", "exporter"]
KINDS: tuple[Kind, ...] = ("pipeline", "receiver", "tenant", "exporter")
"""Kinds of ledgers, in the order in which they are shown."""

FIGURES = ("accepted", "delivered", "sampled_out", "filtered", "dropped", "in_flight")
"""Terms of the equation, beginning with the sum."""


@dataclass(slots=True)
class LedgerLine:
    """One ledger, in items (spans, data points, log records). For an exporter, `accepted` is by its queue."""

    kind: Kind
    name: str
    accepted: int = 0
    delivered: int = 0
    sampled_out: int = 0
    filtered: int = 0
    dropped: int = 0
    in_flight: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    """Dropped items by reason; the reasons of items that are kept as dead letters begin with `DEAD_LETTER`."""

    @property
    def kept(self) -> int:
        """Number of dropped items that are kept as dead letters."""
        return kept_as_dead_letter(self.reasons)

    @property
    def balance(self) -> int:
        """Number of items that are missing (above 0) or too many (below 0); 0 if the equation holds."""
        return self.accepted - self.delivered - self.sampled_out - self.filtered - self.dropped - self.in_flight

    def problems(self) -> list[str]:
        """Return messages for all errors in the figures."""
        what = f"{self.kind} {self.name or '(none)'}"
        found = []
        if self.balance > 0:
            found.append(f"{what}: {self.balance} items are missing: accepted, but neither settled nor in flight")
        elif self.balance < 0:
            found.append(f"{what}: {-self.balance} more items are settled or in flight than were accepted")
        negative = [figure for figure in FIGURES if getattr(self, figure) < 0]
        found += [f"{what}: {figure} is below 0 ({getattr(self, figure)})" for figure in negative]
        explained = sum(self.reasons.values())
        if explained != self.dropped:
            found.append(f"{what}: {self.dropped} items are dropped, but {explained} have a reason")
        return found

    def add(self, other: LedgerLine) -> None:
        """Add the figures of another ledger."""
        for figure in FIGURES:
            setattr(self, figure, getattr(self, figure) + getattr(other, figure))
        for reason, items in other.reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + items


@dataclass(slots=True)
class Report:
    """All ledgers of one agent, or of one journal."""

    lines: list[LedgerLine] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Problems in addition to those of the lines (`LedgerLine.problems`)."""
    source: str = ""
    """Description of the audited agent or journal."""

    def all_problems(self) -> list[str]:
        """Return the problems of all lines, and those of the report itself."""
        return [problem for line in self.lines for problem in line.problems()] + self.problems

    @property
    def balances(self) -> bool:
        """Whether there are no problems."""
        return not self.all_problems()

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data, with all problems, and of each line the balance and the items kept."""
        return {
            "source": self.source,
            "balances": self.balances,
            "lines": [{**asdict(line), "kept": line.kept, "balance": line.balance} for line in self.lines],
            "problems": self.all_problems(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Report:
        """Return a report from the data of `to_json`; raise `ValueError` if the data is invalid."""
        try:
            lines = [_line(line) for line in data["lines"]]
            of_lines = {problem for line in lines for problem in line.problems()}
            problems = [str(problem) for problem in data["problems"] if problem not in of_lines]
            return cls(lines, problems, str(data.get("source", "")))
        except (KeyError, TypeError, AttributeError) as error:
            message = f"this is not an audit report: {error!r}"
            raise ValueError(message) from error


def totals(kind: Kind, lines: Iterable[LedgerLine]) -> list[LedgerLine]:
    """Return the sums of lines with the same name, as lines of `kind`, in the order of their names."""
    sums: dict[str, LedgerLine] = {}
    for line in lines:
        sums.setdefault(line.name, LedgerLine(kind, line.name)).add(line)
    return [sums[name] for name in sorted(sums)]


def _line(data: Mapping[str, Any]) -> LedgerLine:
    if data["kind"] not in KINDS:
        message = f"this is not an audit report: unknown kind of ledger {data['kind']!r}"
        raise ValueError(message)
    line = LedgerLine(data["kind"], str(data["name"]))
    for figure in FIGURES:
        setattr(line, figure, int(data[figure]))
    line.reasons = {str(reason): int(items) for reason, items in data["reasons"].items()}
    return line
