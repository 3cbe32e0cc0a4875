from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError
from structlog.testing import capture_logs

from otelwp_agent.capacity import Capacity, Offer
from otelwp_agent.errors import MalformedError, Overloaded, PermanentError, RetryableError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.processors.batch import Config
from otelwp_agent.testing import messages_of, run
from tests.kit.stages import batch_of, build


def spans(count, start=0):
    """Return a batch of spans that are named by their number."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number in range(start, start + count):
        scope.spans.add(name=str(number))
    return batch_of(request.SerializeToString(), count)


def names(batches):
    return [span.name for batch in batches for span in messages_of(Signal.TRACES, batch.body)]


def value(stage, name):
    return stage.context.registry.value(f"otelcol_processor_batch_{name}", processor=str(stage.context.id))


def test_an_encoded_batch_is_forwarded_at_once_and_alone():
    async def scenario():
        stage, catcher = build("batch", {"timeout": "10s"})
        stage.consume(spans(3))
        encoded = [spans(5).encoded("zstd", b"one"), spans(5).encoded("zstd", b"two")]
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
        stage.consume(spans(2))
        await asyncio.sleep(0.15)
        stage.consume(spans(3, 2))
        assert catcher.batches == []
        await asyncio.sleep(0.06)
        assert names(catcher.batches) == ["0", "1", "2", "3", "4"]
        assert len(catcher.batches) == 1
        assert value(stage, "timeout_trigger_send") == 1
        assert value(stage, "batch_size_trigger_send") == 0
        assert value(stage, "metadata_cardinality") == 0

    run(scenario())


def test_a_batch_with_enough_items_is_forwarded_at_once():
    async def scenario():
        stage, catcher = build("batch", {"send_batch_size": 5})
        stage.consume(spans(4))
        assert catcher.batches == []
        assert value(stage, "metadata_cardinality") == 1
        stage.consume(spans(3))
        assert [batch.items for batch in catcher.batches] == [7]
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
        stage.consume(spans(3))
        stage.consume(spans(7, 3))
        assert [batch.items for batch in catcher.batches] == [4, 4]
        await asyncio.sleep(0.21)
        assert [batch.items for batch in catcher.batches] == [4, 4, 2]
        assert names(catcher.batches) == [str(number) for number in range(10)]

    run(scenario())


def test_without_timeout_batches_are_forwarded_at_once_and_split_at_the_limit():
    async def scenario():
        stage, catcher = build("batch", {"timeout": 0, "send_batch_max_size": 3, "send_batch_size": 2})
        stage.consume(spans(7))
        assert [batch.items for batch in catcher.batches] == [3, 3, 1]
        catcher.error = Overloaded("full")
        with pytest.raises(Overloaded):
            stage.consume(spans(7))
        assert value(stage, "metadata_cardinality") == 0

    run(scenario())


def test_without_timeout_a_batch_is_accepted_if_its_first_part_is():
    async def scenario():
        stage, catcher = build("batch", {"timeout": 0, "send_batch_max_size": 3, "send_batch_size": 2})
        catcher.errors = [None, Overloaded("full"), Overloaded("full")]
        stage.consume(spans(7))
        assert catcher.items == 3
        with pytest.raises(Overloaded):
            stage.consume(spans(1, 7))
        await asyncio.sleep(1)
        assert names(catcher.batches) == [str(number) for number in range(7)]
        stage.consume(spans(1, 7))
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


def test_a_refused_batch_is_kept_and_senders_are_refused_when_one_more_is_full():
    async def scenario():
        stage, catcher = build("batch", {"send_batch_size": 5, "timeout": "1s"})
        catcher.error = Overloaded("full")
        stage.consume(spans(5))
        stage.admit()
        stage.consume(spans(4, 5))
        stage.admit()
        stage.consume(spans(3, 9))
        for _ in range(2):
            with pytest.raises(Overloaded) as caught:
                stage.admit()
            assert caught.value.retry_after
            refused = spans(1, 99)
            with pytest.raises(Overloaded):
                stage.consume(refused)
            assert refused.shares[0][0].pending == 1
        await asyncio.sleep(10)
        catcher.error = None
        await asyncio.sleep(0.06)
        assert [batch.items for batch in catcher.batches] == [5, 7]
        assert names(catcher.batches) == [str(number) for number in range(12)]
        stage.admit()
        stage.consume(spans(1))
        await asyncio.sleep(1.01)
        assert catcher.items == 13

    run(scenario())


class Backend:
    """A next stage with capacity that is reported, for everybody or for one tenant."""

    def __init__(self):
        now = asyncio.get_running_loop().time
        self.capacity = Capacity("exporters/x", now, isolate_after=5.0)
        self.share = Capacity("exporters/x", now, share="loud", cause=self.capacity)
        self.full, self.full_for = False, ""
        self.batches = []

    def refusal(self, batch):
        if batch.origin.tenant == self.full_for != "":
            self.share.refuse()
            return Overloaded("share", capacity=self.share)
        if self.full:
            self.capacity.refuse()
            return Overloaded("full", capacity=self.capacity)
        return None

    def consume(self, batch):
        refusal = self.refusal(batch)
        if refusal is not None:
            raise refusal
        self.batches.append(batch)

    def free(self):
        self.full, self.full_for = False, ""
        self.capacity.freed()
        self.share.freed()


def behind(settings):
    stage, _ = build("batch", settings)
    stage.next = Backend()
    return stage, stage.next


def test_a_refused_batch_is_offered_only_when_the_next_stage_reports_capacity():
    async def scenario():
        stage, backend = behind({"send_batch_size": 5})
        backend.full = True
        stage.consume(spans(5))
        await asyncio.sleep(100)
        assert stage.context.registry.value("otelwp_processor_batch_next_refused") == 1, "nobody has asked again"
        backend.free()
        await asyncio.sleep(0)
        assert names(backend.batches) == ["0", "1", "2", "3", "4"]

    run(scenario())


def test_refused_senders_are_called_when_there_is_capacity_again():
    async def scenario():
        stage, backend = behind({"send_batch_size": 5})
        backend.full = True
        for start in (0, 5):
            stage.consume(spans(5, start))
        refused = stage.refusal(spans(1))
        assert refused.capacity.root is backend.capacity, "an exporter's queue is the cause"
        called = []
        offer = Offer(lambda: called.append(stage.refusal(spans(1))))
        offer.wait(refused)
        await asyncio.sleep(10)
        assert called == []
        backend.free()
        await asyncio.sleep(0.01)
        assert called == [None]

    run(scenario())


def test_an_admitted_batch_is_accepted_above_the_limit():
    async def scenario():
        stage, backend = behind({"send_batch_size": 5})
        backend.full = True
        for start in (0, 5):
            stage.consume(spans(5, start))
        with pytest.raises(Overloaded):
            stage.consume(spans(1, 10))
        admitted = spans(1, 10)
        admitted.admitted = True
        stage.consume(admitted)
        backend.free()
        await asyncio.sleep(0.01)
        assert len(names(backend.batches)) == 11
        assert not any(batch.admitted for batch in backend.batches), "what is merged is offered like anything else"

    run(scenario())


def test_a_tenant_with_a_full_share_does_not_block_other_tenants():
    async def scenario():
        stage, backend = behind({"send_batch_size": 1})
        backend.full_for = "loud"

        def one(tenant):
            return batch_of(b"", 1, origin=Origin(tenant=tenant))

        for _ in range(2):
            stage.consume(one("loud"))
        assert stage.refusal(one("loud")).capacity.share == "loud"
        stage.admit()
        stage.consume(one("quiet"))
        assert [batch.origin.tenant for batch in backend.batches] == ["quiet"]
        backend.free()
        await asyncio.sleep(0.01)
        assert len(backend.batches) == 3

    run(scenario())


def test_early_refusals_do_not_depend_on_the_number_of_groups():
    """The time of `admit` must not grow with the number of tenants."""

    async def scenario():
        stage, backend = behind({"send_batch_size": 1})
        backend.full = True
        for number in range(1000):
            for _ in range(2):
                stage.consume(batch_of(b"", 1, origin=Origin(tenant=str(number))))

        class Unseen(dict):
            def values(self):
                raise AssertionError("it looks at every group")

            __iter__ = items = keys = values

        stage._groups = Unseen(stage._groups)
        with pytest.raises(Overloaded):
            stage.admit()
        stage._groups = dict(dict.items(stage._groups))
        backend.free()
        await asyncio.sleep(0.01)
        assert len(backend.batches) == 2000
        stage.admit()
        assert (stage._blocked, stage._full, stage._held) == (0, 0, 0)

    run(scenario())


def test_offers_to_the_next_stage_slow_down():
    async def scenario():
        stage, catcher = build("batch", {"send_batch_size": 1})
        catcher.error = RetryableError("not now")
        stage.consume(spans(1))
        await asyncio.sleep(1)
        offers = stage.context.registry.value("otelwp_processor_batch_next_refused")
        assert 15 <= offers <= 25

    run(scenario())


def test_a_permanently_refused_batch_is_dropped_with_the_reason_and_others_continue():
    async def scenario():
        stage, catcher = build("batch", {"send_batch_size": 4, "send_batch_max_size": 4})
        catcher.errors = [PermanentError("no", reason="nonsense")]
        batch = spans(8)
        with capture_logs() as logs:
            stage.consume(batch)
        (receipt,) = [receipt for receipt, _ in batch.shares]
        assert receipt.count(Outcome.DROPPED) == 4
        assert receipt.reason == "nonsense"
        assert catcher.items == 4
        assert [(log["log_level"], log["reason"], log["items"]) for log in logs] == [("error", "nonsense", 4)]

    run(scenario())


def test_shutdown_forwards_all_batches_and_waits_for_the_next_stage():
    async def scenario():
        stage, catcher = build("batch", {"timeout": "1h"})
        stage.consume(spans(2))
        catcher.error = Overloaded("full")
        stopping = asyncio.ensure_future(stage.shutdown())
        await asyncio.sleep(5)
        assert not stopping.done()
        catcher.error = None
        await stopping
        assert catcher.items == 2
        await stage.shutdown()
        stage.consume(spans(1))
        assert catcher.items == 3, "what comes late passes at once"

    run(scenario())


def test_a_cancelled_shutdown_settles_the_remaining_batches():
    async def scenario():
        stage, catcher = build("batch", {"send_batch_size": 3})
        catcher.error = Overloaded("full")
        batches = [spans(3), spans(2)]
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
            order = [int(name.split(".")[0]) for name in names(mine)]
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
