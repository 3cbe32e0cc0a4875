"""Dead letters of a sender."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
import structlog
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from structlog.testing import capture_logs

from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.config.blocks import Queue, Retry
from otelwp_agent.dead_letters.file import read_bodies, read_letters
from otelwp_agent.dead_letters.records import Letter
from otelwp_agent.dead_letters.sink import DeadLetterFile, Resent
from otelwp_agent.errors import MalformedError, PermanentError, RetryableError, TooLargeError
from otelwp_agent.exporters import otlp_http
from otelwp_agent.model.batch import Batch, merge
from otelwp_agent.model.signal import Signal
from otelwp_agent.sending.sender import Sender
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import NoHost
from tests.kit.graphs import until
from tests.kit.http_peer import HttpPeer, Seen, response
from tests.kit.senders import (
    EXACT,
    Destination,
    Letters,
    a_request,
    a_sender,
    outcomes,
    refuse,
    scripted,
)

if TYPE_CHECKING:
    from otelwp_agent.model.ledger_report import LedgerLine


class TestDeadLetters:
    @pytest.mark.parametrize(
        ("answer", "reason", "error"),
        [
            (PermanentError("no such tenant", reason="http_403"), "http_403", "no such tenant"),
            (MalformedError("bad span"), "malformed", "bad span"),
            (TooLargeError("413"), "too_large", "413"),
            (1, "partial_success", "the backend rejected them"),
            (ZeroDivisionError("x"), "internal_error", "a bug in the exporter: ZeroDivisionError('x')"),
        ],
    )
    def test_what_is_refused_for_good_goes_there_with_the_reason(self, deliver, answer, reason, error):
        letters, batch = Letters(), a_request("a")
        deliver(scripted(answer), batch, dead_letters=letters)
        assert letters.letters == [(["a"], "test/one", reason, error)]
        assert outcomes(batch) == [(0, 1, f"dead_letter:{reason}")]

    def test_what_a_full_file_does_not_keep_is_lost(self, deliver):
        batch = a_request("a")
        with capture_logs() as logs:
            exporter = deliver(refuse("a"), batch, dead_letters=Letters(full=True))
        assert outcomes(batch) == [(0, 1, "malformed")]
        assert "items dropped" in [log["event"] for log in logs]
        assert exporter.context.registry.value("otelwp_exporter_dropped_items", reason="malformed") == 1

    def test_what_is_kept_is_reported_as_kept(self, deliver):
        with capture_logs() as logs:
            exporter = deliver(refuse("a"), a_request("a"), dead_letters=Letters())
        errors = [(log["event"], log["reason"], log["items"]) for log in logs if log["log_level"] == "error"]
        assert errors == [("items kept as dead letters", "malformed", 1)]
        assert exporter.context.registry.value("otelwp_exporter_dropped_items") == 0

    def test_a_letter_that_is_resent_counts_once_in_the_ledger(self, loop):
        sender = a_sender(Destination(refuse("a"), loop.time), dead_letters=Letters())

        async def refused_resent_and_refused_again() -> list[LedgerLine]:
            lines = []
            await sender.start()
            for resent in (False, True):
                sender.consume(a_request("a"))
                if resent:
                    sender.resent(1, "malformed")
                    lines.append(sender.line())
                await sender.drain(loop.time() + 10) if resent else await asyncio.sleep(1)
                lines.append(sender.line())
            return lines

        first, pending, again = loop.run_until_complete(refused_resent_and_refused_again())
        assert (first.accepted, first.dropped, first.kept) == (1, 1, 1)
        assert (pending.accepted, pending.dropped, pending.in_flight) == (1, 0, 1)
        assert (again.accepted, again.dropped, again.kept, again.in_flight) == (1, 1, 1, 0)
        assert not [problem for line in (first, pending, again) for problem in line.problems()]

    def test_a_resent_letter_that_is_refused_again_is_counted_with_its_new_reason(self, deliver):
        letter = Letter("1", 0.0, "test/one", Signal.TRACES, 1, 4, "malformed", "no")
        batch = a_request("a")
        receipt = Resent(letter, lambda _: None)
        receipt.on_settled = None  # set by `deliver`
        batch = batch.with_body(batch.body, shares=[(receipt, 1)])
        with capture_logs() as logs:
            deliver(scripted(PermanentError("gone", reason="http_410")), batch, dead_letters=Letters())
        errors = [(log["event"], log["reason"]) for log in logs if log["log_level"] == "error"]
        assert errors == [("items kept as dead letters", "http_410")]

    @pytest.mark.parametrize("stops", [False, True], ids=["retries_exhausted", "shutdown"])
    def test_a_resent_letter_that_is_not_delivered_is_still_kept(self, loop, stops):
        letter = Letter("1", 0.0, "test/one", Signal.TRACES, 1, 4, "malformed", "no")
        receipt = Resent(letter, lambda _: None)
        batch = a_request("a")
        sender = a_sender(
            Destination(scripted(RetryableError("busy")), loop.time), retry=Retry(enabled=False), dead_letters=Letters()
        )

        async def resend() -> None:
            sender.consume(batch.with_body(batch.body, shares=[(receipt, 1)]))
            if not stops:
                await sender.start()
                await asyncio.sleep(1)
            await sender.shutdown()

        with capture_logs() as logs:
            loop.run_until_complete(resend())
        errors = [(log["event"], log["reason"], log["items"]) for log in logs if log["log_level"] == "error"]
        assert errors == [("items kept as dead letters", "malformed", 1)]
        assert (receipt.pending, sender.line().reasons, sender.line().balance) == (0, {"dead_letter:malformed": 1}, 0)

    def test_a_letter_of_an_earlier_process_is_new_to_the_ledger(self, loop):
        sender = a_sender(Destination(scripted(), loop.time), dead_letters=Letters())
        sender.consume(a_request("a"))
        sender.resent(1, "malformed")
        assert (sender.line().accepted, sender.line().in_flight, sender.line().balance) == (1, 1, 0)
        loop.run_until_complete(sender.shutdown())

    def test_one_item_above_the_limit_goes_there_without_a_try(self, deliver):
        letters, giant = Letters(), a_request("giant", padding=500)
        exporter = deliver(scripted(), giant, a_request("b"), max_request_bytes=200, dead_letters=letters)
        assert [(names, reason) for names, _, reason, _ in letters.letters] == [(["giant"], "too_large")]
        assert [names for _, names in exporter.tries] == [["b"]]

    def test_of_a_merged_batch_only_the_malformed_request(self, deliver):
        letters = Letters()
        batch = merge([a_request(f"s{number}", "more") for number in range(7)])
        deliver(refuse("s3"), batch, dead_letters=letters)
        assert [(names, reason) for names, _, reason, _ in letters.letters] == [(["s3", "more"], "malformed")]

    def test_a_backend_that_refuses_everything_leaves_nothing_out(self, deliver):
        async def never(_: list[str]) -> int:
            raise MalformedError("400")

        letters = Letters()
        deliver(never, merge([a_request(f"s{number}") for number in range(1000)]), dead_letters=letters)
        named = [name for names, *_ in letters.letters for name in names]
        assert sorted(named) == sorted(f"s{number}" for number in range(1000))

    @pytest.mark.parametrize(
        ("answers", "retry"),
        [([RetryableError("busy")], Retry(enabled=False)), ([1], EXACT)],
        ids=["retries_exhausted", "some rejected"],
    )
    def test_what_may_yet_be_taken_or_cannot_be_named_does_not(self, deliver, answers, retry):
        letters = Letters()
        deliver(scripted(*answers), a_request("a", "b"), retry=retry, dead_letters=letters)
        assert letters.letters == []

    def test_what_cannot_be_written_and_a_journal_has_is_sent_again(self, deliver):
        letters, batch = Letters(fails=2), a_request("a")
        exporter = deliver(refuse("a"), batch, dead_letters=letters, keeps=True)
        assert exporter.tries == [(0.0, ["a"]), (1.0, ["a"]), (2.0, ["a"])]
        assert len(letters.letters) == 1
        assert outcomes(batch) == [(0, 1, "dead_letter:malformed")]

    def test_what_cannot_be_written_and_nobody_has_is_dropped(self, deliver):
        letters, batch = Letters(fails=2), a_request("a")
        exporter = deliver(refuse("a"), batch, dead_letters=letters)
        assert len(exporter.tries) == 1
        assert (letters.letters, outcomes(batch)) == ([], [(0, 1, "malformed")])

    def test_nor_what_a_stop_drops(self, loop):
        letters = Letters()
        sender = a_sender(Destination(scripted(), loop.time), dead_letters=letters)
        sender.consume(a_request("a"))
        loop.run_until_complete(sender.shutdown())
        assert letters.letters == []

    async def test_one_malformed_request_among_a_thousand_arrives_there_alone(self, tmp_path):
        """A real server refuses what it cannot read: 1 000 other requests of the same body arrive, one does not."""

        def invalid_utf8() -> Batch:
            batch = a_request("poison")
            return batch.with_body(batch.body.replace(b"poison", b"\xff\xfeison"))

        arrived: list[str] = []

        async def answer(seen: Seen) -> bytes:
            try:
                message = ExportTraceServiceRequest.FromString(seen.body)
            except DecodeError:
                return response("400 Bad Request")
            arrived.extend(span.name for rs in message.resource_spans for ss in rs.scope_spans for span in ss.spans)
            return response()

        requests = [a_request(f"span {number}") for number in range(1000)]
        requests.insert(617, invalid_utf8())
        batch = merge(requests)
        log, registry = structlog.get_logger(), Registry()
        letters = DeadLetterFile(tmp_path / "dead-letters", 2**20, registry, log)
        letters.open()
        async with HttpPeer(answer) as peer:
            context = Context(ComponentId("otlp_http"), Kind.EXPORTER, registry, log, time.monotonic, NoHost())
            settings = {"endpoint": f"http://127.0.0.1:{peer.port}", "compression": "none"}
            exporter = otlp_http.FACTORY.build(otlp_http.Config(**settings), context)
            await exporter.start()
            sender = Sender(
                exporter, Signal.TRACES, queue=Queue(), retry=Retry(), timeout=60, dead_letters=letters, keeps=True
            )
            await sender.start()
            sender.consume(batch)
            await until(lambda: not any(receipt.pending for receipt, _ in batch.shares))
            await sender.drain(time.monotonic() + 60)
            await exporter.shutdown()
        letters.close()
        assert sorted(arrived) == sorted(f"span {number}" for number in range(1000))
        assert outcomes(batch).count((1, 0, "")) == 1000
        assert outcomes(batch)[617] == (0, 1, "dead_letter:malformed")
        (letter,) = read_letters(letters.path).letters
        assert (letter.reason, letter.items, letter.exporter) == ("malformed", 1, "otlp_http")
        ((_, body),) = read_bodies(letters.path, {letter.id})
        assert b"\xff\xfeison" in body
