import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from otelwp_agent.component import ComponentConfig, ComponentId, Factory, Kind
from otelwp_agent.components import Catalog
from otelwp_agent.config.explain import listing
from otelwp_agent.config.load import load
from otelwp_agent.errors import ConfigError
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.plan import make_plan

CATALOG = Catalog()
CORPUS = Path(__file__).parents[1] / "config" / "corpus"
GOOD = """
receivers: {otlp: {protocols: {http: }}}
processors: {batch: }
exporters: {otlp: {endpoint: "localhost:4317"}, debug: }
connectors: {forward: }
extensions: {health_check: }
service:
  extensions: [health_check]
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [otlp, forward]}
    traces/2: {receivers: [forward], exporters: [debug]}
"""


def plan(*texts, env=None, catalog=None):
    return make_plan(load([f"yaml:{text}" for text in texts], env=env or {}), catalog or Catalog())


def problems(*texts, env=None):
    with pytest.raises(ConfigError) as caught:
        plan(*texts, env=env)
    return [str(problem) for problem in caught.value.problems]


def environment(text):
    """Return the variables that a corpus file's comment `# env: A=b …` sets."""
    line = re.search(r"^# env: (.*)$", text, re.MULTILINE)
    return dict(pair.split("=", 1) for pair in line[1].split()) if line else {}


@pytest.mark.parametrize("path", sorted((CORPUS / "valid").glob("*.yaml")), ids=lambda path: path.stem)
def test_valid_files_load(path):
    loaded = make_plan(load([str(path)], env=environment(path.read_text())), Catalog())
    named = yaml.safe_load(path.read_text())["service"]["pipelines"]
    assert [*loaded.pipelines] == [*named]


@pytest.mark.parametrize("path", sorted((CORPUS / "invalid").glob("*.yaml")), ids=lambda path: path.stem)
def test_invalid_files_are_refused_with_every_place_and_reason(path):
    text = path.read_text()
    processors = listing(Catalog().types(Kind.PROCESSOR), "and")
    expected = [line.replace("<processors>", processors) for line in re.findall(r"(?m)^# expect: (.*)$", text)]
    with pytest.raises(ConfigError) as caught:
        make_plan(load([str(path)], env=environment(text)), Catalog())
    assert expected
    assert [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems] == expected
    assert "hunter" not in str(caught.value)


def test_a_plan_is_what_the_pipelines_use_in_the_order_of_the_file():
    made = plan(GOOD)
    assert [(kind.label, str(identifier)) for kind, identifier in made.components] == [
        ("receiver", "otlp"),
        ("processor", "batch"),
        ("exporter", "otlp"),
        ("exporter", "debug"),
        ("connector", "forward"),
        ("extension", "health_check"),
    ]
    otlp = made.components[Kind.EXPORTER, ComponentId("otlp")]
    assert (otlp.factory.type, str(otlp.id), otlp.config.endpoint) == ("otlp_grpc", "otlp", "localhost:4317")
    first, second = made.pipelines.values()
    assert (first.id, first.signal, first.exporters) == (
        "traces",
        Signal.TRACES,
        (ComponentId("otlp"), ComponentId("forward")),
    )
    assert (second.id, second.receivers, second.processors) == ("traces/2", (ComponentId("forward"),), ())
    assert made.extensions == [ComponentId("health_check")]
    assert made.warnings == ()


def test_plans_of_equal_files_are_equal():
    one, two = plan(GOOD), plan(GOOD)
    assert one.pipelines == two.pipelines
    assert all(two.components[key].config == planned.config for key, planned in one.components.items())


def test_what_is_unused_is_checked_and_warned_of():
    made = plan(GOOD, "processors: {batch/2: }\nexporters: {debug/2: }\nextensions: {health_check/2: }")
    assert [str(warning) for warning in made.warnings] == [
        "warning: yaml:1:14: processors.batch/2: this processor does not run: no pipeline lists it",
        "warning: yaml:2:13: exporters.debug/2: this exporter does not run: no pipeline lists it",
        (
            "warning: yaml:3:14: extensions.health_check/2: this extension does not run: "
            "`service.extensions` does not list it"
        ),
    ]
    assert [str(identifier) for _, identifier in made.unused] == ["batch/2", "debug/2", "health_check/2"]
    assert "yaml:1:33: processors.batch/2.timeout" in problems(GOOD, "processors: {batch/2: {timeout: 5}}")[0]


