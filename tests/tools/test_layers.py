import layers
import pytest


def problems(source, module, **kwargs):
    return [problem for _, problem in layers.check_source(source, module, **kwargs)]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("otelwp_agent.model.batch", "from otelwp_agent.config import blocks"),
        ("otelwp_agent.config.load", "import otelwp_agent.component"),
        ("otelwp_agent.transport.status", "from otelwp_agent.component import Kind"),
        ("otelwp_agent.component", "from otelwp_agent.pipeline.graph import Graph"),
        ("otelwp_agent.receivers.otlp", "from otelwp_agent.pipeline import graph"),
        ("otelwp_agent.pipeline.graph", "from otelwp_agent.service.lifecycle import run"),
        ("otelwp_agent.service.lifecycle", "from otelwp_agent.cli.main import main"),
        ("otelwp_agent.service.lifecycle", "from otelwp_agent.testing import NoHost"),
        ("otelwp_agent.cli.new", "from otelwp_agent.testing.suite import check_component"),
        ("otelwp_agent.errors", "from otelwp_agent.model.signal import Signal"),
        ("otelwp_agent.model.batch", "from ..config.types import Duration"),
        ("otelwp_agent.model.batch", "def f():\n    from otelwp_agent.config.types import Duration"),
        ("otelwp_agent.model.batch", "if TYPE_CHECKING:\n    from otelwp_agent.config.types import Duration"),
    ],
)
def test_an_import_from_above_is_a_problem(module, source):
    assert ["is in a higher layer" in problem for problem in problems(source, module)] == [True]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("otelwp_agent.cli.main", "from otelwp_agent.service.lifecycle import run\nimport otelwp_agent"),
        ("otelwp_agent.pipeline.graph", "from otelwp_agent.component import Factory"),
        ("otelwp_agent.receivers.otlp", "from otelwp_agent.transport.http_server import HttpServer"),
        ("otelwp_agent.config.load", "from otelwp_agent import __version__\nfrom .types import Duration"),
        ("otelwp_agent.processors.batch", "import asyncio\nfrom otelwp_agent.model.batch import Batch"),
    ],
)
def test_an_import_from_below_is_none(module, source):
    assert problems(source, module) == []


def test_components_do_not_know_each_other():
    source = "from otelwp_agent.exporters.otlp_http import OtlpHttp"
    (problem,) = problems(source, "otelwp_agent.exporters.debug")
    assert "exporters.debug must not import otelwp_agent.exporters.otlp_http" in problem
    assert problems("from otelwp_agent.exporters import otlp_http", "otelwp_agent.exporters.debug")
    assert problems(source, "otelwp_agent.exporters.otlp_http.queue") == []


def test_a_relative_import_inside_a_package_is_resolved():
    assert problems("from .types import Duration", "otelwp_agent.config", is_package=True) == []
    assert problems("from ..pipeline import graph", "otelwp_agent.config", is_package=True)


@pytest.mark.parametrize("name", ["asyncio", "socket", "grpc", "uvloop"])
def test_the_model_does_no_io(name):
    assert problems(f"import {name}", "otelwp_agent.model.batch")


def test_grpc_stays_in_its_transport():
    for source in ("import grpc.aio", "def f():\n    from grpc import StatusCode"):
        assert problems(source, "otelwp_agent.receivers.otlp")
        assert problems(source, "otelwp_agent.transport.grpc_client") == []


@pytest.mark.parametrize("source", ["import sys\nsys.exit(1)", "exit()", "raise SystemExit", "raise SystemExit(2)"])
def test_only_the_command_line_ends_the_process(source):
    assert ["only cli/main.py" in problem for problem in problems(source, "otelwp_agent.cli.run")] == [True]
    assert problems(source, "otelwp_agent.cli.main") == []


@pytest.mark.parametrize("call", ["asyncio.create_task(f())", "asyncio.ensure_future(f())", "loop.create_task(f())"])
def test_background_work_has_one_beginning(call):
    assert problems(call, "otelwp_agent.sending.queue")
    assert problems(call, "otelwp_agent.telemetry.tasks") == []


def test_a_module_of_no_layer_is_a_problem():
    assert "belongs to no layer" in problems("", "otelwp_agent.utils")[0]


def test_lines_are_told(tmp_path, monkeypatch, capsys):
    package = tmp_path / "otelwp_agent"
    (package / "model").mkdir(parents=True)
    (package / "model" / "batch.py").write_text('"""Doc."""\n\nimport asyncio\n')
    monkeypatch.setattr(layers, "ROOT", tmp_path)
    assert layers.main() == 1
    assert capsys.readouterr().out.startswith("otelwp_agent/model/batch.py:3: ")


def test_pytest_is_imported_nowhere_not_even_by_the_contract_suite():
    (problem,) = problems("import pytest", "otelwp_agent.testing.suite")
    assert "pytest is an extra" in problem


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"a"}, "c": {"a"}}, [["a", "b"]]),
        ({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}}, [["a", "b", "c"], ["d", "e"]]),
    ],
)
def test_circles_are_the_groups_of_modules_that_reach_each_other(graph, found):
    assert layers.circles(graph) == found


def test_a_circle_of_imports_is_a_problem_even_where_only_types_are_imported(tmp_path, monkeypatch, capsys):
    package = tmp_path / "otelwp_agent"
    package.mkdir()
    (package / "errors.py").write_text("from otelwp_agent import capacity\n")
    (package / "capacity.py").write_text("if TYPE_CHECKING:\n    from otelwp_agent.errors import AgentError\n")
    monkeypatch.setattr(layers, "ROOT", tmp_path)
    assert layers.main() == 1
    circle = "otelwp_agent.capacity, otelwp_agent.errors"
    assert f"otelwp_agent/capacity.py:1: modules import each other in a circle: {circle};" in capsys.readouterr().out
    (package / "errors.py").write_text("")
    assert layers.main() == 0


def test_no_two_classes_share_a_name_except_configs_and_what_they_configure(tmp_path, monkeypatch, capsys):
    for module, names in {
        "model/batch.py": ("Batch", "Config"),
        "sending/queue.py": ("_Entry", "Config", "HttpServer"),
        "config/http.py": ("HttpServer",),
        "journal/claims.py": ("_Entry",),
    }.items():
        path = tmp_path / "otelwp_agent" / module
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"class {name}: ...\n" for name in names))
    monkeypatch.setattr(layers, "ROOT", tmp_path)
    assert layers.main() == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("otelwp_agent/sending/queue.py:1: otelwp_agent.journal.claims has a class _Entry too: ")
