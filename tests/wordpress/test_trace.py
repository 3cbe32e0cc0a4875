"""Ids, sampling, encoding: what stands in a trace, as the agent's own decoder reads it."""

import base64
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.model import projections
from otelwp_agent.model.signal import Signal
from otelwp_agent.sampling import consistent as sampling

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"

slow = settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def decoded(body):
    request = ExportTraceServiceRequest.FromString(body)
    (resource,) = request.resource_spans
    (scope,) = resource.scope_spans
    assert projections.check(Signal.TRACES, body) == len(scope.spans)
    return resource.resource, scope.scope, list(scope.spans)


CONTEXT = """
    return array_map(static function ($each) {
        $c = Otelwp\\Trace_Context::from_headers($each[0], $each[1]);
        return [$c->trace_id, $c->parent_id, $c->sampled, $c->state, (object) $c->ot];
    }, $data);
"""


def test_a_caller_is_continued(php):
    headers = [
        [f"00-{TRACE}-{SPAN}-01", "rojo=00f067aa0ba902b7,ot=th:c;rv:6e6d1a75832a2f,congo=t61rcWkgMzE"],
        [f"00-{TRACE}-{SPAN}-00", ""],
        [f"cc-{TRACE}-{SPAN}-03-what the future will bring", ""],
        [f"  00-{TRACE}-{SPAN}-01 ", "x=1,broken,ot=,UPPER=1"],
    ]
    assert php(CONTEXT, headers) == [
        [TRACE, SPAN, True, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", {"th": "c", "rv": "6e6d1a75832a2f"}],
        [TRACE, SPAN, False, "", {}],
        [TRACE, SPAN, True, "", {}],
        [TRACE, SPAN, True, "x=1", {}],
    ]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\nSet-Cookie: x",
    ],
)
def test_a_broken_header_begins_a_trace_of_its_own(php, header):
    ((trace_id, parent_id, sampled, state, ot),) = php(CONTEXT, [[header, "rojo=1,ot=th:8"]])
    assert len(bytes.fromhex(trace_id)) == 16
    assert trace_id != TRACE
    assert (parent_id, sampled, state, ot) == ("", None, "", {})


OF_REQUEST = """
    return array_map(static function ($each) {
        $c = Otelwp\\Trace_Context::of_request($each[0], $each[1], $each[2], $each[3]);
        $link = $c->link;
        $to = $link ? [$link->trace_id, $link->parent_id] : null;
        return [$c->trace_id, $c->parent_id, $c->sampled, $c->tracestate(null), $to];
    }, $data);
"""


def test_a_trusted_caller_is_continued(php):
    caller = [f"00-{TRACE}-{SPAN}-01", "rojo=1,ot=rv:6e6d1a75832a2f"]
    trusted = [[*caller, "10.0.0.7", ["10.0.0.0/8"]], [*caller, "fd00::7", ["10.0.0.0/8", "fd00::/8"]]]
    assert php(OF_REQUEST, trusted) == [[TRACE, SPAN, True, "ot=rv:6e6d1a75832a2f,rojo=1", None]] * 2


def test_the_context_of_a_stranger_becomes_a_link(php):
    """Neither the trace id, by which is sampled, nor the randomness or the state is the stranger's."""
    caller = [f"00-{TRACE}-{SPAN}-01", "rojo=1,ot=th:0;rv:ffffffffffffff"]
    strangers = [[*caller, "192.0.2.7", []], [*caller, "192.0.2.7", ["10.0.0.0/8"]], [*caller, "", ["0.0.0.0/0"]]]
    for trace_id, parent_id, sampled, state, link in php(OF_REQUEST, strangers):
        assert trace_id != TRACE
        assert (len(bytes.fromhex(trace_id)), parent_id, sampled, state) == (16, "", None, "")
        assert link == [TRACE, SPAN]


def test_nobody_to_link_to(php):
    ((_, parent_id, sampled, _, link),) = php(OF_REQUEST, [["nonsense", "rojo=1", "192.0.2.7", []]])
    assert (parent_id, sampled, link) == ("", None, None)


