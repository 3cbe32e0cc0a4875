import asyncio
import time

import pytest
from structlog.testing import capture_logs

from otelwp_agent.errors import Overloaded, StartError
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.signal import Signal
from tests.kit.graphs import Running, until

ONE = """
receivers: {hand: {label: A}}
processors: {pass: {label: B}}
exporters: {sink: {label: C}}
service: {pipelines: {traces: {receivers: [hand], processors: [pass], exporters: [sink]}}}
"""


async def settled(receipt):
    await until(lambda: receipt.pending == 0)
    return receipt.worst


async def test_a_batch_goes_from_receiver_to_exporter_and_its_receipt_is_settled():
    running = Running()
    graph = await running.go(ONE)
    assert await settled(running.hand.receive(3)) is Outcome.DELIVERED
    assert [batch.items for batch in running.sink.batches] == [3]
    ledger = graph.heads["traces"].total
    assert (ledger.accepted, ledger.in_flight, ledger.settled[Outcome.DELIVERED]) == (3, 0, 3)
    await running.stop()
    assert (running.hand.life, running.sink.life) == (["start", "shutdown"], ["start", "shutdown"])


async def test_shared_receivers_and_exporters_over_signals_and_pipelines():
    running = Running()
    await running.go("""
    receivers: {hand: }
    exporters: {sink: , sink/2: }
    service:
      pipelines:
        traces/a: {receivers: [hand], exporters: [sink]}
        traces/b: {receivers: [hand], exporters: [sink, sink/2]}
        logs: {receivers: [hand], exporters: [sink/2]}
    """)
    assert await settled(running.hand.receive(2)) is Outcome.DELIVERED
    assert await settled(running.hand.receive(5, Signal.LOGS)) is Outcome.DELIVERED
    assert [batch.items for batch in running.sink.batches] == [2, 2]
    assert [(batch.signal, batch.items) for batch in running.sink_2.batches] == [(Signal.TRACES, 2), (Signal.LOGS, 5)]
    await running.stop()


STUCK = """
receivers: {hand: }
exporters: {sink: , sink/stuck: {sending_queue: {num_consumers: 1, queue_size: 2, isolate_after: 50ms}}}
service: {pipelines: {traces: {receivers: [hand], exporters: [sink, sink/stuck]}}}
"""


async def test_while_an_exporter_is_full_senders_are_refused_and_nothing_is_lost_or_sent_twice():
    running = Running()
    await running.go(STUCK.replace("50ms", "1h"))
    running.sink_stuck.gate.clear()
    receipts = [running.hand.receive() for _ in range(2)]
    for _ in range(3):
        with pytest.raises(Overloaded):
            running.hand.receive()
        with pytest.raises(Overloaded):
            running.hand.next[Signal.TRACES].admit()
    await until(lambda: len(running.sink.batches) == 2)
    running.sink_stuck.gate.set()
    assert {await settled(receipt) for receipt in receipts} == {Outcome.DELIVERED}
    running.hand.next[Signal.TRACES].admit()
    assert await settled(running.hand.receive()) is Outcome.DELIVERED
    assert (len(running.sink.batches), len(running.sink_stuck.batches)) == (3, 3)
    assert running.registry.value("otelcol_exporter_enqueue_failed_spans", exporter="sink/stuck") == 0
    await running.stop()


