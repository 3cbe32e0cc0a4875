from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError
from structlog.testing import capture_logs

from otelwp_agent.errors import MalformedError, Overloaded
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.processors.batch import Config
from otelwp_agent.testing import run
from tests.kit.stages import batch_of, build, names_of, numbered_spans


def value(stage, name):
    return stage.context.registry.value(f"otelcol_processor_batch_{name}", processor=str(stage.context.id))


def test_an_encoded_batch_is_forwarded_at_once_and_alone():
    async def scenario():
        stage, catcher = build("batch", {"timeout": "10s"})
        stage.consume(numbered_spans(3))
        encoded = [numbered_spans(5).encoded("zstd", b"one"), numbered_spans(5).encoded("zstd", b"two")]
        for each in encoded:
            assert stage.refusal(each) is None
            stage.consume(each)
        assert [batch.body for batch in catcher.batches] == [b"one", b"two"]
        catcher.error = Overloaded("full")
        with pytest.raises(Overloaded):
            stage.consume(encoded[0])
        catcher.error = None
        await stage.shutdown()
        assert len(catcher.batches) == 3

    run(scenario())


def test_it_waits_for_the_timeout_and_no_longer():
    async def scenario():
        stage, catcher = build("batch", {"timeout": "200ms"})
        stage.consume(numbered_spans(2))
        await asyncio.sleep(0.15)
        stage.consume(numbered_spans(3, 2))
        assert catcher.batches == []
        await asyncio.sleep(0.06)
        assert names_of(catcher.batches) == ["0", "1", "2", "3", "4"]
        assert len(catcher.batches) == 1
        assert value(stage, "timeout_trigger_send") == 1
        assert value(stage, "batch_size_trigger_send") == 0
        assert value(stage, "metadata_cardinality") == 0

    run(scenario())


def test_a_batch_with_enough_items_is_forwarded_at_once():
    async def scenario():
        stage, catcher = build("batch", {"send_batch_size": 5})
        assert not stage.holds
        stage.consume(numbered_spans(4))
        assert catcher.batches == []
        assert stage.holds
        assert value(stage, "metadata_cardinality") == 1
        stage.consume(numbered_spans(3))
        assert [batch.items for batch in catcher.batches] == [7]
        assert not stage.holds
        assert value(stage, "batch_size_trigger_send") == 1
        await asyncio.sleep(1)
        assert len(catcher.batches) == 1

    run(scenario())


def test_a_batch_with_enough_bytes_is_forwarded_at_once():
    async def scenario():
        stage, catcher = build("batch", {"send_batch_bytes": 1000})
        stage.consume(batch_of(b"x" * 999, 1))
        assert catcher.batches == []
        stage.consume(batch_of(b"x", 1))
        assert [len(batch.body) for batch in catcher.batches] == [1000]

    run(scenario())


def test_parts_have_at_most_the_limit_and_the_rest_keeps_waiting():
    async def scenario():
        stage, catcher = build("batch", {"send_batch_size": 4, "send_batch_max_size": 4})
        stage.consume(numbered_spans(3))
        stage.consume(numbered_spans(7, 3))
        assert [batch.items for batch in catcher.batches] == [4, 4]
        await asyncio.sleep(0.21)
        assert [batch.items for batch in catcher.batches] == [4, 4, 2]
        assert names_of(catcher.batches) == [str(number) for number in range(10)]

    run(scenario())


def test_without_timeout_batches_are_forwarded_at_once_and_split_at_the_limit():
    async def scenario():
        stage, catcher = build("batch", {"timeout": 0, "send_batch_max_size": 3, "send_batch_size": 2})
        stage.consume(numbered_spans(7))
        assert [batch.items for batch in catcher.batches] == [3, 3, 1]
        catcher.error = Overloaded("full")
        with pytest.raises(Overloaded):
            stage.consume(numbered_spans(7))
        assert value(stage, "metadata_cardinality") == 0

    run(scenario())