def test_what_is_handed_on(php):
    assert php(
        f"""
        $c = Otelwp\\Trace_Context::from_headers('00-{TRACE}-{SPAN}-01', 'a=1,ot=th:c;rv:6e6d1a75832a2f');
        return [$c->traceparent('b7ad6b7169203331', true), $c->traceparent('b7ad6b7169203331', false),
                $c->tracestate('8'), $c->tracestate(null), Otelwp\\Trace_Context::from_headers('')->tracestate(null)];
    """
    ) == [
        f"00-{TRACE}-b7ad6b7169203331-01",
        f"00-{TRACE}-b7ad6b7169203331-00",
        "ot=th:8;rv:6e6d1a75832a2f,a=1",
        "ot=rv:6e6d1a75832a2f,a=1",
        "",
    ]


@slow
@given(st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=16, max_size=16)), min_size=100, max_size=100))
def test_sampling_is_consistent_with_opentelemetry(php, pairs):
    """The same rate and trace id: the same decision as by the rule in the specification, 56 bits of it."""
    found = php(
        """return array_map(static function ($each) {
            $th = Otelwp\\Sampler::threshold($each[0]);
            return [$th, Otelwp\\Sampler::keeps($each[1], $th)];
        }, $data);""",
        [[rate, id_.hex()] for rate, id_ in pairs],
    )
    for (rate, id_), (threshold, kept) in zip(pairs, found, strict=True):
        below = round((1 - rate) * 2**56)
        if rate == 0 or below >= 2**56:
            assert (threshold, kept) == (None, False)
            continue
        assert int(threshold.ljust(14, "0"), 16) == below
        assert kept == (int.from_bytes(id_[-7:], "big") >= below)


def test_a_tenth_is_a_tenth(php):
    kept = php("""
        $th = Otelwp\\Sampler::threshold(0.1); $kept = 0;
        for ($i = 0; $i < 20000; $i++) { $kept += Otelwp\\Sampler::keeps(bin2hex(random_bytes(16)), $th) ? 1 : 0; }
        return $kept;
    """)
    assert abs(kept - 2000) < 6 * math.sqrt(20000 * 0.1 * 0.9)


def test_the_randomness_that_a_caller_states_counts(php):
    assert php(f"""
        $th = Otelwp\\Sampler::threshold(0.5);
        return [Otelwp\\Sampler::keeps('{"f" * 32}', $th, '00000000000000'),
                Otelwp\\Sampler::keeps('{"0" * 32}', $th, 'FFFFFFFFFFFFFF'),
                Otelwp\\Sampler::keeps('{"f" * 32}', $th, 'no hex at all!')];
    """) == [False, True, True]


def test_thresholds_mean_to_the_agent_what_they_mean_here(php):
    threshold = php("return Otelwp\\Sampler::threshold(0.1);")
    assert sampling.parse_threshold(threshold) == round(0.9 * 2**56)


ENCODE = """
    $trace = new Otelwp\\Trace(Otelwp\\Trace_Context::from_headers($data['traceparent'] ?? ''), $data['limit'] ?? 200);
    {code}
    $trace->complete();
    $body = Otelwp\\Otlp::encode($trace, ['service.name' => 'shop'], 'ot=th:8');
    return [base64_encode($body), $trace->dropped];
"""


def encoded(php, code, data=None):
    body, dropped = php(ENCODE.replace("{code}", code), data)
    return base64.b64decode(body), dropped


