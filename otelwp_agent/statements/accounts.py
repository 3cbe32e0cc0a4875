"""Make statements from the ledgers: collect what has changed, by tenant, since the last statement.

Invariants:

* The sums of a tenant are its last statement (`opening`), plus all changes of its ledgers since then that were
  collected. A change is collected once: `baselines` has the sums of each ledger as they were collected last.
* What is saved at a checkpoint contains both, so that after a crash the next collection continues from the checkpoint.
  With a journal, the ledgers are then as of its last commit, perhaps a little before the checkpoint: the difference is
  subtracted again. Without one, they begin at zero, and what was in flight is written off.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from otelwp_agent.model.receipt import Outcome
from otelwp_agent.statements.statement import DeliveryStatement, ExporterFigures, Interruption, PipelineFigures

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from otelwp_agent.model.deliveries import Deliveries
    from otelwp_agent.model.ledgers import Ledgers
    from otelwp_agent.model.receipt import Ledger

SLICE = 500
"""Ledgers, or sums of exporters, that are read at once, before other tasks may run."""


@dataclass(slots=True)
class LedgerSums:
    """The sums of a ledger when it was read."""

    accepted: int = 0
    settled: list[int] = field(default_factory=lambda: [0] * len(Outcome))
    reasons: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, ledger: Ledger) -> LedgerSums:
        """Copy the sums of a ledger."""
        return cls(ledger.accepted, list(ledger.settled), dict(ledger.dropped_reasons))

    @property
    def in_flight(self) -> int:
        """Items that are not settled."""
        return self.accepted - sum(self.settled)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever accepted."""
        return not self.accepted and not any(self.settled)


@dataclass(slots=True)
class PipelineSums:
    """The changes in one pipeline since the last statement."""

    opening: int = 0
    accepted: int = 0
    settled: list[int] = field(default_factory=lambda: [0] * len(Outcome))
    reasons: dict[str, int] = field(default_factory=dict)
    written_off: int = 0

    @property
    def closing(self) -> int:
        """Items in flight now."""
        return self.opening + self.accepted - sum(self.settled) - self.written_off

    @property
    def is_idle(self) -> bool:
        """Whether nothing has happened and nothing is in flight."""
        return not (self.opening or self.accepted or any(self.settled) or self.written_off)

    def add(self, before: LedgerSums, now: LedgerSums) -> None:
        """Add what has changed between two readings of a ledger."""
        self.accepted += now.accepted - before.accepted
        self.settled = [sum_ + b - a for sum_, a, b in zip(self.settled, before.settled, now.settled, strict=True)]
        for reason in {*now.reasons, *before.reasons}:
            change = now.reasons.get(reason, 0) - before.reasons.get(reason, 0)
            if change:
                self.reasons[reason] = self.reasons.get(reason, 0) + change

    def figures(self) -> PipelineFigures:
        """Return the figures of a statement."""
        delivered, sampled_out, filtered, _ = self.settled
        return PipelineFigures(
            opening=self.opening,
            accepted=self.accepted,
            delivered=delivered,
            sampled_out=sampled_out,
            filtered=filtered,
            dropped={reason: items for reason, items in sorted(self.reasons.items()) if items},
            written_off=self.written_off,
            closing=self.closing,
        )


