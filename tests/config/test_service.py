import pytest
from pydantic import ValidationError

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
        ({"readers": [scraped_at("a", 1)], "address": "b:2"}, "keep one of them"),
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


def test_log_levels_in_any_case():
    service = ServiceConfig.model_validate({"telemetry": {"logs": {"level": "WARN", "encoding": "JSON"}}})
    assert (service.telemetry.logs.level, service.telemetry.logs.encoding) == ("warn", "json")
