from __future__ import annotations

import asyncio
import time

import pytest
from pydantic import ValidationError

import otelwp_agent
from otelwp_agent.component import ComponentHealth, Kind
from otelwp_agent.extensions.health_check import FACTORY, LOOK_EVERY, Config
from otelwp_agent.extensions.health_check.watch import Watch
from tests.kit.health_checks import EXPORTER, RECEIVER, ask, ask_json, failing


async def test_healthy(started):
    extension = await started()
    assert await ask_json(extension, "/health") == (
        200,
        {
            "status": "healthy",
            "agent": "ready",
            "version": otelwp_agent.__version__,
            "uptime": "1h2m5s",
            "up_since": "2026-11-20T14:24:05Z",
        },
    )


async def test_a_person_reads_it(started):
    _, body = await ask(await started(), "/health")
    assert body.startswith('{\n  "status": "healthy",\n  "agent": "ready",\n')
    assert body.endswith("}\n")


async def test_a_failing_exporter_degrades_and_shows(started, host):
    host.found = [failing(), RECEIVER]
    extension = await started()
    status, body = await ask_json(extension, "/health")
    assert (status, body["status"]) == (200, "degraded")
    assert body["reasons"] == ["exporter otlp_http (traces): connection refused"]
    status, body = await ask_json(extension, "/health/detailed")
    assert (status, body["status"]) == (200, "degraded")
    assert body["components"] == [
        {
            "kind": "exporter",
            "id": "otlp_http",
            "status": "degraded",
            "since": "2026-11-20T15:26:10Z",
            "message": "connection refused",
            "details": {"queue_size": 900, "data_type": "traces", "consecutive_failures": 1},
        },
        {"kind": "receiver", "id": "otlp", "status": "healthy", "since": "2026-11-20T15:26:10Z"},
    ]
    assert (await ask_json(extension, "/ready"))[0] == 200


async def test_since_is_when_the_state_changed(started, host, clock):
    extension = await started()
    clock.now += 60
    host.found = [failing(), RECEIVER]
    _, first = await ask_json(extension, "/health/detailed")
    clock.now += 60
    host.found = [failing(5), RECEIVER]
    _, second = await ask_json(extension, "/health/detailed")
    assert [each["since"] for each in first["components"]] == ["2026-11-20T15:27:10Z", "2026-11-20T15:26:10Z"]
    assert [each["since"] for each in second["components"]] == ["2026-11-20T15:27:10Z", "2026-11-20T15:26:10Z"]


async def test_it_looks_by_itself(started, host, clock, monkeypatch):
    monkeypatch.setattr("otelwp_agent.extensions.health_check.LOOK_EVERY", 0.001)
    looked = asyncio.Event()

    def components():
        looked.set()
        return [failing()]

    extension = await started()
    clock.now += 60
    host.components = components
    await asyncio.wait_for(looked.wait(), 60)
    clock.now += 60
    _, body = await ask_json(extension, "/health/detailed")
    assert body["components"][0]["since"] <= "2026-11-20T15:27:10Z"
    assert LOOK_EVERY <= 1


@pytest.mark.parametrize("status", ["starting", "draining", "stopped"])
async def test_not_ready_is_unhealthy_and_still_alive(started, host, status):
    host.status = status
    extension = await started()
    assert await ask_json(extension, "/ready") == (503, {"status": status})
    code, body = await ask_json(extension, "/health")
    assert (code, body["status"], body["agent"]) == (503, "unhealthy", status)
    assert body["reasons"] == [f"the agent is not ready: {status}"]
    assert (await ask_json(extension, "/health/detailed"))[0] == 503
    assert await ask_json(extension, "/live") == (200, {"status": "alive"})
    assert await ask_json(extension, "/") == (503, {"status": "Server not available"})


async def test_readiness_follows_the_service(started, host):
    host.status = "starting"
    extension = await started()
    assert (await ask(extension, "/ready"))[0] == 503
    host.status = "ready"
    assert await ask_json(extension, "/ready") == (200, {"status": "ready"})
    host.status = "draining"
    assert (await ask(extension, "/ready"))[0] == 503