@dataclass(slots=True)
class TenantState:
    """Everything that is known of one tenant: what is saved at a checkpoint."""

    begin: float
    """End of its last statement, or when it was first seen, in seconds since 1970."""
    sequence: int = 0
    """Number of its last statement."""
    previous: str = ""
    """Hash of that."""
    pipelines: dict[str, PipelineSums] = field(default_factory=dict)
    exporters: dict[str, list[int]] = field(default_factory=dict)
    """Items delivered and dropped since the last statement."""
    baselines: dict[str, dict[str, LedgerSums]] = field(default_factory=dict)
    """Ledgers as they were collected last, by pipeline and receiver."""
    interruptions: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to state."""
        return not self.interruptions and not self.exporters and all(sums.is_idle for sums in self.pipelines.values())

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TenantState:
        """Read what `to_json` returned."""
        pipelines = {name: PipelineSums(**sums) for name, sums in data["pipelines"].items()}
        baselines = {
            pipeline: {receiver: LedgerSums(**sums) for receiver, sums in receivers.items()}
            for pipeline, receivers in data["baselines"].items()
        }
        return cls(**{**data, "pipelines": pipelines, "baselines": baselines})


class StatementAccounts:
    """The states of all tenants of one agent. Items without a tenant are left out."""

    def __init__(self, agent: str, ledgers: Ledgers, deliveries: Deliveries, now: float) -> None:
        """Begin at `now` (seconds since 1970) with what the ledgers contain."""
        self.changed: set[str] = set()
        """Tenants whose state is not saved."""
        self._agent = agent
        self._ledgers = ledgers
        self._deliveries = deliveries
        self._since = now
        self._states: dict[str, TenantState] = {}
        self._delivered: dict[tuple[str, str], tuple[int, int]] = {}

    def __len__(self) -> int:
        """Return the number of tenants."""
        return len(self._states)

    def restore(self, states: Mapping[str, TenantState], checkpoint: float | None, now: float) -> None:
        """Continue with saved states. `checkpoint` is when they were saved if the agent did not stop in order."""
        current = {ledger.key: LedgerSums.of(ledger) for ledger in self._ledgers if ledger.key[2]}
        restored = any(not sums.is_empty for sums in current.values())
        self._states = dict(states)
        for tenant, state in self._states.items():
            if checkpoint is not None:
                interruption = Interruption(begin=checkpoint, end=now, pipelines=restored)
                state.interruptions.append(interruption.model_dump())
                self.changed.add(tenant)
            for pipeline, receivers in state.baselines.items():
                for receiver, before in receivers.items():
                    found = current.pop((pipeline, receiver, tenant), LedgerSums())
                    if found.is_empty and not before.is_empty:
                        sums = state.pipelines.setdefault(pipeline, PipelineSums())
                        sums.written_off += before.in_flight
                        receivers[receiver] = found
                        self.changed.add(tenant)
        for (pipeline, receiver, tenant), found in current.items():  # accepted before statements were switched on
            state = self._state(tenant)
            state.pipelines.setdefault(pipeline, PipelineSums()).opening += found.in_flight
            state.baselines.setdefault(pipeline, {})[receiver] = found
            self.changed.add(tenant)
        self._delivered = {(exporter, tenant): (given, lost) for exporter, tenant, given, lost in self._deliveries}

    def collect(self) -> Iterator[None]:
        """Add what has changed since the last collection; yields after each `SLICE` of them."""
        for number, ledger in enumerate(list(self._ledgers), start=1):
            if ledger.key[2]:
                self._collect(ledger)
            if not number % SLICE:
                yield
        for number, (exporter, tenant, delivered, dropped) in enumerate(list(self._deliveries), start=1):
            if not number % SLICE:
                yield
            before = self._delivered.get((exporter, tenant), (0, 0))
            if before != (delivered, dropped):
                sums = self._state(tenant).exporters.setdefault(exporter, [0, 0])
                sums[0] += delivered - before[0]
                sums[1] += dropped - before[1]
                self._delivered[exporter, tenant] = (delivered, dropped)
                self.changed.add(tenant)

    def _collect(self, ledger: Ledger) -> None:
        pipeline, receiver, tenant = ledger.key
        receivers = self._state(tenant).baselines.setdefault(pipeline, {})
        before = receivers.get(receiver)
        if before is None:
            before = receivers[receiver] = LedgerSums()
        if before.accepted == ledger.accepted and before.settled == ledger.settled:
            return
        now = receivers[receiver] = LedgerSums.of(ledger)
        self._state(tenant).pipelines.setdefault(pipeline, PipelineSums()).add(before, now)
        self.changed.add(tenant)

    def _state(self, tenant: str) -> TenantState:
        state = self._states.get(tenant)
        if state is None:
            state = self._states[tenant] = TenantState(self._since)
            self.changed.add(tenant)
        return state

    def due(self, now: float) -> Iterator[DeliveryStatement]:
        """Yield a statement of each tenant that has something to state.

        The caller calls this once an hour, and `stated` with the hash of each statement before it takes the next one.
        """
        for tenant, state in list(self._states.items()):
            if not state.is_idle:
                yield self._statement(tenant, state, now)
        self._since = now

    def _statement(self, tenant: str, state: TenantState, now: float) -> DeliveryStatement:
        return DeliveryStatement(
            agent=self._agent,
            tenant=tenant,
            sequence=state.sequence + 1,
            previous=state.previous,
            begin=state.begin,
            end=now,
            pipelines={name: sums.figures() for name, sums in sorted(state.pipelines.items()) if not sums.is_idle},
            exporters={
                name: ExporterFigures(delivered=delivered, dropped=dropped)
                for name, (delivered, dropped) in sorted(state.exporters.items())
            },
            interruptions=[Interruption(**each) for each in state.interruptions],
        )

    def stated(self, statement: DeliveryStatement, digest: str) -> None:
        """Begin the next statement of a tenant behind `statement`, whose hash is `digest`."""
        state = self._states[statement.tenant]
        state.begin, state.sequence, state.previous = statement.end, statement.sequence, digest
        state.pipelines = {
            name: PipelineSums(opening=sums.closing) for name, sums in state.pipelines.items() if sums.closing
        }
        state.exporters, state.interruptions = {}, []
        self.changed.add(statement.tenant)

    def states(self, tenants: Iterable[str]) -> dict[str, TenantState]:
        """Return the states of these tenants."""
        return {tenant: self._states[tenant] for tenant in tenants}