async def test_an_exporter_that_is_stuck_for_too_long_is_isolated_until_it_makes_progress():
    running = Running()
    graph = await running.go(STUCK)
    running.sink_stuck.gate.clear()
    kept = [running.hand.receive() for _ in range(2)]
    with capture_logs() as logs:
        with pytest.raises(Overloaded):
            running.hand.receive()
        await until(lambda: not stuck(graph).healthy)
        running.hand.next[Signal.TRACES].admit()
        lost = [running.hand.receive() for _ in range(8)]
        assert {(receipt.pending, receipt.count(Outcome.DROPPED)) for receipt in lost} == {(1, 0)}, "one branch is open"
        await until(lambda: len(running.sink.batches) == 10)
        assert {(await settled(receipt), receipt.reason) for receipt in lost} == {(Outcome.DROPPED, "queue_full")}
        assert stuck(graph).message.startswith("isolated: the queue is full without progress")
        assert stuck(graph).details["isolated"] is True
        labels = {"exporter": "sink/stuck", "data_type": "traces"}
        assert running.registry.value("otelwp_exporter_isolated", **labels) == 1
        assert running.registry.value("otelcol_exporter_enqueue_failed_spans", exporter="sink/stuck") == 8
        running.sink_stuck.gate.set()
        assert {await settled(receipt) for receipt in kept} == {Outcome.DELIVERED}
    assert stuck(graph).healthy
    assert running.registry.value("otelwp_exporter_isolated", **labels) == 0
    assert [(log["log_level"], log["event"], log["exporter"]) for log in logs] == [
        ("error", "exporter isolated", "sink/stuck"),
        ("warning", "exporter no longer isolated", "sink/stuck"),
    ]
    assert logs[1]["lost_items"] == 8
    ledger = graph.heads["traces"].total
    assert (ledger.accepted, ledger.in_flight, ledger.dropped_reasons) == (10, 0, {"queue_full": 8})
    await running.stop()


def stuck(graph):
    return next(state for state in graph.health() if state.id == "sink/stuck")


async def test_where_every_exporter_is_stuck_nobody_is_isolated_and_senders_wait():
    running = Running()
    await running.go(STUCK.replace("sink: ,", "sink: {sending_queue: {queue_size: 2, isolate_after: 20ms}},"))
    running.sink.gate.clear()
    running.sink_stuck.gate.clear()
    receipts = [running.hand.receive() for _ in range(2)]
    ended = time.monotonic() + 0.2  # ten times `isolate_after`
    while time.monotonic() < ended:
        with pytest.raises(Overloaded):
            running.hand.receive()
        await asyncio.sleep(0.01)  # the timers of the isolation run
    running.sink.gate.set()
    running.sink_stuck.gate.set()
    assert {await settled(receipt) for receipt in receipts} == {Outcome.DELIVERED}
    await running.stop()


async def test_an_exporter_alone_is_never_isolated_though_another_pipeline_isolates_it():
    running = Running()
    await running.go("""
    receivers: {hand: , hand/two: }
    exporters: {sink: , sink/stuck: {sending_queue: {num_consumers: 1, queue_size: 2, isolate_after: 20ms}}}
    service:
      pipelines:
        traces: {receivers: [hand], exporters: [sink/stuck]}
        traces/two: {receivers: [hand/two], exporters: [sink, sink/stuck]}
    """)
    running.sink_stuck.gate.clear()
    for _ in range(2):
        running.hand.receive()
    with pytest.raises(Overloaded):
        running.hand_two.receive()
    await until(lambda: running.registry.value("otelwp_exporter_isolated", exporter="sink/stuck") == 1)
    running.hand_two.receive()
    with pytest.raises(Overloaded):
        running.hand.receive()
    await running.stop(0.1)


async def test_a_pipeline_that_is_stuck_makes_the_receivers_other_pipelines_wait_and_is_then_isolated():
    running = Running()
    await running.go("""
    receivers: {hand: }
    connectors: {forward: }
    processors: {batch: {send_batch_size: 1}}
    exporters: {sink: , sink/stuck: {sending_queue: {num_consumers: 1, queue_size: 2, isolate_after: 50ms}}}
    service:
      pipelines:
        traces/a: {receivers: [hand], exporters: [sink]}
        traces/b: {receivers: [hand], exporters: [forward]}
        traces/c: {receivers: [forward], processors: [batch], exporters: [sink/stuck]}
    """)
    running.sink_stuck.gate.clear()
    receipts = [running.hand.receive() for _ in range(4)]  # two in the queue, two in `batch`
    for _ in range(3):
        with pytest.raises(Overloaded):
            running.hand.receive()
    await until(lambda: len(running.sink.batches) == 4)
    await until(lambda: running.registry.value("otelwp_exporter_isolated", exporter="sink/stuck") == 1)
    lost = running.hand.receive()
    assert (await settled(lost), lost.reason) == (Outcome.DROPPED, "overloaded")
    running.sink_stuck.gate.set()
    assert {await settled(receipt) for receipt in receipts} == {Outcome.DELIVERED}
    assert await settled(running.hand.receive()) is Outcome.DELIVERED
    assert (len(running.sink.batches), len(running.sink_stuck.batches)) == (6, 5)
    await running.stop()