async def test_the_collectors_path_and_form(started):
    extension = await started(path="/custom/status")
    expected = {"status": "Server available", "upSince": "2026-11-20T14:24:05Z", "uptime": "1h2m5s"}
    assert await ask_json(extension, "/custom/status") == (200, expected)
    assert (await ask(extension, "/"))[0] == 404
    assert await ask_json(await started(), "/") == (200, expected)


async def test_fixed_bodies(started, host):
    extension = await started(path="/health", response_body={"healthy": "I am good", "unhealthy": "I am bad!"})
    assert await ask(extension, "/health") == (200, "I am good")
    host.status = "draining"
    assert await ask(extension, "/health") == (503, "I am bad!")
    half = await started(response_body={"healthy": "yes"})
    assert await ask_json(half, "/") == (503, {"status": "Server not available"})


async def test_too_many_failures_make_it_unhealthy_if_asked(started, host, clock):
    check = {"enabled": True, "interval": "1m", "exporter_failure_threshold": 3}
    extension = await started(check_collector_pipeline=check)
    host.found = [failing(3)]
    assert (await ask_json(extension, "/health"))[1]["status"] == "degraded"
    clock.now += 30
    host.found = [failing(4)]
    code, body = await ask_json(extension, "/health")
    assert (code, body["status"]) == (503, "unhealthy")
    assert body["reasons"][-1] == "exporter otlp_http (traces) failed 4 times, but 3 are allowed"
    host.found = [EXPORTER]
    assert (await ask_json(extension, "/health"))[0] == 503
    clock.now += 31
    assert (await ask_json(extension, "/health"))[1]["status"] == "healthy"


async def test_failures_do_not_make_it_unhealthy_unasked(started, host):
    host.found = [failing(1000)]
    assert (await ask_json(await started(), "/health"))[0] == 200


def test_watch_counts_again_after_a_success(clock):
    watch = Watch(clock, clock, 300)
    for row in (2, 2, 0, 1, 3, 1):  # 3, then a success that nobody saw, then 1
        watch.see([failing(row) if row else EXPORTER])
    assert watch.failing_often(5) == [("exporter otlp_http (traces)", 6)]
    assert watch.failing_often(6) == []
    watch.see([])
    assert watch.failing_often(0) == []


async def test_the_journal_is_shown_as_a_part_of_the_service(started, host):
    host.found = [ComponentHealth(None, "journal", healthy=False, message="full")]
    extension = await started()
    assert (await ask_json(extension, "/health"))[1]["reasons"] == ["service journal: full"]
    (shown,) = (await ask_json(extension, "/health/detailed"))[1]["components"]
    assert (shown["kind"], shown["id"], shown["message"]) == ("service", "journal", "full")


async def test_details_of_any_kind_are_written(started, host):
    odd = {"at": time.gmtime, "n": 1}
    host.found = [ComponentHealth(Kind.PROCESSOR, "batch", healthy=True, details=odd)]
    status, body = await ask_json(await started(), "/health/detailed")
    assert status == 200
    assert body["components"][0]["details"]["n"] == 1


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"allow_cidrs": ["10.0.0.1/8"]}, "write `10.0.0.0/8`"),
        ({"allow_cidrs": ["localhost"]}, "is not a network"),
        ({"path": "health"}, "begins with `/`"),
        ({"check_collector_pipeline": {"interval": "5"}}, "is not a duration"),
        ({"check_collector_pipeline": {"exporter_failure_threshold": 0}}, "greater than or equal to 1"),
        ({"response_body": {"fine": "x"}}, "Extra inputs"),
        ({"endpont": "127.0.0.1:1"}, "Extra inputs"),
    ],
)
def test_wrong_settings_say_what_would_be_right(settings, what):
    with pytest.raises(ValidationError, match=what):
        Config.model_validate(settings)


def test_defaults_are_the_collectors():
    config = FACTORY.config.model_validate({})
    assert config.endpoint == "127.0.0.1:13133"
    assert config.path == "/"
    assert config.check_collector_pipeline.enabled is False
    assert config.check_collector_pipeline.interval == 300
    assert config.check_collector_pipeline.exporter_failure_threshold == 5
