from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.selection import Selection
from otelwp_agent.model.signal import Signal

OUTCOMES = [(Outcome.SAMPLED_OUT, ""), (Outcome.DROPPED, "broken")]


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=5))
def test_every_share_gets_its_own_verdicts(verdicts):
    receipts = [Receipt(len(part)) for part in verdicts]
    batch = Batch(Signal.LOGS, b"before", sum(map(len, verdicts)), Origin(), [(each, each.items) for each in receipts])
    selection = Selection(batch, b"after", bytes(verdict for part in verdicts for verdict in part))
    assert [receipt.pending for receipt in receipts] == [len(part) for part in verdicts], "nothing is settled yet"
    kept = [(receipt, part.count(0)) for receipt, part in zip(receipts, verdicts, strict=True) if 0 in part]
    if kept:
        assert selection.batch.body == b"after"
        assert selection.batch.items == sum(items for _, items in kept)
        assert list(selection.batch.shares) == kept
    else:
        assert selection.batch is None
    selection.settle(OUTCOMES)
    for receipt, part in zip(receipts, verdicts, strict=True):
        assert receipt.pending == part.count(0)
        assert receipt.count(Outcome.SAMPLED_OUT) == part.count(1)
        assert receipt.count(Outcome.DROPPED) == part.count(2)
        assert receipt.reason == ("broken" if 2 in part else "")
