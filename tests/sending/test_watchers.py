from __future__ import annotations

from otelwp_agent.errors import RetryableError
from otelwp_agent.model.batch import merge
from otelwp_agent.model.receipt import Ledger
from otelwp_agent.routing.outlets import Move
from otelwp_agent.sending.watchers import Watchers, pipeline_of
from tests.kit.senders import a_request

ERROR = RetryableError("away")


class Watcher:
    def __init__(self, move):
        self.move = move
        self.seen = []

    def delivered(self, seconds):
        self.seen.append(seconds)

    def failed(self, _batch, _error, pipeline):
        self.seen.append(pipeline)
        return self.move


def in_pipeline(name):
    batch = a_request("a")
    batch.shares[0][0].ledger = Ledger((name, "otlp", ""))
    return batch


def test_each_watcher_gets_the_report_and_one_moves_the_batch():
    first, second, third = Watcher(Move.LATER), Watcher(Move.DONE), Watcher(Move.DONE)
    watchers = Watchers()
    assert not watchers
    for one in (first, second, second, third):
        watchers.add(one)
    assert watchers.failed(in_pipeline("traces/a"), ERROR) is Move.DONE
    assert [one.seen for one in (first, second, third)] == [["traces/a"], ["traces/a"], [""]]
    watchers.remove(second)
    watchers.remove(second)
    watchers.remove(third)
    assert watchers.failed(in_pipeline("traces/a"), ERROR) is Move.LATER
    watchers.delivered(0.5)
    assert first.seen == ["traces/a", "traces/a", 0.5]


def test_a_batch_of_several_pipelines_or_of_none_belongs_to_none():
    assert pipeline_of(in_pipeline("traces/a")) == "traces/a"
    assert pipeline_of(merge([in_pipeline("traces/a"), in_pipeline("traces/a")])) == "traces/a"
    assert not pipeline_of(merge([in_pipeline("traces/a"), in_pipeline("traces/b")]))
    assert not pipeline_of(merge([in_pipeline("traces/a"), a_request("b")]))
    assert not pipeline_of(a_request("a"))