def test_without_timeout_a_batch_is_accepted_if_its_first_part_is():
    async def scenario():
        stage, catcher = build("batch", {"timeout": 0, "send_batch_max_size": 3, "send_batch_size": 2})
        catcher.errors = [None, Overloaded("full"), Overloaded("full")]
        stage.consume(numbered_spans(7))
        assert catcher.items == 3
        with pytest.raises(Overloaded):
            stage.consume(numbered_spans(1, 7))
        await asyncio.sleep(1)
        assert names_of(catcher.batches) == [str(number) for number in range(7)]
        stage.consume(numbered_spans(1, 7))
        assert catcher.items == 8

    run(scenario())


def test_a_body_that_cannot_be_split_is_forwarded_whole():
    async def scenario():
        stage, catcher = build("batch", {"send_batch_size": 2, "send_batch_max_size": 2})
        stage.consume(batch_of(b"\xff", 5))
        assert [batch.items for batch in catcher.batches] == [5]
        stage, _ = build("batch", {"timeout": 0, "send_batch_size": 2, "send_batch_max_size": 2})
        with pytest.raises(MalformedError):
            stage.consume(batch_of(b"\xff", 5))

    run(scenario())


def test_shutdown_forwards_all_batches_and_waits_for_the_next_stage():
    async def scenario():
        stage, catcher = build("batch", {"timeout": "1h"})
        stage.consume(numbered_spans(2))
        catcher.error = Overloaded("full")
        stopping = asyncio.ensure_future(stage.shutdown())
        await asyncio.sleep(5)
        assert not stopping.done()
        catcher.error = None
        await stopping
        assert catcher.items == 2
        await stage.shutdown()
        stage.consume(numbered_spans(1))
        assert catcher.items == 3, "what comes late passes at once"

    run(scenario())


def test_a_cancelled_shutdown_settles_the_remaining_batches():
    async def scenario():
        stage, catcher = build("batch", {"send_batch_size": 3})
        catcher.error = Overloaded("full")
        batches = [numbered_spans(3), numbered_spans(2)]
        for batch in batches:
            stage.consume(batch)
        with capture_logs() as logs, pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await stage.shutdown()
        for batch in batches:
            (receipt,) = [receipt for receipt, _ in batch.shares]
            assert (receipt.count(Outcome.DROPPED), receipt.reason, receipt.pending) == (batch.items, "shutdown", 0)
        assert [log["items"] for log in logs] == [5]
        await asyncio.sleep(1)
        assert value(stage, "metadata_cardinality") == 0

    run(scenario())


def test_batches_with_different_metadata_are_not_merged_and_keep_only_these_headers():
    async def scenario():
        stage, catcher = build("batch", {"metadata_keys": ["X-Site", "x-user"]})
        for headers in ({"x-site": "a", "cookie": "1"}, {"x-site": "b"}, {"x-site": "a", "cookie": "2"}, {}):
            stage.consume(batch_of(b"", 1, origin=Origin(headers=headers)))
        stage.consume(batch_of(b"", 1, origin=Origin(headers={"x-site": ""})))
        assert value(stage, "metadata_cardinality") == 4
        await asyncio.sleep(0.21)
        got = [(batch.origin.headers.get("x-site"), batch.items) for batch in catcher.batches]
        assert sorted(got, key=str) == [("", 1), ("a", 2), ("b", 1), (None, 1)]
        assert all("cookie" not in batch.origin.headers for batch in catcher.batches)

    run(scenario())


def test_too_many_metadata_values_are_refused_until_some_are_forwarded():
    async def scenario():
        stage, catcher = build("batch", {"metadata_keys": ["k"], "metadata_cardinality_limit": 2})
        for text in ("a", "b", "a"):
            stage.consume(batch_of(b"", 1, origin=Origin(headers={"k": text})))
        with pytest.raises(Overloaded) as caught:
            stage.consume(batch_of(b"", 1, origin=Origin(headers={"k": "c"})))
        assert caught.value.reason == "metadata_cardinality"
        await asyncio.sleep(0.21)
        stage.consume(batch_of(b"", 1, origin=Origin(headers={"k": "c"})))
        assert catcher.items == 3

    run(scenario())


