import pytest

from otelwp_agent.config.document import Node, Place
from otelwp_agent.config.expand import MAX_FILE, Expander, ExpansionError, read_text
from otelwp_agent.config.parse import parse
from otelwp_agent.errors import Severity


def expand(text, problems=None, **env):
    """Return the tree of `k: text` with references replaced."""
    found = [] if problems is None else problems
    root = parse(f"k: {text}", "a.yaml", found)
    Expander(env, found).expand(root)
    if problems is None:
        assert found == []
    return root.value["k"]


def value(text, **env):
    return expand(text, **env).data()


def problem(text, **env):
    problems = []
    node = expand(text, problems, **env)
    (only,) = problems
    assert node.broken
    return only


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("${env:WORD}", "hi"),
        ("${WORD}", "hi"),
        ("a ${env:WORD} b ${WORD}", "a hi b hi"),
        ("localhost:${env:PORT}", "localhost:8888"),
        ("${env:NONE:-5s}", "5s"),
        ("${NONE:-5s}", "5s"),
        ("${env:NONE:-}", ""),
        ("${env:WORD:-other}", "hi"),
        ("${env:EMPTY}", None),
        ("${env:EMPTY:-other}", None),
        ("x${env:EMPTY}", "x"),
        ("$$", "$"),
        ("$$$$X", "$$X"),
        ("$${env:WORD}", "${env:WORD}"),
        ("$$${env:WORD}", "$hi"),
        ("some$${WORD}text", "some${WORD}text"),
        ("$${ONE}$${TWO}", "${ONE}${TWO}"),
        ("$${env:${WORD}}", "${env:hi}"),
        ("$${env:$${WORD}}", "${env:${WORD}}"),
        ("env:X}$${WORD}{", "env:X}${WORD}{"),
        ("$WORD", "$WORD"),
        ("5$", "5$"),
        ("${env:NONE:-$${env:NONE}}", "${env:NONE}"),
        ("${env:NONE:-${env:WORD}}", "hi"),
        ("${env:${env:NAME}}", "hi"),
        ("${env:NESTED}", "<hi>"),
        ("${env:DOLLARS}", "one $"),
        ("${yaml:[1, 2]}", [1, 2]),
    ],
)
def test_references(text, expected):
    env = {
        "WORD": "hi",
        "PORT": "8888",
        "EMPTY": "",
        "NAME": "WORD",
        "NESTED": "<${env:WORD}>",
        "DOLLARS": "one $$",
    }
    assert value(f"'{text}'", **env) == expected


@pytest.mark.parametrize(
    ("held", "typed"),
    [
        ("8888", 8888),
        ("0123", 83),
        ("0xdeadbeef", 3735928559),
        ("true", True),
        ("1.5", 1.5),
        ("t", "t"),
        ("[a, b/c]", ["a", "b/c"]),
        ("{a: 1}", {"a": 1}),
        ('"0123"', '"0123"'),
        ("!!str 0123", "!!str 0123"),
        ('["a",', '["a",'),
        ("1111:1111::", {"1111:1111:": None}),
        ("2023-03-20T03:17:55.432328Z", "2023-03-20T03:17:55.432328Z"),
    ],
)
def test_a_whole_reference_is_read_as_yaml_and_keeps_its_text(held, typed):
    node = expand("${env:X}", X=held)
    assert node.data() == typed
    assert node.text == held
    assert node.written == "${env:X}"


def test_references_in_what_a_variable_holds():
    node = expand("${env:LIST}", LIST="[a, '${env:B}', $$c]", B="8")
    assert node.data() == ["a", 8, "$c"]


def test_yaml_in_a_variable_may_have_comments_that_are_no_references():
    node = expand("${env:X}", X="true # see ${hello.world}")
    assert node.data() is True
    assert node.text is None


def test_files_bring_text_without_the_last_newline_or_yaml(tmp_path):
    secret = tmp_path / "token"
    secret.write_text("s3cret\n")
    settings = tmp_path / "batch.yaml"
    settings.write_text("batch:\n  timeout: ${env:T}\n")
    assert value(f"Bearer ${{file:{secret}}}") == "Bearer s3cret"
    node = expand(f"${{file:{settings}}}", T="5s")
    assert node.data() == {"batch": {"timeout": "5s"}}
    assert node.value["batch"].key_at == Place(str(settings), 1, 1)
    assert value("${file:${env:DIR}/token}", DIR=str(tmp_path)) == "s3cret"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${env:NONE}", "environment variable NONE is not set: set it, or give a default: `${env:NONE:-default}`"),
        ("a${NONE}", "environment variable NONE is not set"),
        ("${env:1}", "names no environment variable"),
        ("${env:a b}", "names no environment variable"),
        ("${vault:x}", "`${vault:x}` is not a known reference"),
        ("${file:/nonexistent}", "file `/nonexistent` does not exist"),
        ("${file:/}", "is a directory"),
        ("${env:LOOP}", "nested more than 32 deep"),
        ("x${env:LOOP}", "nested more than 32 deep"),
    ],
)
def test_what_cannot_be_replaced_is_said_with_its_place(text, words):
    found = problem(f"'{text}'", LOOP="${env:LOOP}")
    assert (found.line, found.column, found.path) == (1, 4, "k")
    assert words in found.message


def test_bombs_are_stopped():
    env = {f"V{n}": f"${{V{n + 1}}}" * 10 for n in range(9)} | {"V9": "x" * 1000}
    assert "expand to more than 1048576 characters" in problem("x${V0}", **env).message


def test_a_reference_that_is_never_closed_stays_with_a_warning():
    problems = []
    assert expand("'a ${env:X'", problems, X="1").data() == "a ${env:X"
    (warning,) = problems
    assert warning.severity is Severity.WARNING
    assert "`${` is not closed" in warning.message


def test_values_never_stand_in_messages():
    found = problem("${env:${env:SECRET}}", SECRET="hunter2 is secret")
    assert "hunter2" not in found.message


def test_files_that_cannot_be_read(tmp_path):
    large = tmp_path / "large"
    large.write_bytes(b"x" * (MAX_FILE + 1))
    latin = tmp_path / "latin"
    latin.write_bytes(b"a: 1\nb: \xe4")
    bom = tmp_path / "bom"
    bom.write_bytes(b"\xef\xbb\xbfa: 1")
    with pytest.raises(ExpansionError, match="larger than 4 MiB"):
        read_text(str(large))
    with pytest.raises(ExpansionError, match="not UTF-8") as caught:
        read_text(str(latin))
    assert caught.value.line == 2
    with pytest.raises(ExpansionError, match="cannot be read"):
        read_text("a\0b")
    assert read_text(str(bom)) == "a: 1"


def test_keys_and_numbers_are_left_alone():
    place = Place("a")
    root = Node({"${X}": Node(5, place, place)}, place, place)
    Expander({}, []).expand(root)
    assert root.data() == {"${X}": 5}
