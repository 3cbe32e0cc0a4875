"""The requested fields of a root give the same facts as the whole root, in any layout."""

from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.wire import varint
from otelwp_agent.processors.adaptive_sampling import Config
from otelwp_agent.processors.adaptive_sampling.facts import FactsReader
from otelwp_agent.sampling.traces import read
from otelwp_agent.sampling.traces.framing import enclose, frame

ORIGIN = Origin("otlp", "http")
NAMES = ["service.name", "http.route", "url.path", "sampling.priority", "http.router", "x" * 200]
TEXTS = st.sampled_from([b"", b"1", b"/a", b"/health", b"\x00\x00", b"r" * 300])


@st.composite
def attribute(draw):
    """Return a KeyValue: as usual, with the value first, without one, with its key twice, or none at all."""
    key = b"\x0a" + pb.KeyValue(key=draw(st.sampled_from(NAMES)).encode()).SerializeToString()[1:]
    value = pb.KeyValue(value=pb.AnyValue(string_value=draw(TEXTS)).SerializeToString()).SerializeToString()
    return draw(
        st.sampled_from([key + value, key + value, key + value, value + key, key, value, b"", b"\x00", b"\x00\x00"])
    )


@st.composite
def root(draw):
    """Return a root span, serialized; its fields may come in any order."""
    fields = [b"\x4a" + varint(len(each)) + each for each in draw(st.lists(attribute(), max_size=4))]
    fields += [b"\x0a\x10" + b"t" * 16, b"\x12\x08" + b"s" * 8, b"\x2a\x04name"]
    return b"".join(draw(st.permutations(fields)))


@st.composite
def resource(draw):
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=2))
    made = pb.Resource()
    for name in names:
        made.attributes.add(key=name.encode(), value=pb.AnyValue(string_value=b"resource").SerializeToString())
    return made.SerializeToString()


def reader(per, **config):
    told = Config.model_validate({"target": {"spans_per_second": 1}, "per": per, **config})
    return FactsReader(told.per, told.always_keep, told.drop, told.sites)


KINDS = [
    {"per": ["service.name", "http.route"]},
    {"per": []},
    {"per": ["http.route"], "drop": {"health_checks": True}},
    {"per": ["span.name", "http.route"]},
    {"per": ["x" * 200]},
    {"per": ["http.route"], "sites": {"attribute": "url.path", "rules": [{"keep": 0.5}]}},
]


@given(st.sampled_from(KINDS), st.lists(st.tuples(root(), resource()), max_size=5))
def test_requested_fields_give_the_same_facts_as_the_whole_root(settings, requests):
    """The fields selected by `marks`, and cached facts, must omit nothing."""
    asking = reader(**settings)
    for whole, told in requests:
        body = enclose([((b"\x0a" + varint(len(told)) + told, b""), frame([whole]))])
        _, [(*_, duration, known, said)] = read(body, asking.marks, name=asking.name)
        assert duration == 0
        assert asking.read(known, said, ORIGIN) == reader(**settings).read(told, whole, ORIGIN)
        assert asking.read(known, said, ORIGIN) == asking.read(known, said, ORIGIN)


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr("otelwp_agent.processors.adaptive_sampling.facts._FOUND", 4)
    asking = reader(["http.route"])
    for number in range(10):
        span = pb.SpanAttributes()
        span.attributes.add(key=b"http.route", value=pb.AnyValue(string_value=b"%d" % number).SerializeToString())
        assert asking.read(b"", span.SerializeToString(), ORIGIN)[0] == (str(number),)
        assert len(asking._found) <= 4


def test_large_roots_are_not_cached():
    asking = reader(["http.route"])
    span = pb.SpanAttributes()
    span.attributes.add(key=b"http.route", value=pb.AnyValue(string_value=b"r" * 5000).SerializeToString())
    assert asking.read(b"", span.SerializeToString(), ORIGIN)[0] == ("r" * 200,)
    assert not asking._found


def test_senders_with_equal_resources_are_distinguished_by_user_agent():
    asking = reader([], sites={"rules": [{"keep": 0.5}]})
    sites = [
        asking.read(b"", b"", Origin("otlp", "http", "", {"user-agent": f"WordPress/6.4; https://{name}.example"}))[1]
        for name in ("one", "two", "one")
    ]
    assert sites == ["one.example", "two.example", "one.example"]
