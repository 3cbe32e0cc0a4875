"""The fuzz targets run, find nothing in a few inputs, and find what is there."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks/fuzz"))

import fuzz_codecs
import fuzz_cost
import fuzz_front
import fuzz_heads
import fuzz_inflate
import fuzz_jaeger
import fuzz_traces
import fuzz_zipkin
import fuzzing

SECONDS = 0.5


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def front():
    front = fuzz_front.Front()
    yield front
    front.close()


@pytest.mark.parametrize(
    ("module", "target"),
    [
        (fuzz_codecs, fuzz_codecs.codecs),
        (fuzz_heads, fuzz_heads.heads),
        (fuzz_cost, fuzz_cost.cost),
        (fuzz_inflate, fuzz_inflate.inflate),
        (fuzz_jaeger, fuzz_jaeger.jaeger),
        pytest.param(
            fuzz_traces,
            fuzz_traces.traces,
            marks=pytest.mark.skipif(fuzz_traces.native is None, reason="the extension module is not there"),
        ),
        (fuzz_zipkin, fuzz_zipkin.zipkin),
    ],
    ids=["codecs", "heads", "cost", "inflate", "jaeger", "traces", "zipkin"],
)
def test_a_codec_stands_a_few_inputs(module, target):
    assert fuzzing.run(target, module.corpus(), seconds=SECONDS, seed=7) > 0


def test_the_front_stands_a_few_inputs(front):
    assert fuzzing.run(front.front, fuzz_front.corpus(), seconds=SECONDS, seed=7) > 0


def test_good_inputs_are_taken(front):
    for request in fuzz_front.corpus()[:12]:
        front.front(request)


def test_a_front_that_falls_over_is_found(front, monkeypatch):
    def fall_over(_self, _batch):
        message = "fell over"
        raise ZeroDivisionError(message)

    monkeypatch.setattr(fuzz_front.Sink, "consume", fall_over)
    with pytest.raises(AssertionError, match="500"):
        front.front(front.good)


def test_a_head_that_is_remembered_for_another_is_found(monkeypatch):
    def mix_up(heads, raw, plan):
        if heads._capacity and b"X-Tenant: a" in raw:
            heads.plans[raw.replace(b"X-Tenant: a", b"X-Tenant: z")] = plan

    monkeypatch.setattr(fuzz_heads.http_heads.HeadCache, "remember", mix_up)
    with pytest.raises(AssertionError):
        fuzz_heads.heads(fuzz_heads.PIECES[5].replace(b"X-Tenant: a", b"X-Tenant: z") + b"hello")


def test_a_bomb_is_found(monkeypatch):
    monkeypatch.setattr(fuzz_inflate, "decompress", lambda _encoding, _data, limit: b"0" * (limit + 1))
    with pytest.raises(AssertionError):
        fuzz_inflate.inflate(b"\0")


def slow(_body):
    started = time.process_time()
    while time.process_time() - started < 2 * fuzz_cost.SMALL_SECONDS:
        pass


def greedy(body):
    return bytes(2 * fuzz_cost.FREE_MEMORY + len(body)).upper()


@pytest.mark.parametrize(("reader", "cost"), [(slow, r"\d+\.\d ms"), (greedy, r"4[6-9]\.\d MiB")])
def test_a_reader_that_costs_too_much_is_found(monkeypatch, reader, cost):
    monkeypatch.setitem(fuzz_cost.READERS, "slow", (reader, fuzz_cost.bodies.json_body))
    with pytest.raises(AssertionError, match=f"slow: 100 bytes took .*{cost}"):
        fuzz_cost.within_budget("slow", bytes(100))


def test_a_step_that_blocks_the_loop_too_long_is_found(monkeypatch):
    name, body = "jaeger json", b'"' + bytes(fuzz_cost.SMALL) + b'"'
    monkeypatch.setitem(fuzz_cost.READERS, name, (slow, fuzz_cost.bodies.json_body))
    monkeypatch.setattr(fuzz_cost, "STEP_SECONDS", fuzz_cost.SMALL_SECONDS)
    with pytest.raises(AssertionError, match=f"{name}: {len(body)} bytes took"):
        fuzz_cost.within_budget(name, body)
    fuzz_cost.within_budget(name, b"," * (fuzz_cost.SMALL + 1))  # a thread decodes this body


class Careless:
    """An extension module that reads all requests as if there was nothing in them."""

    @staticmethod
    def read(_body, _marks, _name):
        return fuzz_traces.package.reading.TraceRequest(b"", []), []


def test_an_extension_module_that_reads_something_else_is_found(monkeypatch):
    monkeypatch.setattr(fuzz_traces, "native", Careless)
    with pytest.raises(AssertionError):
        fuzz_traces.traces(fuzz_traces.corpus()[0])


def test_what_was_found_is_kept(tmp_path, capsys):
    def fragile(_data):
        message = "fell over"
        raise ZeroDivisionError(message)

    with pytest.raises(ZeroDivisionError):
        fuzzing.run(fragile, [b"seed"], seconds=1, seed=1)
    assert (tmp_path / "fuzz-fragile.bin").exists()
    assert "fuzz-fragile.bin" in capsys.readouterr().err
