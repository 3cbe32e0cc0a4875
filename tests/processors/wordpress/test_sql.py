import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otelwp_agent.processors.wordpress.sql import MAX_SHAPE, is_option, shape


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT * FROM wp_users WHERE ID IN (1, 22,333)", "SELECT * FROM wp_users WHERE ID IN (?)"),
        ("SELECT * FROM wp_users WHERE user_email = 'a@b.example'", "SELECT * FROM wp_users WHERE user_email = ?"),
        (r"SELECT 'it\'s', 'it''s', ''", "SELECT ?, ?, ?"),
        ('SELECT "a \\" b"', "SELECT ?"),
        ("SELECT 'cut off in the mid", "SELECT ?"),
        ("SELECT 'cut off after \\", "SELECT ?"),
        ("\n\t\tSELECT  a\n\t\tFROM wp_2_posts\n", "SELECT a FROM wp_2_posts"),
        ("SELECT `order 66` FROM t1 LIMIT 0, 1", "SELECT `order 66` FROM t1 LIMIT ?, ?"),
        ("INSERT INTO t VALUES (1, 'a'), (2, 'b'),(3,'c')", "INSERT INTO t VALUES (?)"),
        ("SELECT 1.5e-7, 0xFF, -3, a1, t.c2", "SELECT ?, ?, -?, a1, t.c2"),
        ("SELECT 1 /* user 42 */ -- secret\n+ 2 # more", "SELECT ? + ?"),
        (
            "SELECT SQL_CALC_FOUND_ROWS wp_posts.ID FROM wp_posts WHERE 1=1",
            "SELECT SQL_CALC_FOUND_ROWS wp_posts.ID FROM wp_posts WHERE ?=?",
        ),
        ("SELECT\x0cid\x0bFROM\xa0t", "SELECT id FROM t"),
        ("", ""),
    ],
)
def test_values_become_question_marks(statement, expected):
    assert shape(statement) == expected


@given(st.text(alphabet="sb' \"\\`;-#/*0", max_size=30), st.sampled_from("'\""))
def test_nothing_of_a_quoted_value_stays(value, quote):
    quoted = value.replace("\\", "\\\\").replace(quote, "\\" + quote)
    assert (
        shape(f"SELECT a FROM t WHERE x = {quote}{quoted}{quote} AND y = 1") == "SELECT a FROM t WHERE x = ? AND y = ?"
    )


@given(st.text(max_size=200))
def test_any_text_is_taken_and_a_shape_is_its_own_shape(text):
    once = shape(text)
    assert len(once) <= MAX_SHAPE
    assert shape(once) == once or "'" in once or '"' in once or "`" in once


@given(st.text(alphabet="0a?,() \t\n\r\x0b\x0c\x85\xa0#-/*", max_size=20))
@example("0\x0c#\n0")
def test_white_space_and_comments_leave_a_stable_shape(text):
    assert shape(shape(text)) == shape(text)


@pytest.mark.parametrize(
    "text", ["'" * 100_000, "(" * 100_000, "(?," * 30_000, "/*" * 50_000, "\\'" * 50_000, " -" * 9000]
)
def test_hostile_statements_cost_one_pass(text):
    started = time.process_time()
    shape(text)
    assert time.process_time() - started < 0.5


def test_options_that_are_looked_up_one_by_one():
    assert is_option(shape("SELECT option_value FROM wp_2_options WHERE option_name = 'x' LIMIT 1"))
    assert not is_option(shape("SELECT option_name FROM wp_options WHERE autoload = 'yes'"))
