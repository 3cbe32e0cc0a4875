"""A document read in slices is the document that is read at once, in C and in Python."""

from __future__ import annotations

import json
import random
from itertools import chain

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelwp_agent.errors import MalformedError, TooLargeError
from otelwp_agent.model import json_slices
from otelwp_agent.model.json_slices import Sliced, find_runs, loads
from otelwp_agent.model.native import extension

MOST = 10_000
ROUGH = ["a", "[", "]", '{,"', "\\", "é", '"', '\\"', ""]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(ROUGH),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(ROUGH), inner, max_size=4),
    max_leaves=40,
)
TARGETS = [1, 5, 20, 100]
BOTH = [find_runs] if extension is None else [find_runs, extension.find_runs]


@pytest.fixture
def small(monkeypatch):
    """Read every document in slices; return what sets their size."""
    monkeypatch.setattr(json_slices, "LARGE", 0)
    return lambda size: monkeypatch.setattr(json_slices, "SLICE", size)


def whole(value):
    if isinstance(value, Sliced):
        return [whole(each) for chunk in value.chunks() for each in chunk]
    if isinstance(value, dict):
        return {key: whole(each) for key, each in value.items()}
    return [whole(each) for each in value] if isinstance(value, list) else value


@settings(max_examples=200)
@given(document=VALUES, indent=st.sampled_from([None, 1]), target=st.sampled_from(TARGETS))
def test_the_slices_are_the_document(document, indent, target):
    data = json.dumps(document, indent=indent).encode()
    before = json_slices.LARGE, json_slices.SLICE
    json_slices.LARGE, json_slices.SLICE = 0, target
    try:
        assert loads(data, orjson.loads, MOST) == document
        assert whole(loads(data, orjson.loads, MOST, "all")) == document
        outermost = loads(data, orjson.loads, MOST, "outermost")
        assert [*chain(*outermost.chunks())] == document if isinstance(outermost, Sliced) else outermost == document
    finally:
        json_slices.LARGE, json_slices.SLICE = before


@settings(max_examples=300)
@given(document=VALUES, seed=st.integers(0, 10**6), changes=st.integers(0, 3), target=st.sampled_from(TARGETS))
def test_what_is_not_json_is_not_made_json(document, seed, changes, target):
    chance, data = random.Random(seed), bytearray(json.dumps(document).encode())
    for _ in range(changes):
        data[chance.randrange(len(data))] = chance.choice(b'[]{}",\\ a')
    data = bytes(data)
    assert len({json.dumps(find(data, target)) for find in BOTH}) == 1
    before = json_slices.LARGE, json_slices.SLICE
    json_slices.LARGE, json_slices.SLICE = 0, target
    try:
        expected = orjson.loads(data)
    except orjson.JSONDecodeError:
        with pytest.raises((orjson.JSONDecodeError, MalformedError)):
            loads(data, orjson.loads, MOST)
    else:
        assert loads(data, orjson.loads, MOST) == expected
    finally:
        json_slices.LARGE, json_slices.SLICE = before


@pytest.mark.parametrize("find", BOTH)
def test_runs_are_about_as_long_as_asked_for_and_cover_nearly_all(find):
    spans = ",".join('{"name":"%s","attributes":[{},{}]}' % ("x" * (number % 50)) for number in range(5000))
    scopes = f'{{"spans":[{spans}]}},{{"spans":[{spans}]}}'
    data = f'{{"resourceSpans":[{{"resource":{{}},"scopeSpans":[{scopes}]}}]}}'.encode()
    values, places = find(data, 4096)
    assert values == data.count(b"{") + data.count(b"[") + data.count(b",")
    sizes = [end - start for start, end in zip(places[::2], places[1::2], strict=True)]
    assert max(sizes) < 4096 + 200
    assert sum(sizes) > len(data) - 1000


@pytest.mark.parametrize("find", BOTH)
@pytest.mark.parametrize("data", [b"[", b"]", b"[}", b'["', b'"\\"', b"[" * 1025 + b"]" * 1025], ids=repr)
def test_brackets_have_to_match(find, data):
    assert find(data, 10) is None
    assert find(b"[" * 1024 + b"]" * 1024, 10) is not None


def test_brackets_that_do_not_match_are_malformed(small):
    small(10)
    with pytest.raises(MalformedError, match="brackets do not match"):
        loads(b"[[1]", orjson.loads, MOST)


def test_too_many_values_are_refused_before_anything_is_parsed(small):
    small(100)
    data = b"[" + b"{}," * 100 + b"{}]"
    with pytest.raises(TooLargeError, match="max_items_per_request"):
        loads(data, None, 10)


def test_a_long_piece_that_cannot_be_cut_may_not_hold_much(small, monkeypatch):
    small(100)
    monkeypatch.setattr(json_slices, "MAX_PIECE", 1000)
    monkeypatch.setattr(json_slices, "MAX_PIECE_VALUES", 100)
    assert loads(b'["%b"]' % (b"," * 2000), orjson.loads, MOST) == ["," * 2000]
    deep = b"[" * 13 + b"1," * 600 + b"1" + b"]" * 13
    for data in (json.dumps({str(number): 1 for number in range(200)}).encode(), deep):
        with pytest.raises(TooLargeError, match="send smaller batches"):
            loads(data, orjson.loads, MOST)


def test_an_array_that_is_needed_as_a_whole_may_not_have_many_elements(small, monkeypatch):
    small(100)
    monkeypatch.setattr(json_slices, "MAX_PIECE_VALUES", 100)
    data = json.dumps([{"tags": list(range(1000))}]).encode()
    assert loads(data, orjson.loads, 1000) == orjson.loads(data)
    with pytest.raises(TooLargeError, match="more than 999 "):
        loads(data, orjson.loads, 999)
    (span,) = loads(data, orjson.loads, 999, "all")
    assert sum(map(len, span["tags"].chunks())) == 1000


@pytest.mark.skipif(extension is None, reason="the extension module is not there")
def test_the_extension_module_refuses_what_is_no_target():
    with pytest.raises(ValueError, match="at least one"):
        extension.find_runs(b"", 0)