async def test_a_reload_without_the_branch_that_is_full_forwards_what_waited_for_it():
    running = Running()
    yaml = """
    receivers: {hand: }
    processors: {batch: {send_batch_size: 1}}
    exporters: {sink: , sink/stuck: {sending_queue: {num_consumers: 1, queue_size: 1}}}
    service:
      pipelines:
        traces: {receivers: [hand], processors: [batch], exporters: [sink, sink/stuck]}
        traces/other: {receivers: [hand/other], exporters: [sink/stuck]}
    """.replace("{hand: }", "{hand: , hand/other: }")
    await running.go(yaml)
    running.sink_stuck.gate.clear()
    running.hand_other.receive()
    waiting = running.hand.receive()
    assert running.sink.batches == []
    await running.go(yaml.replace("[batch], exporters: [sink, sink/stuck]", "[batch], exporters: [sink]"))
    assert await settled(waiting) is Outcome.DELIVERED
    assert len(running.sink.batches) == 1
    await running.stop(0.1)


async def test_connectors_join_pipelines_and_each_keeps_its_ledger():
    running = Running()
    graph = await running.go("""
    receivers: {hand: }
    connectors: {forward: }
    exporters: {sink: }
    service:
      pipelines:
        traces/out: {receivers: [forward], exporters: [sink]}
        traces/in: {receivers: [hand], exporters: [forward]}
    """)
    assert await settled(running.hand.receive(4)) is Outcome.DELIVERED
    assert [head.total.settled[Outcome.DELIVERED] for head in graph.heads.values()] == [4, 4]
    await running.stop()


@pytest.mark.parametrize("failing", ["receivers", "exporters"])
async def test_a_failed_start_stops_what_had_started(failing):
    running = Running()
    yaml = ONE.replace("label: A", "fails: true" if failing == "receivers" else "label: A")
    yaml = yaml.replace("label: C", "fails: true" if failing == "exporters" else "label: C")
    with pytest.raises(StartError, match=f"{failing}/.*told to fail"):
        await running.go(yaml)
    assert running.graph is None


async def test_a_reload_keeps_what_did_not_change_with_all_it_holds():
    running = Running()
    await running.go(ONE)
    hand, stage, sink, head = running.hand, getattr(running, "pass"), running.sink, running.graph.heads["traces"]
    stage.held = []
    waiting = hand.receive()
    graph = await running.go(ONE.replace("[sink]", "[sink, sink/2]").replace("sink: {", "sink/2: , sink: {"))
    assert (running.hand, getattr(running, "pass"), running.sink) == (hand, stage, sink)
    assert graph.heads["traces"] is head
    assert (hand.life, sink.life, stage.life) == (["start"], ["start"], [])
    for batch in stage.held:
        stage.next.consume(batch)
    stage.held = None
    assert await settled(waiting) is Outcome.DELIVERED
    assert (len(sink.batches), len(running.sink_2.batches)) == (1, 1), "what was held goes where the new graph says"
    await running.stop()


async def test_a_reload_replaces_what_changed_and_loses_nothing_of_it():
    running = Running()
    await running.go(ONE)
    hand, stage, sink = running.hand, getattr(running, "pass"), running.sink
    stage.held = []
    held = hand.receive()
    sink.gate.clear()
    sink.batches.clear()
    changed = ONE.replace("label: A", "label: X").replace("label: B", "label: Y")
    await running.go(changed)
    assert running.hand is not hand
    assert running.sink is sink
    assert (hand.life, stage.life) == (["start", "shutdown"], ["shutdown"])
    sink.gate.set()
    assert await settled(held) is Outcome.DELIVERED
    late = hand.receive()
    assert await settled(late) is Outcome.DELIVERED, (
        "what still comes to the old receiver goes through the new pipeline"
    )
    await running.go(changed.replace("label: C", "label: Z"))
    assert sink.life == ["start", "shutdown"]
    assert await settled(running.hand.receive()) is Outcome.DELIVERED
    assert len(running.sink.batches) == 1
    await running.stop()


