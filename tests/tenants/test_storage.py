"""The journal and the dead-letter file, with a tenant that fills its share of them."""

import pytest
import structlog

from otelwp_agent.dead_letters.file import read_letters
from otelwp_agent.dead_letters.records import Fate
from otelwp_agent.dead_letters.sink import DeadLetterFile, Resent
from otelwp_agent.errors import Overloaded
from otelwp_agent.journal.admission import MAX_UNWRITTEN
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.metrics import Registry
from tests.journal.conftest import Life, Request

MIB = 2**20


@pytest.fixture
def live(tmp_path):
    lives = []

    def begin(**settings):
        lives.append(Life(tmp_path / "journal", **settings))
        return lives[-1]

    yield begin
    for life in lives:
        life.kill()


def body(number: int, size: int = 50_000) -> bytes:
    return b"\x0a" + bytes([number % 128]) * size


async def fill(life, tenant, most=100):
    """Write requests of a tenant until one is refused; return them and the refusal."""
    requests = []
    for number in range(most):
        try:
            requests += await life.put(body(number), tenant=tenant)
        except Overloaded as refusal:
            return requests, refusal
    raise AssertionError("nothing stops it")


class TestJournal:
    async def test_a_flood_leaves_space_for_another_tenant(self, live):
        life = live(max_size="2MiB")
        requests, refusal = await fill(life, "loud")
        assert sum(len(request.batch.body) for request in requests) == pytest.approx(MIB, rel=0.06)
        assert (refusal.tenant, refusal.reason) == ("loud", "tenant_journal_full")
        assert "tenant loud fills its share of the journal" in str(refusal)
        for _ in range(5):
            await life.put(body(1), tenant="quiet")
        life.journal.admit()
        assert life.registry.value("otelwp_journal_refused_entries", reason="tenant_journal_full") == 1

    async def test_data_without_a_tenant_may_use_all_of_it(self, live):
        life = live(max_size="1MiB")
        _, refusal = await fill(life, "")
        assert (refusal.tenant, refusal.reason) == ("", "journal_full")

    async def test_a_share_of_one_limits_nobody(self, live):
        life = live(max_size="1MiB", max_tenant_share=1)
        _, refusal = await fill(life, "loud")
        assert (refusal.tenant, refusal.reason) == ("", "journal_full")

    async def test_what_is_settled_is_free_again(self, live):
        life = live(max_size="1MiB")
        requests, _ = await fill(life, "loud")
        for request in requests:
            request.settle()
        assert (life.journal._entry_store.used, len(life.journal._entry_store.use)) == (0, 0)
        assert len((await fill(life, "loud"))[0]) >= 5

    async def test_the_use_is_known_after_a_crash(self, live):
        first = live(max_size="2MiB")
        requests, _ = await fill(first, "loud")
        await first.put(body(1), tenant="quiet")
        requests[0].settle()
        await first.flush()
        used = first.journal._entry_store.use.of("loud")
        first.kill()
        second = live(max_size="2MiB")
        store = second.journal._entry_store
        assert store.use.of("loud") == used
        assert store.used == used + store.use.of("quiet")
        replayed = second.replay()
        for entry, _, _ in replayed:
            entry.open = 0
            second.journal._entry_store.end(entry)
        assert (store.used, len(store.use)) == (0, 0)

    async def test_entries_that_move_to_a_newer_segment_are_counted_exactly(self, live):
        """One old entry of a tenant keeps its segment; it is copied when the journal is half full, again and again."""
        life = live(max_size="1MiB")
        store = life.journal._entry_store
        (old,) = await life.put(body(0, 1000), tenant="old")
        first = old.entry.segment
        for number in range(200):
            (request,) = await life.put(body(number), tenant="busy")
            request.settle()
            await life.flush()
        assert old.entry.segment is not first
        assert store.use.of("old") == store.used == old.entry.segment.sizes[old.entry.index]
        old.settle()
        assert (store.used, len(store.use)) == (0, 0)

    async def test_a_tenant_may_not_fill_what_waits_for_the_disk(self, live):
        life = live()
        large, quiet = body(0, MAX_UNWRITTEN // 4 - 1), body(1)
        for _ in range(2):
            life.journal.append(Request(life, large, 2, ("traces",), "loud"))
        with pytest.raises(Overloaded) as refused:
            life.journal.append(Request(life, large, 2, ("traces",), "loud"))
        assert (refused.value.tenant, refused.value.reason) == ("loud", "tenant_journal_slow")
        life.journal.append(Request(life, quiet, 2, ("traces",), "quiet"))
        await life.journal._commits.quiet()
        assert len(life.journal._admission._unwritten_use) == 0

    async def test_a_request_larger_than_the_share_is_accepted_alone(self, live):
        life = live(max_size="1MiB")
        await life.put(body(0, 700_000), tenant="large")
        with pytest.raises(Overloaded):
            await life.put(body(0, 10), tenant="large")


def a_sink(tmp_path, **settings):
    sink = DeadLetterFile(tmp_path / "dead-letters", 2**16, Registry(), structlog.get_logger(), **settings)
    sink.open()
    return sink


def letter_of(tenant, size=1000, receipt=None):
    receipt = receipt or Receipt(3)
    return Batch(Signal.TRACES, bytes(size), 3, Origin("otlp", "http", tenant), ((receipt, 3),))


def put(sink, batch):
    return sink.put(batch, exporter="otlp_http", reason="malformed", error="no")


def kept(sink, tenant, most=200):
    """Put letters of a tenant until one is lost; return their number."""
    for number in range(most):
        if put(sink, letter_of(tenant)) is Fate.LOST:
            return number
    raise AssertionError("nothing stops it")


class TestDeadLetters:
    async def test_a_flood_leaves_space_for_another_tenant(self, tmp_path):
        sink = a_sink(tmp_path)
        assert kept(sink, "loud") == pytest.approx(2**15 / 1250, abs=3)
        assert kept(sink, "quiet") == pytest.approx(2**14 / 1250, abs=3)
        assert put(sink, letter_of("third")) is Fate.KEPT
        assert sink._registry.value("otelwp_dead_letter_failed_items", cause="tenant_full") == 6
        assert sink._registry.value("otelwp_dead_letter_failed_items", cause="full") == 0
        sink.close()

    async def test_the_use_is_known_when_the_file_is_opened_again(self, tmp_path):
        sink = a_sink(tmp_path)
        kept(sink, "loud")
        sink.close()
        sink = a_sink(tmp_path)
        assert put(sink, letter_of("loud")) is Fate.LOST
        assert put(sink, letter_of("quiet")) is Fate.KEPT
        sink.close()

    async def test_what_is_purged_or_resent_is_free_again(self, tmp_path):
        sink = a_sink(tmp_path)
        number = kept(sink, "loud")
        letters = read_letters(sink.path).letters
        receipts = [Resent(letter, sink.settled) for letter in letters[:3]]
        for receipt in receipts:
            receipt.settle(Outcome.DELIVERED, 3)
        sink.flush()
        assert kept(sink, "loud") >= 3
        sink.purge(lambda letter: letter.tenant == "loud")
        assert len(sink._file._use) == 0
        assert kept(sink, "loud") == number
        sink.close()

    async def test_a_letter_that_is_refused_again_counts_once(self, tmp_path):
        sink = a_sink(tmp_path)
        put(sink, letter_of("a"))
        used = sink._file._use.of("a")
        for _ in range(30):
            (letter,) = read_letters(sink.path).letters
            receipt = Resent(letter, sink.settled)
            assert put(sink, letter_of("a", receipt=receipt)) is Fate.KEPT
            receipt.settle(Outcome.DROPPED, 3, "malformed")
            sink.flush()
        assert sink._file._use.of("a") == pytest.approx(used, abs=10)
        sink.close()

    async def test_letters_without_a_tenant_may_fill_it(self, tmp_path):
        sink = a_sink(tmp_path)
        assert kept(sink, "") == pytest.approx(2**16 / 1250, abs=4)
        assert sink._registry.value("otelwp_dead_letter_failed_items", cause="full") == 3
        sink.close()

    async def test_a_share_of_one_limits_nobody(self, tmp_path):
        sink = a_sink(tmp_path, max_tenant_share=1)
        assert kept(sink, "loud") == pytest.approx(2**16 / 1250, abs=4)
        assert sink._registry.value("otelwp_dead_letter_failed_items", cause="full") == 3
        sink.close()