def test_spans_as_the_agent_reads_them(php):
    body, dropped = encoded(
        php,
        """
        $root = $trace->open('GET single', 2, ['http.response.status_code' => 200], 1700000000000000000);
        $phase = $trace->open('template');
        $attributes = ['ok' => true, 'ms' => 1.5, 'who' => ['a', 'b']];
        $query = $trace->add('SELECT posts', 3, 1700000000000000001, 1700000000000000002, $attributes);
        $trace->event($query, 'slow', ['n' => PHP_INT_MAX]);
        $trace->fail($query, 'gone');
        $trace->close($phase, ['later' => 'yes']);
        $trace->set($root, ['nan' => NAN, 'inf' => INF]);
        """,
        {"traceparent": f"00-{TRACE}-{SPAN}-01"},
    )
    resource, scope, (root, phase, query) = decoded(body)
    assert dropped == 0
    assert [(each.key, each.value.string_value) for each in resource.attributes] == [("service.name", "shop")]
    assert (scope.name, scope.version) == ("otelwp", "0.0.0")
    assert {each.trace_id.hex() for each in (root, phase, query)} == {TRACE}
    assert (root.parent_span_id.hex(), root.flags, root.kind, root.trace_state) == (SPAN, 0x301, 2, "ot=th:8")
    assert (phase.parent_span_id, query.parent_span_id) == (root.span_id, phase.span_id)
    assert (phase.flags, query.flags) == (0x101, 0x101)
    assert len({root.span_id, phase.span_id, query.span_id}) == 3
    assert (query.start_time_unix_nano, query.end_time_unix_nano) == (1700000000000000001, 1700000000000000002)
    assert root.end_time_unix_nano >= phase.end_time_unix_nano > phase.start_time_unix_nano > 1700000000000000000
    values = {each.key: each.value for each in query.attributes}
    assert (values["ok"].bool_value, values["ms"].double_value) == (True, 1.5)
    assert [each.string_value for each in values["who"].array_value.values] == ["a", "b"]
    (event,) = query.events
    assert (event.name, event.attributes[0].value.int_value) == ("slow", 2**63 - 1)
    assert (query.status.code, query.status.message) == (2, "gone")
    specials = {each.key: each.value.double_value for each in root.attributes if each.key in ("nan", "inf")}
    assert math.isnan(specials["nan"])
    assert specials["inf"] == math.inf


@pytest.mark.parametrize("flags", ["00", "01"])
def test_a_link_as_the_agent_reads_it(php, flags):
    body, _ = encoded(
        php,
        f"""
        $caller = '00-{TRACE}-{SPAN}-{flags}';
        $trace->context = Otelwp\\Trace_Context::of_request($caller, 'rojo=1,ot=th:8', '192.0.2.7', []);
        $root = $trace->open('GET front', 2); $trace->open('init');
        """,
    )
    _, _, (root, inner) = decoded(body)
    (link,) = root.links
    assert (link.trace_id.hex(), link.span_id.hex(), link.trace_state) == (TRACE, SPAN, "ot=th:8,rojo=1")
    assert link.flags == 0x300 | int(flags)
    assert (root.trace_id.hex() != TRACE, root.parent_span_id, root.flags) == (True, b"", 0x101)
    assert list(inner.links) == []


def test_a_trace_without_a_caller_has_no_parent(php):
    body, _ = encoded(php, "$trace->open('GET front', 2);")
    _, _, (root,) = decoded(body)
    assert (root.parent_span_id, root.flags) == (b"", 0x101)


def test_spans_beyond_the_limit_are_counted_and_harm_nothing(php):
    body, dropped = encoded(
        php,
        """
        $root = $trace->open('root', 2);
        for ($i = 0; $i < 10; $i++) {
            $span = $trace->open("child $i");
            $trace->event($span, 'x'); $trace->set($span, ['a' => 1]); $trace->fail($span); $trace->id($span);
            $trace->rename($span, 'y'); $trace->finish($span); $trace->close($span);
        }
        """,
        {"limit": 4},
    )
    _, _, spans = decoded(body)
    assert (len(spans), dropped) == (4, 7)
    assert {span.parent_span_id for span in spans[1:]} == {spans[0].span_id}


def test_what_is_told_later_belongs_to_what_went_on_then(php):
    found = php(r"""
        $trace = new Otelwp\Trace(Otelwp\Trace_Context::from_headers(''), 9);
        $root = $trace->open('root', 2, [], 1000000); $a = $trace->add('a', 1, 1000000, 2000000, []);
        $inner = $trace->add('inner', 1, 1200000, 1800000, []); $call = $trace->add('call', 3, 1300000, 1700000, []);
        $b = $trace->add('b', 1, 2000000, 0, []);
        return [$trace->at(1100000, 1150000), $trace->at(1400000, 1500000), $trace->at(1700000, 1900000),
                $trace->at(2100000, 2200000), $trace->at(1900000, 2500000), $trace->at(5, 6)];
    """)
    assert found == [1, 2, 1, 4, 0, -1]


