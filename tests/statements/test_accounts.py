import pytest

from otelwp_agent.model.deliveries import Deliveries
from otelwp_agent.model.ledgers import Ledgers
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.statements.accounts import SLICE, StatementAccounts, TenantState
from otelwp_agent.statements.statement import ExporterFigures, PipelineFigures

T0 = 7200.0


class Run:
    """One run of an agent: its ledgers, and the accounts that read them."""

    def __init__(self, states=None, checkpoint=None, now=T0, ledgers=None):
        self.ledgers = ledgers or Ledgers()
        self.deliveries = Deliveries()
        self.accounts = StatementAccounts("edge", self.ledgers, self.deliveries, now)
        self.accounts.restore(states or {}, checkpoint, now)

    def ledger(self, pipeline="traces", receiver="otlp", tenant="shop"):
        return self.ledgers.get(pipeline, receiver, tenant)

    def accept(self, items, **key):
        self.ledger(**key).accepted += items

    def settle(self, items, outcome=Outcome.DELIVERED, reason="", **key):
        self.ledger(**key).settle(outcome, items, reason)

    def collect(self):
        for _ in self.accounts.collect():
            pass

    def state(self, now):
        self.collect()
        made = []
        for statement in self.accounts.due(now):
            self.accounts.stated(statement, f"{statement.sequence:064x}")
            made.append(statement)
        for one in made:
            assert list(one.problems()) == []
        return made

    def saved(self):
        """Return the states as they are read after a restart."""
        self.collect()
        states = self.accounts.states(self.accounts._states)
        return {tenant: TenantState.from_json(state.to_json()) for tenant, state in states.items()}


def test_a_statement_has_what_happened_in_its_hour_and_what_is_in_flight():
    run = Run()
    run.accept(10)
    run.accept(5, receiver="jaeger")
    run.settle(6)
    run.settle(1, Outcome.SAMPLED_OUT)
    run.settle(1, Outcome.FILTERED)
    run.settle(2, Outcome.DROPPED, "malformed", receiver="jaeger")
    run.settle(1, Outcome.DROPPED, "dead_letter:malformed", receiver="jaeger")
    run.deliveries.add("otlp", "shop", 6, 3)
    (first,) = run.state(T0 + 3600)
    assert (first.agent, first.tenant, first.sequence, first.previous) == ("edge", "shop", 1, "")
    assert (first.begin, first.end) == (T0, T0 + 3600)
    assert first.pipelines == {
        "traces": PipelineFigures(
            accepted=15, delivered=6, sampled_out=1, filtered=1, dropped={"malformed": 2, "dead_letter:malformed": 1},
            closing=4,
        )
    }  # fmt: skip
    assert first.exporters == {"otlp": ExporterFigures(delivered=6, dropped=3)}


def test_a_late_settlement_is_in_the_statement_of_the_hour_in_which_it_happens():
    run = Run()
    run.accept(10)
    (first,) = run.state(T0 + 3600)
    run.settle(10)
    (second,) = run.state(T0 + 7200)
    assert first.pipelines["traces"] == PipelineFigures(accepted=10, closing=10)
    assert second.pipelines["traces"] == PipelineFigures(opening=10, delivered=10)
    assert (second.sequence, second.previous, second.begin) == (2, f"{1:064x}", first.end)
    assert list(second.problems_after(first)) == []


def test_without_events_and_items_in_flight_there_is_no_statement_and_the_next_covers_the_time():
    run = Run()
    run.accept(1)
    run.settle(1)
    (first,) = run.state(T0 + 3600)
    assert run.state(T0 + 7200) == run.state(T0 + 10800) == []
    run.accept(1)
    (second,) = run.state(T0 + 14400)
    assert (second.begin, second.sequence) == (first.end, 2)


def test_items_in_flight_make_a_statement_each_hour():
    run = Run()
    run.accept(1)
    assert [len(run.state(T0 + hour * 3600)) for hour in (1, 2, 3)] == [1, 1, 1]


def test_tenants_have_chains_of_their_own_and_items_without_a_tenant_have_none():
    run = Run()
    run.accept(1, tenant="a")
    run.accept(2, tenant="b")
    run.accept(4, tenant="")
    statements = run.state(T0 + 3600)
    assert {one.tenant: one.pipelines["traces"].accepted for one in statements} == {"a": 1, "b": 2}
    assert [one.sequence for one in statements] == [1, 1]


