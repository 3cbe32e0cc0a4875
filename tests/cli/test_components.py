import json

import pytest
from click.testing import CliRunner

from otelwp_agent.cli.components import components
from otelwp_agent.components import SHIPPED


@pytest.fixture(scope="module")
def listed():
    return json.loads(CliRunner().invoke(components, ["--json"], catch_exceptions=False).stdout)


def test_everything_that_ships_is_listed(listed):
    assert {(one["kind"], one["type"]) for one in listed} >= {
        (kind.label, type_) for kind, types in SHIPPED.items() for type_ in types
    }


def test_each_says_what_it_is(listed):
    by_type = {(one["kind"], one["type"]): one for one in listed}
    assert by_type["exporter", "otlp_grpc"]["aliases"] == ["otlp"]
    assert by_type["receiver", "otlp"]["signals"] == ["traces", "metrics", "logs"]
    assert by_type["extension", "health_check"]["signals"] == []
    for one in listed:
        assert one["description"]
        assert "\n" not in one["description"]
        assert one["tier"] in ("free", "pro", "enterprise")
        assert one["stability"] in ("alpha", "beta", "stable")


def test_the_table_has_a_line_for_each(listed):
    lines = CliRunner().invoke(components, [], catch_exceptions=False).stdout.splitlines()
    assert lines[0].split() == ["kind", "type", "signals", "tier", "stability", "description"]
    assert len(lines) == len(listed) + 1
    assert all(
        line.startswith(one["kind"]) and one["type"] in line for line, one in zip(lines[1:], listed, strict=True)
    )
