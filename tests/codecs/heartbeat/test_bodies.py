import json

import pytest
from pydantic import ValidationError

from otelwp_agent.codecs.heartbeat.bodies import (
    LONGEST_STACK_TRACE,
    LONGEST_TEXT,
    MAX_DEPTH,
    MAX_MEMBERS,
    EventBody,
    HeartbeatBody,
)
from tests.kit.fleet import EVENT, HEARTBEAT


def nested(depth):
    return {"a": nested(depth - 1)} if depth else 1


def test_the_bodies_of_the_documentation_are_valid():
    beat = HeartbeatBody.model_validate_json(json.dumps(HEARTBEAT))
    assert (beat.errors_last_hour, beat.server_info["max_execution_time"], beat.sent_at) == (0.5, "300", None)
    event = EventBody.model_validate_json(json.dumps(EVENT))
    assert (event.event_data["amount"], event.level) == (55000, "error")


@pytest.mark.parametrize(
    "changed",
    [
        {"merchant_id": None},
        {"merchant_id": ""},
        {"merchant_id": 5},
        {"cms": "Woo Commerce"},
        {"plugin_version": "latest"},
        {"plugin_version": 1.3},
        {"plugin_version": "1." * 40},
        {"errors_last_hour": -1},
        {"errors_last_hour": "1"},
        {"errors_last_hour": True},
        {"errors_last_hour": 1e300},
        {"environment": ""},
        {"php_version": "8\n"},
        {"server_info": ["a"]},
        {"server_info": {"a": "x" * 257}},
        {"server_info": {"a": None}},
        {"server_info": {str(number): "" for number in range(33)}},
        {"sent_at": "yesterday"},
        {"sent_at": "2026-11-30T12:00:00"},
        {"acknowledged": "a"},
    ],
)
def test_invalid_heartbeats_are_refused(changed):
    with pytest.raises(ValidationError):
        HeartbeatBody.model_validate_json(json.dumps(HEARTBEAT | changed))


@pytest.mark.parametrize(
    "changed",
    [
        {"event_type": "party"},
        {"severity": "bad"},
        {"event_data": [1]},
        {"event_data": {"a": "x" * (LONGEST_TEXT + 1)}},
        {"event_data": {"a\0": 1}},
        {"event_data": {"a": float("nan")}},
        {"event_data": {"a": 2**63}},
        {"event_data": {"a": [0] * MAX_MEMBERS}},
        {"event_data": nested(MAX_DEPTH + 1)},
        {"stack_trace": "x" * (LONGEST_STACK_TRACE + 1)},
        {"stack_trace": "a\0b"},
        {"installation_id": "7"},
        {"event_id": "a b"},
    ],
)
def test_invalid_events_are_refused(changed):
    with pytest.raises(ValidationError):
        EventBody.model_validate_json(json.dumps(EVENT | changed))


def test_what_plugins_write_in_other_ways():
    beat = HeartbeatBody.model_validate_json(
        json.dumps(HEARTBEAT | {"server_info": [], "errors_last_hour": 2, "new_member": {}})
    )
    assert (beat.server_info, beat.errors_last_hour) == ({}, 2.0)
    info = {"memory": 256, "load": 0.5, "debug": False}
    beat = HeartbeatBody.model_validate_json(json.dumps(HEARTBEAT | {"server_info": info}))
    assert beat.server_info == {"memory": "256", "load": "0.5", "debug": "false"}
    event = EVENT | {"event_data": [], "stack_trace": None, "severity": None, "event_type": "info"}
    assert EventBody.model_validate_json(json.dumps(event)).level == "info"
    EventBody.model_validate_json(json.dumps(EVENT | {"event_data": nested(MAX_DEPTH)}))