async def test_what_still_comes_to_a_replaced_receiver_goes_into_the_pipelines_of_its_successor():
    running = Running()
    await running.go(ONE)
    replaced = running.hand
    graph = await running.go(ONE.replace("label: A", "label: X").replace("traces:", "traces/moved:"))
    assert await settled(replaced.receive(3)) is Outcome.DELIVERED
    assert graph.heads["traces/moved"].total.accepted == 3
    await running.stop()


async def test_a_receiver_that_a_reload_removes_keeps_its_way_until_it_has_stopped():
    running = Running()
    both = ONE.replace("hand: {", "hand/2: , hand: {").replace("[hand]", "[hand, hand/2]")
    await running.go(both)
    removed = running.hand_2
    await running.go(ONE)
    assert removed.life == ["start", "shutdown"]
    assert await settled(removed.receive()) is Outcome.DELIVERED
    await running.stop()


async def test_a_reload_that_fails_leaves_the_old_graph_untouched():
    running = Running()
    await running.go(ONE)
    hand, sink = running.hand, running.sink
    with pytest.raises(StartError):
        await running.go(ONE.replace("label: A", "fails: true"))
    assert running.hand is hand
    assert await settled(hand.receive()) is Outcome.DELIVERED
    assert (len(sink.batches), sink.life) == (1, ["start"])
    await running.stop()


async def test_stopping_drains_what_is_queued_and_drops_the_rest_at_the_deadline():
    running = Running()
    await running.go(ONE)
    running.sink.gate.clear()
    stuck = [running.hand.receive() for _ in range(3)]
    drained = await running.stop(seconds=0.05)
    assert (drained.delivered, drained.left) == (0, 3)
    assert {(receipt.worst, receipt.reason) for receipt in stuck} == {(Outcome.DROPPED, "shutdown")}
    assert running.graph.in_flight() == 0


async def test_a_connector_is_as_full_as_the_fullest_that_it_leads_to():
    running = Running()
    graph = await running.go("""
    receivers: {hand: }
    connectors: {forward: }
    exporters: {sink: {sending_queue: {queue_size: 4}}, sink/2: }
    service:
      pipelines:
        traces: {receivers: [hand], exporters: [forward, sink/2]}
        traces/late: {receivers: [forward], exporters: [sink, sink/2]}
    """)
    running.sink.gate.clear()
    for _ in range(3):
        running.hand.receive()
    fills = graph.heads["traces"].fills("")
    assert fills["forward"]("") == graph.heads["traces/late"].fills("")["sink"]("") == 0.75
    running.sink.gate.set()
    await until(lambda: fills["forward"]("") == 0)
    await running.stop()


GUARDED = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0', auth: {{authenticator: bearertokenauth}}}}}}}}}}
exporters: {{sink: , zipkin: {{endpoint: 'http://127.0.0.1:9', auth: {{authenticator: bearertokenauth/2}}}}}}
extensions: {{bearertokenauth: {{token: {first}}}, bearertokenauth/2: {{token: {second}}}}}
service:
  extensions: [bearertokenauth, bearertokenauth/2]
  pipelines: {{traces: {{receivers: [otlp], exporters: [sink, zipkin]}}}}
"""


@pytest.mark.parametrize(
    ("first", "second", "rebuilt"), [("a", "b", set()), ("x", "b", {"otlp"}), ("a", "x", {"zipkin"})]
)
async def test_a_component_is_built_again_if_an_extension_that_it_refers_to_is(first, second, rebuilt):
    running = Running()
    await running.go(GUARDED.format(first="a", second="b"))
    before = {name: getattr(running, name) for name in ("otlp", "sink", "zipkin")}
    await running.go(GUARDED.format(first=first, second=second))
    assert {name for name, part in before.items() if getattr(running, name) is not part} == rebuilt
    for part in (running.otlp, running.zipkin):
        (used,) = part.context.extensions.values()
        assert used in running.graph.extensions.values()
    await running.stop()


async def test_an_extension_stops_after_what_refers_to_it():
    running = Running()
    graph = await running.go(GUARDED.format(first="a", second="b"))
    ranks = [[str(part.context.id) for part in rank if hasattr(part, "context")] for rank in graph.stop_order()]
    assert ranks[-1] == ["bearertokenauth", "bearertokenauth/2"]
    assert ranks[0] == ["otlp"]
    await running.stop()
