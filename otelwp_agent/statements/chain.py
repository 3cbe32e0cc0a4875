"""Verify the statements of a file: each signature and figure, and that none is missing, repeated or out of order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otelwp_agent.statements.signing import digest, verify_statement
from otelwp_agent.statements.statement import DeliveryStatement, StatementError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_MOST_NUMBERS = 10
"""Missing numbers that a message lists."""


@dataclass(slots=True)
class SignedStatement:
    """A statement with a valid signature, its text and its place in the file."""

    place: str
    text: str
    statement: DeliveryStatement


@dataclass(slots=True)
class Chain:
    """The statements of one tenant and one agent, in the order of the file."""

    agent: str
    tenant: str
    statements: list[SignedStatement] = field(default_factory=list)

    @property
    def numbers(self) -> list[int]:
        """Their sequence numbers."""
        return [each.statement.sequence for each in self.statements]

    @property
    def last(self) -> DeliveryStatement:
        """The one with the largest number."""
        return max((each.statement for each in self.statements), key=lambda each: each.sequence)

    def problems(self, first: int, last: int | None, until: float | None) -> Iterator[str]:
        """Yield messages about everything that is wrong with it as a whole."""
        name = f"tenant {self.tenant}, agent {self.agent}"
        numbers = self.numbers
        top = max([*numbers, last or 0])
        missing = sorted(set(range(first, top + 1)) - set(numbers))
        if missing:
            shown = ", ".join(map(str, missing[:_MOST_NUMBERS])) + (" …" if len(missing) > _MOST_NUMBERS else "")
            yield f"{name}: {len(missing)} missing: {shown}"
        if until is not None and self.last.end < until:
            yield f"{name}: the last statement ends at {self.last.end}, before the given time {until}: some are missing"
        by_number: dict[int, SignedStatement] = {}
        before = 0
        for each in self.statements:
            number = each.statement.sequence
            if number in by_number:
                what = "is repeated" if by_number[number].text == each.text else "contradicts another of this number"
                yield f"{each.place}: statement {number} of {name} {what}"
                continue
            if number < before:
                yield f"{each.place}: statement {number} of {name} is out of order: it follows {before}"
            before = max(before, number)
            by_number[number] = each
        for number, each in sorted(by_number.items()):
            yield from _link_problems(each, by_number.get(number - 1), name)


@dataclass(slots=True)
class ChainReport:
    """The result of a verification."""

    chains: list[Chain] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def verify_chains(
    texts: Iterable[tuple[str, str]],
    keys: Mapping[str, str],
    *,
    first: int = 1,
    last: int | None = None,
    until: float | None = None,
) -> ChainReport:
    """Verify statements, given as (place in the file, text), with `keys` (public keys by id).

    Each tenant must have the statements from number `first` on, up to `last` and to the time `until` if these are
    given. Without them, statements that are missing at the end cannot be noticed.
    """
    report = ChainReport()
    chains: dict[tuple[str, str], Chain] = {}
    for place, text in texts:
        try:
            statement = verify_statement(text, keys)
        except StatementError as error:
            report.problems.append(f"{place}: {error}")
            continue
        key = (statement.agent, statement.tenant)
        chains.setdefault(key, Chain(*key)).statements.append(SignedStatement(place, text, statement))
        report.problems += [f"{place}: {problem}" for problem in statement.problems()]
    report.chains = [chains[key] for key in sorted(chains)]
    for chain in report.chains:
        report.problems += chain.problems(first, last, until)
    if not report.chains and not report.problems:
        report.problems.append("there are no statements")
    return report


def statements_in(data: str, name: str) -> Sequence[tuple[str, str]]:
    """Return the statements in a file with one in each line, as (place, text)."""
    lines = enumerate(data.splitlines(), start=1)
    return [(f"{name}, line {number}", line.strip()) for number, line in lines if line.strip()]


def _link_problems(each: SignedStatement, before: SignedStatement | None, name: str) -> Iterator[str]:
    statement = each.statement
    what = f"{each.place}: statement {statement.sequence} of {name}"
    if statement.sequence == 1 and statement.previous:
        yield f"{what} is the first one, but names one before it"
    if before is None:
        return
    if statement.previous != digest(before.text):
        yield f"{what} does not follow the one before it: another statement {statement.sequence - 1} was replaced"
    yield from (f"{what}: {problem}" for problem in statement.problems_after(before.statement))