def test_a_restart_in_order_continues():
    run = Run()
    run.accept(10)
    run.settle(7)
    run.deliveries.add("otlp", "shop", 7, 0)
    states = run.saved()
    run.settle(3)  # at the shutdown, before the last checkpoint
    states = run.saved()
    again = Run(states, None, T0 + 100)
    again.accept(5)
    again.deliveries.add("otlp", "shop", 2, 0)
    (statement,) = again.state(T0 + 3600)
    assert statement.pipelines["traces"] == PipelineFigures(accepted=15, delivered=10, closing=5)
    assert statement.exporters["otlp"].delivered == 9
    assert statement.interruptions == []


def test_after_a_kill_without_a_journal_what_was_in_flight_is_written_off_and_the_gap_is_stated():
    run = Run()
    run.accept(10)
    run.settle(4)
    states = run.saved()
    run.accept(100)  # after the checkpoint: nobody knows of it any more
    again = Run(states, T0 + 50, T0 + 120)
    again.accept(3)
    (statement,) = again.state(T0 + 3600)
    assert statement.pipelines["traces"] == PipelineFigures(accepted=13, delivered=4, written_off=6, closing=3)
    (interruption,) = statement.interruptions
    assert (interruption.begin, interruption.end, interruption.pipelines) == (T0 + 50, T0 + 120, False)
    again.accept(1)
    (following,) = again.state(T0 + 7200)
    assert following.interruptions == []


def journaled(accepted, delivered):
    """Return the ledgers that a journal has restored."""
    ledgers = Ledgers()
    ledger = ledgers.get("traces", "otlp", "shop")
    ledger.accepted, ledger.settled[Outcome.DELIVERED] = accepted, delivered
    return ledgers


@pytest.mark.parametrize(
    ("accepted", "delivered"), [(18, 9), (9, 3)], ids=["beyond the checkpoint", "a little before the checkpoint"]
)
def test_after_a_kill_with_a_journal_the_sums_are_those_of_the_journal(accepted, delivered):
    run = Run()
    run.accept(10)
    run.settle(4)
    again = Run(run.saved(), T0 + 50, T0 + 120, journaled(accepted, delivered))
    again.settle(accepted - delivered)
    (statement,) = again.state(T0 + 3600)
    assert statement.pipelines["traces"] == PipelineFigures(accepted=accepted, delivered=accepted)
    assert [each.pipelines for each in statement.interruptions] == [True]


def test_a_journal_that_was_lost_is_written_off():
    run = Run(ledgers=journaled(100, 90))
    (statement,) = run.state(T0 + 3600)
    assert statement.pipelines["traces"] == PipelineFigures(opening=10, closing=10), "accepted before statements began"
    again = Run(run.saved(), None, T0 + 3700, Ledgers())
    (second,) = again.state(T0 + 7200)
    assert second.pipelines["traces"] == PipelineFigures(opening=10, written_off=10)


def test_a_restart_during_a_kill_after_a_statement_does_not_repeat_it():
    run = Run()
    run.accept(10)
    (first,) = run.state(T0 + 3600)
    again = Run(run.saved(), T0 + 3600, T0 + 3700, journaled(10, 10))
    (second,) = again.state(T0 + 7200)
    assert (second.sequence, second.begin) == (2, first.end)
    assert second.pipelines["traces"] == PipelineFigures(opening=10, delivered=10)


def test_only_changed_tenants_are_saved():
    run = Run()
    run.accept(1, tenant="a")
    run.accept(1, tenant="b")
    run.collect()
    assert run.accounts.changed == {"a", "b"}
    run.accounts.changed.clear()
    run.collect()
    assert run.accounts.changed == set()
    run.settle(1, tenant="b")
    run.collect()
    assert run.accounts.changed == {"b"}
    assert len(run.accounts) == 2


def test_many_ledgers_are_read_in_slices():
    run = Run()
    for number in range(3 * SLICE):
        run.accept(1, tenant=f"t{number}")
    assert sum(1 for _ in run.accounts.collect()) == 3
    assert len(run.accounts) == 3 * SLICE


def test_a_state_is_read_as_it_was_written():
    run = Run()
    run.accept(10)
    run.settle(2, Outcome.DROPPED, "malformed")
    run.deliveries.add("otlp", "shop", 1, 2)
    (state,) = run.saved().values()
    assert TenantState.from_json(state.to_json()) == state
    assert not state.is_idle
    assert TenantState(1.0).is_idle