def test_all_groups_together_are_bounded():
    async def scenario():
        stage, catcher = build("batch", {"send_batch_bytes": 1000, "timeout": "1h"})
        catcher.error = Overloaded("full")
        taken = 0
        for number in range(100):
            try:
                stage.consume(batch_of(b"x" * 300, 1, origin=Origin(tenant=str(number))))
            except Overloaded:
                break
            taken += 300
        assert 4000 <= taken < 4000 + 300
        with pytest.raises(Overloaded):
            stage.admit()
        assert value(stage, "metadata_cardinality") == taken / 300, "who is refused leaves nothing behind"
        catcher.error = None
        await stage.shutdown()
        assert catcher.items == taken / 300

    run(scenario())


steps = st.lists(
    st.tuples(
        st.integers(1, 9),
        st.sampled_from(["", "acme", "shop"]),
        st.sampled_from([None, "", "v"]),
        st.sampled_from([Signal.TRACES, Signal.LOGS]),
        st.sampled_from([(), ("zstd",)]),
        st.sampled_from([0.0, 0.01, 0.3]),
        st.booleans(),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(steps, st.sampled_from([0, 7]), st.booleans())
def test_nothing_is_mixed_lost_or_settled_twice(plan, max_size, drain):
    async def scenario():
        stage, catcher = build("batch", {"send_batch_size": 7, "send_batch_max_size": max_size, "metadata_keys": ["k"]})
        taken, receipts = [], []
        for number, (items, tenant, header, signal, encodings, pause, refuse) in enumerate(plan):
            catcher.error = Overloaded("full") if refuse else None
            headers = {} if header is None else {"k": header}
            request = ExportTraceServiceRequest()
            scope = request.resource_spans.add().scope_spans.add()
            for index in range(items):
                scope.spans.add(name=f"{number}.{index}")
            receipt = Receipt(items)
            body = request.SerializeToString()
            # The name of the sender travels in the receipt, which is what must not be mixed.
            batch = Batch(signal, body, items, Origin(tenant=tenant, headers=headers), [(receipt, items)], encodings)
            with contextlib.suppress(Overloaded):
                stage.consume(batch)
                receipts.append(receipt)
                taken.append((receipt, (tenant, header, signal, encodings), number))
            await asyncio.sleep(pause)
        catcher.error = None
        if drain:
            await stage.shutdown()
        else:
            await asyncio.sleep(1)
            assert (stage._held, stage._blocked, stage._groups) == (0, 0, {})
        group_of = {id(receipt): group for receipt, group, _ in taken}
        for batch in catcher.batches:
            group = (batch.origin.tenant, batch.origin.headers.get("k"), batch.signal, batch.encodings)
            assert {group_of[id(receipt)] for receipt, _ in batch.shares} == {group}
            assert sum(items for _, items in batch.shares) == batch.items
            assert not max_size or batch.items <= max_size or batch.encodings
            batch.settle(Outcome.DELIVERED)
        assert [receipt.pending for receipt in receipts] == [0] * len(receipts)
        for group in set(group_of.values()):
            mine = [
                batch
                for batch in catcher.batches
                if (batch.origin.tenant, batch.origin.headers.get("k"), batch.signal, batch.encodings) == group
            ]
            order = [int(name.split(".")[0]) for name in names_of(mine)]
            expected = [number for receipt, of, number in taken if of == group for _ in range(receipt.items)]
            assert order == expected
        await stage.shutdown()
        assert value(stage, "metadata_cardinality") == 0

    run(scenario())


def test_defaults_are_the_collectors():
    config = Config()
    assert (config.send_batch_size, config.send_batch_max_size, config.timeout) == (8192, 0, 0.2)
    assert (config.metadata_keys, config.metadata_cardinality_limit) == ([], 1000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"send_batch_size": 10, "send_batch_max_size": 9}, "below send_batch_size"),
        ({"send_batch_max_size": 100}, "below send_batch_size"),
        ({"metadata_keys": ["A", "b", "a"]}, "'a' is there twice"),
        ({"timeout": "-1s"}, "greater than or equal to 0"),
        ({"timeout": 5}, "needs a unit"),
        ({"send_batch_size": -1}, "greater than or equal to 0"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValidationError, match=message):
        Config.model_validate(settings)
