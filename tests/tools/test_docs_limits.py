"""The table of limits on the page about security."""

import docs_limits
import pytest

import docs
from otelwp_agent.config import blocks

ROWS = [tuple(row) for row in docs_limits.rows()]


def test_every_kind_of_server_and_queue_has_its_limits_with_their_defaults():
    by_key = {(where, key): default for where, key, default, _ in ROWS}
    assert by_key["HTTP servers", "`max_connections`"] == "`4096`"
    assert by_key["HTTP servers", "`max_request_body_size`"] == "`20MiB`"
    assert by_key["gRPC servers", "`max_concurrent_streams`"] == "`100`"
    assert by_key["gRPC servers", "`max_recv_msg_size_mib`"] == "`20`"
    assert by_key["`sending_queue` of exporters", "`queue_size`"] == f"`{blocks.Queue().queue_size}`"
    assert by_key["the process", "in-flight bytes, hard limit"] == "`256MiB`"


def test_no_key_stands_twice_for_one_place_and_each_has_a_meaning():
    assert len({(where, key) for where, key, _, _ in ROWS}) == len(ROWS)
    assert [row for row in ROWS if not all(row)] == []


def test_what_bounds_nothing_is_left_out():
    assert not {"`endpoint`", "`tls`", "`cors`"} & {key for _, key, _, _ in ROWS}


def test_the_table_replaces_what_stands_between_the_marks():
    page = f"before\n{docs_limits.BEGIN}old\n{docs_limits.END}after\n"
    text = docs_limits.filled(page, "new\n")
    assert text == f"before\n{docs_limits.BEGIN}\nnew\n\n{docs_limits.END}after\n"
    assert docs_limits.filled(text, "new\n") == text


def test_a_page_without_the_marks_is_an_error():
    with pytest.raises(ValueError, match="has no place for the limits"):
        docs_limits.filled("nothing", "")


def test_the_page_is_up_to_date():
    page = docs.ROOT / docs.SECURITY
    assert docs.pages()[docs.SECURITY] == page.read_text("utf-8")
