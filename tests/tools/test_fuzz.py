import random

import fuzz
import pytest

from otelwp_agent.errors import MalformedError
from otelwp_agent.model import otlp_json, projections
from otelwp_agent.model.signal import Signal


@pytest.mark.parametrize(("target", "inputs"), [("front", 100), ("json", 1000), ("wire", 2000), ("inflate", 2000)])
def test_nothing_is_found_in_a_few_inputs(target, inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fuzz.run(target, 7, iter(range(1, inputs + 1))) == inputs
    assert list(tmp_path.iterdir()) == []


def test_inputs_are_the_same_for_the_same_seed():
    good = [b"abcdef" * 20, b"0123456789" * 20]
    first, second = ([fuzz.mutate(random.Random(3), good) for _ in range(5)] for _ in range(2))
    assert first == second


def test_what_is_found_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def fall_over(_signal, _data):
        message = "fell over"
        raise ZeroDivisionError(message)

    monkeypatch.setattr(fuzz, "try_wire", fall_over)
    with pytest.raises(ZeroDivisionError):
        fuzz.run("wire", 7, iter([1]))
    assert (tmp_path / "fuzz-wire.bin").exists()
    assert "ZeroDivisionError: fell over" in capsys.readouterr().err


def test_a_codec_that_loses_something_is_found(monkeypatch):
    body = fuzz.good_bodies()[Signal.LOGS]
    fuzz.try_json(Signal.LOGS, otlp_json.encode(Signal.LOGS, body))
    fuzz.try_wire(Signal.LOGS, body)
    with pytest.raises(MalformedError):
        projections.check(Signal.LOGS, b"\xff")
    fuzz.try_wire(Signal.LOGS, b"\xff")
    monkeypatch.setattr(fuzz, "count", lambda _signal, _body: 0)
    with pytest.raises(fuzz.FoundError, match="do not hold what they say"):
        fuzz.try_wire(Signal.LOGS, body)


def test_a_bomb_is_found(monkeypatch):
    monkeypatch.setattr(fuzz, "decompress", lambda _encoding, _data, limit: b"0" * (limit + 1))
    with pytest.raises(fuzz.FoundError, match="above the limit"):
        fuzz.try_inflate("gzip", b"")


def test_a_front_that_falls_over_is_found(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def fall_over(_self, _batch):
        message = "fell over"
        raise ZeroDivisionError(message)

    monkeypatch.setattr(fuzz.Sink, "consume", fall_over)
    with pytest.raises(fuzz.FoundError, match="500"):
        fuzz.run("front", 7, iter([1]))
    assert (tmp_path / "fuzz-front.bin").exists()