def test_what_was_left_open_ends_with_what_surrounds_it(php):
    body, _ = encoded(
        php,
        """
        $root = $trace->open('root', 2); $phase = $trace->open('phase'); $lost = $trace->open('lost');
        $trace->close($phase); $trace->close($phase); $trace->close($lost);
        $trace->open('next');
        """,
    )
    _, _, (root, phase, lost, following) = decoded(body)
    assert phase.end_time_unix_nano == lost.end_time_unix_nano <= following.start_time_unix_nano
    assert following.parent_span_id == root.span_id


@slow
@given(st.lists(st.text(st.characters(exclude_categories=[]), max_size=40), min_size=1, max_size=50))
def test_any_text_arrives(php, texts):
    texts = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]
    body, _ = encoded(php, "$trace->open('x', 1, ['texts' => $data['texts']]);", {"texts": texts})
    _, _, (span,) = decoded(body)
    arrived = [each.string_value for each in span.attributes[0].value.array_value.values]
    assert arrived == [text.replace("\0", "\ufffd") for text in texts], "no backend stores a NUL"


def test_bytes_that_are_no_text_do_not_empty_the_message(php):
    """The founding plugin posts an empty body for a title in Latin-1."""
    body, _ = encoded(php, r"""$trace->open("caf\xe9", 1, ["\xff" => "a\xc3", 'ok' => 'yes']);""")
    _, _, (span,) = decoded(body)
    assert span.name == "caf�"
    assert span.attributes[1].value.string_value == "yes"


def test_nul_bytes_are_replaced(php):
    """PostgreSQL and other databases of backends refuse them in text."""
    body, _ = encoded(php, r"""$trace->open("a\0b", 1, ['key' => "\0"]);""")
    _, _, (span,) = decoded(body)
    assert span.name == "a\ufffdb"
    assert span.attributes[0].value.string_value == "\ufffd"


def test_long_values_are_cut(php):
    body, _ = encoded(php, "$trace->open('x', 1, ['long' => str_repeat('é', 5000)]);")
    _, _, (span,) = decoded(body)
    assert span.attributes[0].value.string_value == "é" * 1024


def test_numbers_of_every_size_arrive(php):
    numbers = [0, 1, 127, 128, 300, 2**31, 2**53, 2**63 - 1, -1, -128, -(2**63)]
    body, _ = encoded(
        php,
        "$trace->open('x', 1, array_map('intval', $data['numbers']));",
        {"numbers": list(map(str, numbers))},
    )
    _, _, (span,) = decoded(body)
    assert [each.value.int_value for each in span.attributes] == numbers
    assert [each.key for each in span.attributes] == list(map(str, range(len(numbers))))


def test_equal_spans_and_those_that_only_look_it(php):
    body, _ = encoded(
        php,
        "foreach ([['n' => 1], ['n' => 1], ['n' => '1'], ['n' => 1.0], ['n' => true], []] as $attributes) {"
        "    $trace->add('x', 3, 1, 2, $attributes);"
        "}",
    )
    _, _, spans = decoded(body)
    kinds = [[each.value.WhichOneof("value") for each in span.attributes] for span in spans]
    assert kinds == [["int_value"], ["int_value"], ["string_value"], ["double_value"], ["bool_value"], []]
    assert len({span.span_id for span in spans}) == len(spans)


@slow
@given(st.integers(0, 40_000))
def test_lengths_are_right_at_every_size(php, size):
    body, _ = encoded(php, "$trace->open(str_repeat('n', $data), 1, ['a' => str_repeat('v', $data)]);", size)
    _, _, (span,) = decoded(body)
    assert (span.name, span.attributes[0].value.string_value) == ("n" * min(size, 2048), "v" * min(size, 2048))
