import pytest

from otelwp_agent.component import Kind
from otelwp_agent.components import Catalog
from otelwp_agent.model.signal import Signal
from otelwp_agent.testing import Subject
from tests.testing import acme


def subject(kind, type_, folder, **options):
    return Subject(Catalog().get(kind, type_), folder, **options)


def test_settings_are_from_the_example_with_local_ports_and_files(tmp_path):
    otlp = subject(Kind.RECEIVER, "otlp", tmp_path).settings()
    assert {block["endpoint"] for block in otlp["protocols"].values()} == {"127.0.0.1:0"}
    path = subject(Kind.EXPORTER, "file", tmp_path).settings()["path"]
    assert path.startswith(f"{tmp_path}/")
    assert subject(Kind.EXPORTER, "otlp_http", tmp_path).settings()["endpoint"] == "http://127.0.0.1:9"


def test_settings_can_be_replaced(tmp_path):
    assert Subject(acme.FACTORY, tmp_path, {"remove": ["a"]}).settings() == {"remove": ["a"]}


async def test_batches_pass_and_are_settled(tmp_path):
    passed = await Subject(acme.FACTORY, tmp_path).passed()
    assert [*passed] == [Signal.TRACES]
    given, forwarded = passed[Signal.TRACES]
    assert [batch.items for batch in given] == [batch.items for batch in forwarded]
    assert {receipt.pending for batch in given for receipt, _ in batch.shares} == {0}
    assert b"shop.secret" in given[-1].body


def test_requests_are_added_to_the_corpus(tmp_path):
    body = b"\n\x06\x12\x04\x12\x02\x2a\x00"
    added = Subject(acme.FACTORY, tmp_path, requests={Signal.TRACES: [body]}).batches(Signal.TRACES)[-1]
    assert (added.body, added.items) == (body, 1)


@pytest.mark.parametrize(
    ("kind", "type_"), [(Kind.PROCESSOR, "batch"), (Kind.RECEIVER, "otlp"), (Kind.CONNECTOR, "forward")]
)
def test_the_next_stage_is_a_catcher(kind, type_, tmp_path):
    component, catcher = subject(kind, type_, tmp_path).build()
    assert component.next is catcher or component.next == dict.fromkeys(Signal, catcher)
    assert str(component.context.id) == f"{type_}/contract"
