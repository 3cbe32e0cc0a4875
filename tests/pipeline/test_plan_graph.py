import pytest

from otelwp_agent.component import Carries, ComponentConfig, Factory, Kind
from otelwp_agent.config.load import load
from otelwp_agent.errors import ConfigError
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.plan import make_plan


def factory(kind, type_, **declared):
    return Factory(kind, type_, ComponentConfig, lambda *_: None, **declared)


TRACES, METRICS, LOGS = ({signal} for signal in Signal)
FACTORIES = [
    factory(Kind.RECEIVER, "in"),
    factory(Kind.RECEIVER, "spans", signals=frozenset(TRACES)),
    factory(Kind.PROCESSOR, "plain"),
    factory(Kind.PROCESSOR, "shrink", encodes=Carries.COMPRESSED),
    factory(Kind.EXPORTER, "out"),
    factory(Kind.EXPORTER, "carry", accepts=Carries.ENCODED, signals=frozenset(TRACES | LOGS)),
    factory(Kind.CONNECTOR, "pass"),
    factory(Kind.CONNECTOR, "count", signals=frozenset(TRACES | LOGS), emits=frozenset(METRICS)),
]


class Few:
    def names(self, kind):
        return [one.type for one in FACTORIES if one.kind is kind]

    def get(self, kind, type_):
        return next((one for one in FACTORIES if (one.kind, one.type) == (kind, type_)), None)


HEAD = """
receivers: {in: , spans: }
processors: {plain: , shrink: , plain/2: }
exporters: {out: , carry: }
connectors: {pass: , pass/2: , pass/3: , count: }
service:
  pipelines:
"""


def check(**pipelines):
    """Return what is wrong with pipelines given as `traces="in > plain > out"`."""
    text = HEAD
    for name, line in pipelines.items():
        receivers, processors, exporters = (part.strip() for part in line.split(">"))
        text += f"    {name.replace('_', '/')}:\n"
        text += f"      receivers: [{receivers}]\n      processors: [{processors}]\n      exporters: [{exporters}]\n"
    try:
        make_plan(load([f"yaml:{text}"], env={}), Few())
    except ConfigError as error:
        return [f"{problem.path.removeprefix('service.pipelines.')}: {problem.message}" for problem in error.problems]
    return []


@pytest.mark.parametrize(
    "pipelines",
    [
        {"traces": "in > plain > out"},
        {"traces": "in, spans > plain, plain/2 > out, carry", "metrics": "in > > out"},
        {"traces": "in > plain, shrink > carry"},
        {"traces_a": "in > > pass", "traces_b": "spans > > pass", "traces": "pass > plain > out"},
        {"traces": "in > > out, pass", "logs": "in > > pass", "traces_2": "pass > > out", "logs_2": "pass > > out"},
        {"traces": "in > > count", "metrics": "count, in > > out"},
        {"traces": "in > > pass, pass/2", "traces_1": "pass > > pass/3", "traces_2": "pass/2, pass/3 > > out"},
    ],
)
def test_good_graphs(pipelines):
    assert check(**pipelines) == []


@pytest.mark.parametrize(
    ("pipelines", "problem"),
    [
        ({"logs": "spans > > out"}, "logs.receivers[0]: receiver `spans` does not carry logs, only `traces`"),
        (
            {"metrics": "in > > out, carry"},
            "metrics.exporters[1]: exporter `carry` does not carry metrics, only `logs` and `traces`",
        ),
        (
            {"traces": "in > shrink, plain > carry"},
            "traces.processors[1]: processor `plain` cannot read data that `shrink` has compressed: put it before",
        ),
        ({"traces": "in > shrink > carry, out"}, "traces.exporters[1]: exporter `out` cannot send data that `shrink`"),
        ({"traces": "in > shrink > pass", "traces_2": "pass > > out"}, "traces.exporters[0]: connector `pass` cannot"),
        ({"traces": "in > > out, pass"}, "traces.exporters[1]: connector `pass` has no destination"),
        ({"traces": "in > > pass, out", "logs": "pass, in > > out"}, "connector `pass` has no destination"),
        ({"logs": "pass, in > > out"}, "logs.receivers[0]: connector `pass` has no source"),
        ({"traces": "in > > count"}, "has no destination: list it under `receivers` of a `metrics` pipeline"),
        ({"traces": "in > > count", "logs": "count > > out"}, "connector `count` does not carry logs, only `metrics`"),
        ({"traces": "pass > > pass"}, "traces.exporters[0]: batches would circulate forever: traces → pass → traces"),
        (
            {"traces": "in, pass/2 > > pass", "traces_2": "pass > > out, pass/2"},
            "exporters[1]: batches would circulate forever: traces → pass → traces/2 → pass/2 → traces:",
        ),
    ],
)
def test_bad_graphs(pipelines, problem):
    assert any(problem in line for line in check(**pipelines)), check(**pipelines)


def test_a_cycle_is_told_once_without_the_way_that_leads_to_it():
    told = check(traces="in > > pass", traces_2="pass, pass/3 > > pass/2", traces_3="pass/2 > > pass/3")
    assert len(told) == 1
    assert "ever: traces/2 → pass/2 → traces/3 → pass/3 → traces/2:" in told[0]


def test_every_cycle_is_told():
    told = check(traces="in, pass > > pass, pass/2", traces_2="pass/2, pass/3 > > pass/3, out")
    assert len(told) == 2


def test_deep_chains_are_walked_once():
    """A ladder of n steps has 2ⁿ ways through it."""
    text = "receivers: {in: }\nexporters: {out: }\nconnectors:\n"
    steps = 200
    text += "".join(f"  pass/{side}{step}:\n" for step in range(steps) for side in "ab")
    text += "service:\n  pipelines:\n    traces/0: {receivers: [in], exporters: [pass/a0, pass/b0]}\n"
    for step in range(1, steps):
        text += (
            f"    traces/{step}: {{receivers: [pass/a{step - 1}, pass/b{step - 1}], "
            f"exporters: [pass/a{step}, pass/b{step}]}}\n"
        )
    text += f"    traces/{steps}: {{receivers: [pass/a{steps - 1}, pass/b{steps - 1}], exporters: [out]}}\n"
    assert len(make_plan(load([f"yaml:{text}"], env={}), Few()).pipelines) == steps + 1
