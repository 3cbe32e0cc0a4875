import pytest

from otelwp_agent.config.load import Source, load
from otelwp_agent.errors import ConfigError, Severity


def problems(sources, sets=(), env=None):
    with pytest.raises(ConfigError) as caught:
        load(sources, sets, env or {})
    return [str(problem) for problem in caught.value.problems]


def test_sources_merge_in_order(tmp_path):
    (tmp_path / "a.yaml").write_text("a: {b: 1, l: [1, 2]}\nx: 1")
    (tmp_path / "b.yaml").write_text("a: {c: 2, l: [3]}")
    document = load(
        [str(tmp_path / "a.yaml"), f"file:{tmp_path / 'b.yaml'}", "env:MORE", "yaml:a::d: 4"],
        ["a.b=${env:B}", "x=[y]"],
        {"MORE": "a: {c: 3}", "B": "9"},
    )
    assert document.data() == {"a": {"b": 9, "c": 3, "d": 4, "l": [3]}, "x": ["y"]}
    assert document.place(("a", "l")).file == str(tmp_path / "b.yaml")
    assert document.place(("a", "c")).file == "env:MORE"
    assert document.place(("a", "b")).file == "--set a.b"
    assert document.files == (str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"), "env:MORE", "yaml")


def test_the_environment_is_the_process_own_if_none_is_given(monkeypatch):
    monkeypatch.setenv("OTELWP_TEST_WORD", "hi")
    assert load(["yaml:a: ${OTELWP_TEST_WORD}"]).data() == {"a": "hi"}


def test_a_reference_in_what_is_replaced_is_never_looked_at():
    assert load(["yaml:a: ${NOT_SET}", "yaml:a: 1"], env={}).problems == []


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("a.b=5", {"a": {"b": 5}}),
        ("a.b=x=y", {"a": {"b": "x=y"}}),
        ("a::b.c=5s", {"a": {"b.c": "5s"}}),
        ("a=", {"a": None}),
        ("a.b={c: [1]}", {"a": {"b": {"c": [1]}}}),
    ],
)
def test_set(text, data):
    assert load([], [text], {}).data() == data


def test_an_empty_file_beside_another_is_a_warning(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    document = load([str(tmp_path / "empty.yaml"), "yaml:a: 1"], env={})
    (warning,) = document.problems
    assert warning.severity is Severity.WARNING
    assert str(warning).endswith("empty.yaml:1:1: the file is empty")


def test_unset_variables_and_duplicates_are_told_with_everything_else():
    document = load(["yaml:{a: 1, a: 2, b: '${NOT_SET}'}"], env={})
    assert [problem.column for problem in document.problems] == [8, 17]
    assert document.root.value["b"].broken


def test_everything_that_cannot_be_read_is_told_at_once(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe4")
    (tmp_path / "list.yaml").write_text("- a")
    (tmp_path / "broken.yaml").write_text("a: 1\n\nb: [")
    told = problems(
        [str(tmp_path / name) for name in ("none.yaml", "latin.yaml", "list.yaml", "broken.yaml")] + ["env:NONE"],
        ["nothing", ".=1", "a=["],
    )
    assert told == [
        f"--config: file `{tmp_path}/none.yaml` does not exist",
        f"{tmp_path}/latin.yaml:2: file `{tmp_path}/latin.yaml` is not UTF-8 text: save it as UTF-8",
        f"{tmp_path}/list.yaml:1:1: a configuration is a map: `receivers:`, `exporters:`, `service:` and so on",
        f"{tmp_path}/broken.yaml:3:5: a value is missing here: is a `[` or `{{` not closed, or a comma too many?",
        "--config: environment variable NONE is not set",
        "--set: 'nothing' is not an assignment: write `--set processors.batch.timeout=5s`",
        "--set: '.=1' is not an assignment: write `--set processors.batch.timeout=5s`",
        "--set a: a value is missing here: is a `[` or `{` not closed, or a comma too many?",
    ]


def test_nothing_at_all(tmp_path):
    (tmp_path / "empty.yaml").write_text("")
    (told,) = problems([str(tmp_path / "empty.yaml")])
    assert told.startswith(f"{tmp_path}/empty.yaml: the configuration is empty: it needs")


def test_sources():
    assert Source.parse("a.yaml") == Source("file", "a.yaml")
    assert Source.parse("C:/a.yaml") == Source("file", "C:/a.yaml")
    assert Source.parse("yaml:a: 1\nb: 2") == Source("yaml", "a: 1\nb: 2")
    (told,) = problems(["https://example.com/config"])
    assert told.startswith("--config: `https:` is not supported")
