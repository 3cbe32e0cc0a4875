"""Facts of many roots read as one are those of each read alone, however they are written."""

from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.batch import Origin
from otelwp_agent.processors.adaptive_sampling import Config
from otelwp_agent.processors.adaptive_sampling.facts import FactsReader

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
    columns = pb.RootColumns(
        start_times=[draw(st.integers(0, 10))] * draw(st.sampled_from([1, 1, 1, 0])),
        end_times=[draw(st.integers(0, 10))] * draw(st.sampled_from([1, 1, 1, 2])),
        attributes=draw(st.lists(attribute(), max_size=4)),
    )
    times = b"".join(
        tag + each.to_bytes(8, "little")
        for tag, column in ((b"\x39", columns.start_times), (b"\x41", columns.end_times))
        for each in column
    )
    columns.ClearField("start_times")
    columns.ClearField("end_times")
    return b"\x2a\x04name" + times + columns.SerializeToString()


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


@given(
    st.sampled_from(KINDS),
    st.lists(
        st.lists(st.tuples(st.one_of(st.none(), root(), root(), root()), resource()), min_size=1, max_size=5),
        max_size=3,
    ),
)
def test_many_roots_are_read_as_each_is(settings, requests):
    many, one = reader(**settings), reader(**settings)
    for roots in requests:
        assert many.read_all([(*each, ORIGIN) for each in roots]) == [one.read(*each, ORIGIN) for each in roots]


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr("otelwp_agent.processors.adaptive_sampling.facts._FOUND", 4)
    many = reader(["http.route"])
    for number in range(10):
        span = pb.SpanAttributes()
        span.attributes.add(key=b"http.route", value=pb.AnyValue(string_value=b"%d" % number).SerializeToString())
        times = b"\x39" + bytes(8) + b"\x41" + bytes(7) + b"\x01"
        roots = [(times + span.SerializeToString(), b"", ORIGIN)] * 2
        assert [facts[0] for facts in many.read_all(roots)] == [(str(number),)] * 2
        assert len(many._found) <= 4
