import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry._opamp.client import OpAMPClient
from opentelemetry._opamp.proto import opamp_pb2 as published

from otelwp_agent.codecs.opamp import opamp_pb2 as pb
from otelwp_agent.codecs.opamp.reports import MAX_ATTRIBUTES, MAX_CONFIG, AgentReport, ConfigState, parse_report
from otelwp_agent.errors import MalformedError
from tests.kit.opamp import UID, health, message


def read(built):
    return parse_report(built.SerializeToString())


def test_the_full_state_of_the_published_client():
    client = OpAMPClient(
        endpoint="http://localhost/v1/opamp",
        agent_identifying_attributes={"service.name": "shop", "service.version": "1.2.3"},
        agent_non_identifying_attributes={"os.type": "linux", "cpus": 4, "vm": True},
    )
    client.update_effective_config({"config.json": {"a": 1}}, "application/json")
    client.update_remote_config_status(b"\x01\x02", published.RemoteConfigStatuses_FAILED, "no such exporter")
    found = parse_report(client.build_full_state_message())
    assert found.instance == client._instance_uid.hex()
    assert found.attributes == {
        "service.name": "shop",
        "service.version": "1.2.3",
        "os.type": "linux",
        "cpus": "4",
        "vm": "true",
    }
    assert found.effective_config == {"config.json": '{"a": 1}'}
    assert found.config == ConfigState("0102", "failed", "no such exporter")
    assert (found.health, found.components, found.disconnects) == (None, None, False)
    assert parse_report(client.build_agent_disconnect_message()).disconnects


def test_the_messages_have_the_field_numbers_of_the_published_ones():
    theirs = published.DESCRIPTOR.message_types_by_name
    for name, ours in pb.DESCRIPTOR.message_types_by_name.items():
        if name in theirs:
            known = {field.number: field.name for field in theirs[name].fields}
            assert {field.number: field.name for field in ours.fields}.items() <= known.items(), name


def test_a_heartbeat_has_no_parts():
    assert read(message(7)) == AgentReport(instance=UID.hex(), sequence=7, capabilities=0x1003)


def test_unhealthy_components():
    below = health("queue is full")
    found = read(message(health=health("degraded", traces=health(**{"exporter/otlp": below}))))
    assert found.health == {
        "healthy": False,
        "status": "",
        "last_error": "degraded",
        "unhealthy": {"traces/exporter/otlp": "queue is full"},
    }


def test_credentials_are_removed_and_texts_shortened():
    built = message(attributes={f"a{number}": "x" * 1000 for number in range(100)})
    file = built.effective_config.config_map.config_map["collector.yaml"]
    file.body = b"headers: {Authorization: Bearer abcdefgh12345678}\n" + b"a" * MAX_CONFIG
    found = read(built)
    assert len(found.attributes) == MAX_ATTRIBUTES
    assert {len(value) for value in found.attributes.values()} == {256}
    text = found.effective_config["collector.yaml"]
    assert "abcdefgh12345678" not in text
    assert text.endswith("# cut off here: it is too long")


def test_components_by_kind():
    built = message()
    details = built.available_components.components["receivers"].sub_component_map
    for name in ("otlp", "jaeger"):
        details[name].SetInParent()
    built.available_components.hash = b"\xab"
    found = read(built)
    assert (found.components, found.components_hash) == (("receivers/jaeger", "receivers/otlp"), "ab")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"\xff\xff", "AgentToServer"),
        (message(uid=b"01ARZ3NDEKTSV4RRFFQ69G5FAV").SerializeToString(), "16 bytes, not 26"),
        (b"", "16 bytes, not 0"),
        (message(2**63).SerializeToString(), "below 2"),
    ],
    ids=["not protobuf", "ULID", "empty", "sequence"],
)
def test_an_invalid_message(body, text):
    with pytest.raises(MalformedError, match=text):
        parse_report(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body):
    for each in (body, message().SerializeToString() + body):
        try:
            found = parse_report(each)
        except MalformedError:
            continue
        assert len(found.instance) == 32
