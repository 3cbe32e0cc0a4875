"""Secrets that are removed from what WordPress sends, and a second pass, which changes nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.wordpress_traces import Trace, load, put, run, values


def test_events_and_status_are_redacted_as_well():
    trace = Trace()
    span = trace.span(1)
    event = span.events.add(name="exception")
    put(event.attributes, {"exception.message": "no mail to a@b.example", "db.statement": "SELECT 'x'"})
    span.status.message = "no mail to a@b.example"
    span.status.code = 2
    (after,) = trace.spans_after()
    assert values(after.events[0].attributes) == {"exception.message": "no mail to [email]", "db.statement": "SELECT ?"}
    assert (after.status.message, after.status.code) == ("no mail to [email]", 2)
    (after,) = trace.spans_after({"redact": {"enabled": False}})
    assert after == span


def test_secrets_go_from_attributes_events_and_status():
    trace = Trace()
    span = trace.span(1, attributes={"message": "password=x1", "token": "x"})
    arguments = span.attributes.add(key="arguments").value.array_value
    for argument in ("--password=x1", "--verbose"):
        arguments.values.add(string_value=argument)
    put(span.events.add(name="log").attributes, {"text": "api_key=x1"})
    span.status.message = "Bearer abcdef12345 was refused"
    (after,) = trace.spans_after()
    by_key = {each.key: each.value for each in after.attributes}
    assert by_key["message"].string_value == "password=REDACTED"
    found = [each.string_value for each in by_key["arguments"].array_value.values]
    assert found == ["--password=REDACTED", "--verbose"]
    assert values(after.events[0].attributes) == {"text": "api_key=REDACTED"}
    assert after.status.message == "Bearer REDACTED was refused"
    (after,) = trace.spans_after({"redact": {"enabled": False}})
    assert after == span


def test_redaction_can_hash_and_has_additional_names():
    trace = Trace()
    trace.span(1, attributes={"user.id": "7", "mine": "x", "url.query": "voucher=1&x=2"})
    redact = {"mode": "hash", "hash_key": "k", "attributes": ["mine"], "parameters": ["voucher"]}
    attributes = values(trace.spans_after({"redact": redact})[0].attributes)
    assert [len(attributes[key]) for key in ("user.id", "mine")] == [16, 16]
    assert attributes["url.query"] not in ("voucher=1&x=2", "voucher=REDACTED&x=2")


KEYS = st.sampled_from(
    [
        "db.query.text",
        "url.full",
        "url.query",
        "http.url",
        "wp.user_id",
        "code.file.path",
        "blog_id",
        "http.status_code",
    ]
)


VALUES = st.one_of(st.text(max_size=40), st.integers(-(2**63), 2**63 - 1), st.just("SELECT 'x' LIMIT 1"))


@given(
    st.lists(
        st.tuples(st.dictionaries(KEYS, VALUES, max_size=4), st.sampled_from(["wordpress.request", "WP.x", "page"])),
        min_size=1,
        max_size=5,
    )
)
def test_whatever_is_sent_a_second_pass_changes_nothing(spans):
    trace = Trace(scope="wordpress")
    for number, (attributes, name) in enumerate(spans):
        trace.span(number + 1, number // 2, attributes, name=name, kind=2)
    once = trace.run({"n_plus_one": 2})
    twice, _ = run(once.SerializeToString(), {"n_plus_one": 2})
    assert twice == once


@pytest.mark.parametrize("name", ["auto-wordpress-front.pb", "auto-wordpress-post.json"])
def test_a_second_pass_over_real_traces_changes_nothing(name):
    once, _ = run(load(name), {"n_plus_one": 3})
    assert run(once.SerializeToString(), {"n_plus_one": 3})[0] == once
