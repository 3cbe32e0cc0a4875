"""The phrase checker finds phrases in prose, and leaves code and plain sentences alone."""

import english
import pytest


@pytest.mark.parametrize(
    "source",
    [
        '"""What a queue holds."""\n',
        '"""Return a batch that is handed on."""\n',
        "x = 1  # nobody reads it\n",
        'raise ValueError("a trace id that is none")\n',
    ],
)
def test_phrases_in_python_are_found(source):
    assert [line for line, _ in english.python_problems(source)] == [1]


@pytest.mark.parametrize(
    "source",
    [
        '"""Return the batch that the queue holds."""\n',
        "nobody = told = 1\n",
        'pattern = "nobody"\n',
        '"""Call `hand_on(nobody)` and `tell`."""\n',
    ],
)
def test_names_and_code_are_not_prose(source):
    assert list(english.python_problems(source)) == []


def test_a_line_is_named_within_a_docstring():
    source = '"""Return it.\n\nThe module stands beside it.\n"""\n'
    assert [line for line, _ in english.python_problems(source)] == [3]


def test_markdown_outside_of_code():
    text = "Plain.\n\n```sh\nnobody\n```\n\n`nobody` and [a link](nobody.md)\n\nNobody knows.\n"
    assert [line for line, _ in english.markdown_problems(text)] == [9]


def test_comments_of_c_and_php():
    assert [line for line, _ in english.comment_problems("int a; /* fine */\n// it goes on\n# anew\n")] == [2, 3]


def test_the_exit_status_says_whether_anything_was_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(english, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("Everybody reads this.\n", "utf-8")
    assert english.main(["page.md"]) == 1
    assert "page.md:1: “Everybody”" in capsys.readouterr().out
    page.write_text("Users read this.\n", "utf-8")
    assert english.main(["page.md"]) == 0
