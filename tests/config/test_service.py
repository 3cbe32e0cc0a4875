import pytest
from pydantic import ValidationError

from otelwp_agent.component import Tier
from otelwp_agent.config.explain import check
from otelwp_agent.config.parse import parse
from otelwp_agent.config.service import ServiceConfig


def metrics(**data):
    return ServiceConfig.model_validate({"telemetry": {"metrics": data}}).telemetry.metrics


def scraped_at(host, port):
    return {"pull": {"exporter": {"prometheus": {"host": host, "port": port}}}}


def test_defaults_are_the_collectors():
    service = ServiceConfig.model_validate(None)
    assert service.telemetry.logs.level == "info"
    assert service.telemetry.logs.encoding == "console"
    assert service.telemetry.metrics.address == "127.0.0.1:8888"
    assert service.shutdown_timeout == 30


def test_the_tiers_are_those_that_components_state():
    assert ServiceConfig.model_validate(None).stated_tier is None
    assert [ServiceConfig.model_validate({"tier": tier.value}).tier for tier in Tier] == [tier.value for tier in Tier]
    with pytest.raises(ValidationError, match="'free', 'pro' or 'enterprise'"):
        ServiceConfig.model_validate({"tier": "gold"})


@pytest.mark.parametrize(
    ("data", "address"),
    [
        ({}, "127.0.0.1:8888"),
        ({"address": None}, "127.0.0.1:8888"),
        ({"address": "0.0.0.0:9090"}, "0.0.0.0:9090"),
        ({"address": "none"}, None),
        ({"address": "None"}, None),
        ({"level": "none"}, None),
        ({"level": "NONE", "readers": []}, None),
        ({"readers": [scraped_at("localhost", 9)]}, "localhost:9"),
        ({"readers": [scraped_at("[::0]", 9)]}, "[::0]:9"),
        ({"readers": [scraped_at("::1", 9)]}, "[::1]:9"),
        ({"readers": [{"periodic": {"exporter": {}}}]}, "127.0.0.1:8888"),
        ({"readers": [{"periodic": {}}, scraped_at("a", 1)], "level": "detailed"}, "a:1"),
    ],
)
def test_every_way_to_say_where_metrics_are_served(data, address):
    assert metrics(**data).address == address


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"readers": []}, "the list is empty"),
        ({"readers": [{}]}, "`pull` or `periodic`"),
        ({"readers": [scraped_at("a", 1), scraped_at("b", 2)]}, "keep one `pull` reader"),
        ({"readers": [scraped_at("a", 1)], "address": "b:2"}, "remove `address`"),
        ({"address": "1212:212121:2121"}, "a port is a number"),
        ({"level": "loud"}, "literal_error"),
    ],
)
def test_what_is_wrong_with_metrics(data, words):
    with pytest.raises(ValidationError, match=words):
        metrics(**data)


def test_what_is_printed_loads_again():
    for data in ({"address": "none"}, {"level": "none"}, {"readers": [scraped_at("a", 1)]}, {}):
        loaded = metrics(**data)
        assert metrics(**loaded.model_dump()).address == loaded.address
        assert metrics(**loaded.model_dump(exclude_unset=True)).address == loaded.address


@pytest.mark.parametrize(
    ("logs", "ignored"),
    [
        ("{output_paths: [/var/log/agent.log], initial_fields: {host: a}}", []),
        ("{error_output_paths: [stderr]}", []),
        ("{error_output_paths: [/var/log/errors.log]}", ["error_output_paths"]),
    ],
)
def test_only_log_settings_without_effect_give_a_warning(logs, ignored):
    node = parse(f"telemetry: {{logs: {logs}}}", "a.yaml", [])
    _, problems = check(ServiceConfig, node, ())
    assert [key for key in ignored if f"telemetry.logs.{key}: " in " ".join(map(str, problems))] == ignored
    assert len(problems) == len(ignored)


def test_log_levels_in_any_case():
    service = ServiceConfig.model_validate({"telemetry": {"logs": {"level": "WARN", "encoding": "JSON"}}})
    assert (service.telemetry.logs.level, service.telemetry.logs.encoding) == ("warn", "json")


def test_without_a_journal_nothing_is_kept_and_nobody_is_answered():
    service = ServiceConfig.model_validate({"journal": None})
    assert service.journal is None
    assert service.dead_letter_path is None
    assert service.control_path is None


def test_what_stands_in_the_journals_directory():
    service = ServiceConfig.model_validate({"journal": {"directory": "/var/lib/otelwp"}})
    assert (service.journal.max_size, service.journal.sync) == (2**30, "group")
    assert service.dead_letter_path == "/var/lib/otelwp/dead-letters"
    assert service.dead_letter.max_size == 64 * 2**20
    assert service.control_path == "/var/lib/otelwp/control.sock"


def test_paths_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    service = ServiceConfig.model_validate({"dead_letter": {"path": "letters"}, "control_socket": "run/control"})
    assert service.dead_letter_path == str(tmp_path / "letters")
    assert service.control_path == str(tmp_path / "run/control")


def test_none_turns_off_what_a_journal_brings():
    service = ServiceConfig.model_validate(
        {"journal": {"directory": "/j"}, "dead_letter": {"path": "none"}, "control_socket": "None"}
    )
    assert service.dead_letter_path is None
    assert service.control_path is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"journal": {}}, "directory"),
        ({"journal": {"directory": ""}}, "at least 1 character"),
        ({"journal": {"directory": "/j", "max_size": 10}}, "give at least 1MiB"),
        ({"journal": {"directory": "/j", "sync": "sometimes"}}, "'group', 'always' or 'none'"),
        ({"dead_letter": {"path": "/d", "max_size": "1KiB"}}, "give at least 64KiB"),
        ({"control_socket": "/" + "x" * 107}, "at most 107"),
        ({"journal": {"directory": "/" + "x" * 100}}, "give a shorter `control_socket`"),
    ],
)
def test_what_is_wrong_with_what_is_kept(data, words):
    with pytest.raises(ValidationError) as error:
        ServiceConfig.model_validate(data)
    assert words in str(error.value)
