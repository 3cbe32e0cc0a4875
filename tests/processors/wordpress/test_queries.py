from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otelwp_agent.processors.wordpress.queries import MOST, N_PLUS_ONE, SLOW, Queries


def found(queries):
    return [(trace, parent, Span.FromString(data).events[0]) for trace, parent, data in queries.findings()]


def values(event):
    return {
        each.key: each.value.string_value or each.value.int_value or each.value.double_value
        for each in event.attributes
    }


def test_equal_queries_under_one_parent_are_reported_from_the_threshold_on():
    queries = Queries(least=3, slow=0)
    for index in range(3):
        queries.add(b"t", b"p", "SELECT a", 1000 + index, 2_001_000 + index)
    for parent in (b"p", b"q"):
        queries.add(b"t", parent, "SELECT b", 0, 1)
        queries.add(b"u", parent, "SELECT b", 0, 1)
    ((trace, parent, event),) = found(queries)
    assert (trace, parent, event.name, event.time_unix_nano) == (b"t", b"p", N_PLUS_ONE, 1000)
    assert values(event) == {
        "db.query.text": "SELECT a",
        "wordpress.db.query_count": 3,
        "wordpress.db.duration_ms": 6.0,
    }


def test_lookups_of_options_are_not_reported():
    queries = Queries(least=2, slow=0)
    for _ in range(50):
        queries.add(b"t", b"p", "SELECT option_value FROM wp_options WHERE option_name = ? LIMIT ?", 0, 1)
    assert found(queries) == []


def test_the_slowest_queries_are_reported_first_and_limited():
    queries = Queries(least=0, slow=100)
    for took in range(90, 130):
        queries.add(b"t", b"p", f"q{took}", 5, 5 + took)
    events = [event for _, _, event in found(queries)]
    assert [values(event)["db.query.text"] for event in events] == [f"q{took}" for took in range(129, 129 - MOST, -1)]
    assert {event.name for event in events} == {SLOW}


def test_negative_times_are_none():
    queries = Queries(least=1, slow=1)
    queries.add(b"t", b"p", "q", 10, 5)
    ((_, _, event),) = found(queries)
    assert event.name == N_PLUS_ONE


def test_only_so_many_findings():
    queries = Queries(least=1, slow=0)
    for index in range(50):
        queries.add(b"t", b"p", f"q{index}", 0, 1)
    assert len(found(queries)) == MOST
