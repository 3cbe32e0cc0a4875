from __future__ import annotations

import platform
import resource
import uuid

import pytest
from prometheus_client.parser import text_string_to_metric_families

import otelwp_agent
from otelwp_agent.telemetry import process
from otelwp_agent.telemetry.metrics import Registry

COLLECTORS = {
    "otelcol_process_cpu_seconds": "counter",
    "otelcol_process_memory_rss": "gauge",
    "otelcol_process_runtime_total_sys_memory_bytes": "gauge",
    "otelcol_process_uptime": "counter",
}
"""Names and types as the Collector's endpoint gives them by default."""


def families(registry):
    return {family.name: family for family in text_string_to_metric_families(registry.expose())}


def target_info(registry):
    (sample,) = families(registry)["target_info"].samples
    assert sample.value == 1
    return sample.labels


def test_names_and_types_are_the_collectors():
    registry = Registry()
    process.observe(registry)
    found = families(registry)
    for name, kind in COLLECTORS.items():
        (sample,) = found[name].samples
        assert (found[name].type, sample.labels) == (kind, {})
    assert {instrument.name for instrument in process.INSTRUMENTS} | {"target_info"} == registry.names()


def test_values_are_those_of_the_process(tmp_path):
    page = resource.getpagesize()
    (tmp_path / "statm").write_text("5000 300 100 40 0 700 0\n")
    (tmp_path / "fd").mkdir()
    for name in ("0", "1", "2", "3"):
        (tmp_path / "fd" / name).touch()
    now = [100.0]
    registry = Registry()
    process.observe(registry, clock=lambda: now[0], proc=tmp_path)
    now[0] = 107.5
    assert registry.value("otelcol_process_uptime") == 7.5
    assert registry.value("otelcol_process_memory_rss") == 300 * page
    assert registry.value("otelcol_process_runtime_total_sys_memory_bytes") == 700 * page
    assert registry.value("otelwp_process_open_fds") == 3


def test_open_descriptors_and_cpu_grow(tmp_path):
    registry = Registry()
    process.observe(registry)
    fds = registry.value("otelwp_process_open_fds")
    with (tmp_path / "one").open("w"):
        assert registry.value("otelwp_process_open_fds") == fds + 1
    assert registry.value("otelwp_process_open_fds") < registry.value("otelwp_process_max_fds")
    before = registry.value("otelcol_process_cpu_seconds")
    while registry.value("otelcol_process_cpu_seconds") == before:
        sum(range(10_000))
    assert 10**6 < process.resident_memory() < 10**10


def test_without_proc_the_rest_remains(tmp_path):
    registry = Registry()
    process.observe(registry, proc=tmp_path)
    assert "otelcol_process_memory_rss" not in registry.names()
    assert "otelcol_process_cpu_seconds" in families(registry)
    with pytest.raises(FileNotFoundError):
        process.resident_memory(tmp_path)


def test_build_info():
    registry = Registry()
    process.observe(registry)
    (sample,) = families(registry)["otelwp_build_info"].samples
    assert sample.labels == {"python": platform.python_version(), "version": otelwp_agent.__version__}


def test_target_info_is_who_we_are():
    registry = Registry()
    process.observe(registry)
    labels = target_info(registry)
    assert set(labels) == {"service_instance_id", "service_name", "service_version"}
    assert labels["service_name"] == "otelwp-agent"
    assert uuid.UUID(labels["service_instance_id"]).version == 4
    process.describe(registry, {})
    assert target_info(registry) == labels


def test_resource_attributes_add_replace_and_remove():
    registry = Registry()
    process.observe(
        registry, {"service.name": "edge", "service.version": "", "host.name": "web-1", "1st": "x", "callback": "y"}
    )
    labels = target_info(registry)
    labels.pop("service_instance_id")
    assert labels == {"service_name": "edge", "host_name": "web-1", "key_1st": "x", "callback": "y"}
