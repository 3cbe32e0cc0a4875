import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from otelwp_agent.cli.schema import DIALECT, build_schema, schema
from otelwp_agent.components import Catalog

ROOT = Path(__file__).parents[2]
EXAMPLES = set((ROOT / "examples").glob("*.yaml")) - {ROOT / "examples/docker-compose.yaml"}
FILES = [*sorted((ROOT / "tests/config/corpus/valid").glob("*.yaml")), *sorted(EXAMPLES)]


@pytest.fixture(scope="module")
def validator():
    made = build_schema(Catalog())
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


def test_the_command_prints_it(validator):
    printed = json.loads(CliRunner().invoke(schema, [], catch_exceptions=False).stdout)
    assert printed["$schema"] == DIALECT
    assert printed == validator.schema


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_that_load_fit(validator, path):
    errors = [
        f"{'.'.join(map(str, error.path))}: {error.message[:200]}" for error in validator.iter_errors(_read(path))
    ]
    assert errors == []


GOOD = {
    "receivers": {"otlp": {"protocols": {"http": None}}},
    "exporters": {"otlp/x": {"endpoint": "${env:BACKEND}"}, "otlphttp": None},
    "service": {"pipelines": {"traces/x": {"receivers": ["otlp"], "exporters": ["otlp/x"]}}},
}


def test_a_small_good_one(validator):
    assert validator.is_valid(GOOD)


@pytest.mark.parametrize(
    "change",
    [
        {"recievers": {}},
        {"receivers": {"oltp": {}}},
        {"receivers": {"otlp": {"protocols": {"grcp": None}}}},
        {"exporters": {"otlp/": {}}},
        {"exporters": {"debug": {"verbosity": "loud"}}},
        {"processors": {"batch": {"timeout": "5"}}},
        {"processors": {"batch": {"send_batch_size": "many"}}},
        {"service": {"pipelines": {"trace": {}}}},
        {"service": {"pipelines": {"traces": {"receivers": "otlp"}}}},
        {"service": {"telemetry": {"logs": {"level": ["info"]}}}},
    ],
)
def test_editors_mark_what_is_wrong(validator, change):
    assert not validator.is_valid(GOOD | change)


def test_fields_are_described(validator):
    pattern = next(
        key for key in validator.schema["properties"]["exporters"]["patternProperties"] if "otlp_grpc" in key
    )
    assert pattern == "^(otlp|otlp_grpc)(/.+)?$"
    definitions = validator.schema["$defs"]
    fields = [
        (name, key)
        for name, definition in definitions.items()
        for key, field in definition.get("properties", {}).items()
        if not field.get("description")
    ]
    assert fields == []


def _read(path):
    """Read YAML with every scalar as our loader has it, before anything is expanded."""
    from otelwp_agent.config.parse import parse

    return parse(path.read_text(), path.name, []).data()


def test_the_reader_above_is_ours():
    assert _read(FILES[0]) == yaml.safe_load(FILES[0].read_text())
