import contextlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.config.document import Place
from otelwp_agent.config.parse import MAX_NODES, parse, read_scalar
from otelwp_agent.errors import ConfigError


def read(text):
    problems = []
    node = parse(text, "a.yaml", problems)
    assert problems == []
    return node


def failure(text):
    with pytest.raises(ConfigError) as caught:
        parse(text, "a.yaml", [])
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("on", "on"),
        ("0", 0),
        ("-12", -12),
        ("1_000", 1000),
        ("0x1f", 31),
        ("0o17", 15),
        ("0123", 83),
        ("089", 89),
        ("0b101", 5),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("5s", "5s"),
        ("1:30", "1:30"),
        ("2001-01-01", "2001-01-01"),
        ("0.0.0.0:4317", "0.0.0.0:4317"),
        ("<<", "<<"),
    ],
)
def test_plain_scalars_are_read_as_the_collector_does(text, value):
    assert read_scalar(text) == value
    assert type(read_scalar(text)) is type(value)
    assert read(f"k: {text}").data() == {"k": value}


def test_quotes_and_tags_decide():
    assert read("a: '5'\nb: !!str 5\nc: !!float 5\nd: \"\"").data() == {"a": "5", "b": "5", "c": 5.0, "d": ""}
    assert isinstance(read("!!float 5").value, float)


def test_everything_knows_its_place():
    root = read("a:\n  b: 1\n  c: [x,\n    y]\nd:\n")
    inner = root.value["a"].value["b"]
    assert inner.key_at == Place("a.yaml", 2, 3)
    assert inner.at == Place("a.yaml", 2, 6)
    assert root.value["a"].value["c"].value[1].at == Place("a.yaml", 4, 5)
    assert root.value["d"].place == Place("a.yaml", 5, 1)  # an empty value is best seen at its key


def test_what_comes_out_of_a_variable_stands_where_the_variable_does():
    place = Place("b.yaml", 7, 9)
    node = parse("a: [1]", "b.yaml", [], place)
    assert {below.at for below in node.walk()} == {place}


def test_anchors_and_merge_keys():
    text = "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 3}\none: {<<: *x, b: 9}\nmany: {<<: [*x, *y], d: 4}\ncopy: *x"
    data = read(text).data()
    assert data["one"] == {"a": 1, "b": 9}
    assert data["many"] == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert data["copy"] == data["x"]


def test_copies_of_an_anchor_are_apart():
    root = read("x: &x {a: 1}\ny: *x")
    assert root.value["x"].value["a"] is not root.value["y"].value["a"]


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a: 1\na: 2", 2, 1, "duplicate key `a`; the first is at line 1"),
        ("a: {b: 1, b: 2}", 1, 11, "key `b`"),
        ("? [a]\n: 1", 1, 3, "a key must be plain text"),
        ("a: {<<: 5}", 1, 9, "`<<` merges maps"),
        ("a: !thing 5", 1, 4, "tag `!thing` is not supported"),
    ],
)
def test_what_does_not_stop_reading_is_collected(text, line, column, words):
    problems = []
    parse(text, "a.yaml", problems)
    (problem,) = problems
    assert (problem.file, problem.line, problem.column) == ("a.yaml", line, column)
    assert words in problem.message


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a:\n\tb: 1", 2, 1, "there is a tab here"),
        ("a: [1,\nb: 2", 2, 5, "a list in `[ ]` is not closed"),
        ("a: {b: 1\nc: 2", 2, 2, "a map in `{ }` is not closed"),
        ("a: [${env:X}]", 1, 6, "`${…}` must be in quotes"),
        ("receivers\n  otlp: 1", 2, 7, "does the line above lack one"),
        ("a: b: c", 1, 5, "is a value not quoted?"),
        ("a:\n  b: 1\n c: 2", 3, 2, "not indented like the other lines"),
        ("a: 'x", 1, 6, "a text in quotes is not closed"),
        ("a: *x", 1, 4, "has no anchor"),
        ("a: &x [*x]", 1, 4, "contains an alias of itself"),
        ("a: %x", 1, 4, "put the value in quotes"),
        ("a: 1\n---\nb: 2", 2, 1, "a second document"),
        ("a: 1\nb: \x00", 2, 4, "U+0000"),
        ("a: " + "[" * 5000, 1, 1, "nested more than 64 deep"),
        ("a: " + "[" * 100 + "]" * 100, 1, 68, "nested more than 64 deep"),
    ],
)
def test_what_is_no_yaml_says_where_and_what_to_do(text, line, column, words):
    problem = failure(text)
    assert (problem.file, problem.line, problem.column) == ("a.yaml", line, column)
    assert words in problem.message


def test_aliases_cannot_blow_up():
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for name, before in zip("bcdefgh", "abcdefg", strict=True):
        bomb += f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    assert f"more than {MAX_NODES} values" in failure(bomb).message


texts = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], exclude_characters="\x85\u2028\u2029\ufeff")
)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
values = st.recursive(scalars, lambda below: st.lists(below, max_size=3) | st.dictionaries(texts, below, max_size=3))


@given(st.dictionaries(texts, values, max_size=4))
def test_reads_what_a_json_writer_writes(data):
    # In this style numbers are written as `!!int "5"`, which are numbers again.
    assert read(yaml.safe_dump(data, default_style='"', allow_unicode=True)).data() == data


@given(st.text(max_size=200))
def test_never_raises_anything_else(text):
    with contextlib.suppress(ConfigError):
        parse(text, "a.yaml", [])