def test_debugging_extensions_of_the_collectors_are_left_out():
    made = plan(GOOD, "extensions: {zpages: , pprof/x: }\nservice: {extensions: [zpages, health_check, pprof/x]}")
    assert made.extensions == [ComponentId("health_check")]
    assert [warning.path for warning in made.warnings] == ["extensions.zpages", "extensions.pprof/x"]
    assert "not configured" in problems(GOOD, "service: {extensions: [zpages]}")[0]


def test_problems_come_in_the_order_of_the_files_and_warnings_stay_out(tmp_path):
    (tmp_path / "z.yaml").write_text(
        "receivers: {otlp: {protocols: {http: {read_timeout: x}}}}\nprocessors: {batch: {nope: 1}, batch/unused: }"
    )
    (tmp_path / "a.yaml").write_text(
        "exporters: {debug: {verbosity: loud}}\nservice: {pipelines: {traces: {receivers: [otlp], exporters: [dbug]}}}"
    )
    with pytest.raises(ConfigError) as caught:
        make_plan(load([str(tmp_path / "z.yaml"), str(tmp_path / "a.yaml")], env={}), Catalog())
    assert [problem.path for problem in caught.value.problems] == [
        "receivers.otlp.protocols.http.read_timeout",
        "processors.batch.nope",
        "exporters.debug.verbosity",
        "service.pipelines.traces.exporters[0]",
    ]


def test_pipelines_are_checked_whatever_else_is_wrong_with_the_service():
    told = problems(
        GOOD,
        "service: {telemetry: {logs: {level: loud}}, extensions: [zpage], pipelines: {traces: {exporters: [dbug]}}}",
    )
    assert [line.split(": ")[1] for line in told] == [
        "service.telemetry.logs.level",
        "service.extensions[0]",
        "service.pipelines.traces.exporters[0]",
        "service.pipelines.traces/2.receivers[0]",  # nothing comes to the connector any more
    ]


def test_a_connector_with_the_id_of_an_exporter_is_ambiguous():
    class Both(Catalog):
        def names(self, kind):
            return [*super().names(kind), "forward"] if kind is Kind.EXPORTER else super().names(kind)

        def get(self, kind, type_):
            if (kind, type_) == (Kind.EXPORTER, "forward"):
                return Factory(kind, "forward", ComponentConfig, lambda *_: None)
            return super().get(kind, type_)

    with pytest.raises(ConfigError, match="there is also an exporter `forward`"):
        plan(GOOD, "exporters: {forward: }", catalog=Both())


def test_text_out_of_variables():
    text = GOOD.replace('"localhost:4317"', "localhost:4317, headers: {key: '${KEY}'}, timeout: '${T}'")
    made = plan(text, env={"KEY": "0123", "T": "5s"})
    config = made.components[Kind.EXPORTER, ComponentId("otlp")].config
    assert (config.headers["key"].get_secret_value(), config.timeout) == ("0123", 5)


def test_only_what_the_file_names_is_imported():
    script = (
        "import sys\n"
        "from otelwp_agent.components import Catalog\n"
        "from otelwp_agent.config.load import load\n"
        "from otelwp_agent.pipeline.plan import make_plan\n"
        "text = 'receivers: {otlp: {protocols: {http: }}}\\nexporters: {debug: }\\n'"
        "'service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}'\n"
        "make_plan(load([f'yaml:{text}']), Catalog())\n"
        "watched = ('otelwp_agent.processors.', 'otelwp_agent.exporters.', 'otelwp_agent.extensions.', 'grpc')\n"
        "print({'.'.join(name.split('.')[:3]) for name in sys.modules if name.startswith(watched)})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'otelwp_agent.exporters.debug'}"


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["otlp", "${X}", "5s"]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=8) | st.sampled_from(["otlp"]), below),
    max_leaves=5,
)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_whatever_stands_wherever_it_is_a_plan_or_problems_with_places(data):
    """Any value of a valid file is replaced by anything."""
    path = data.draw(st.sampled_from(sorted((CORPUS / "valid").glob("*.yaml"))))
    content = yaml.safe_load(path.read_text())
    place = content
    while True:
        key = data.draw(st.sampled_from([*(place if isinstance(place, dict) else range(len(place)))]))
        below = place[key]
        if not below or not isinstance(below, dict | list) or data.draw(st.booleans()):
            place[key] = data.draw(junk)
            break
        place = below
    text = yaml.safe_dump(content, allow_unicode=False)
    told = _problems(text, {"X": "hunter2 secret"})
    assert all(problem.line > 0 for problem in told)
    assert "hunter2" not in " ".join(map(str, told))


def _problems(text, env):
    try:
        make_plan(load([f"yaml:{text}"], env=env), CATALOG)
    except ConfigError as error:
        return error.problems
    return ()
