import pytest

from otelwp_agent.component import ComponentHealth, Kind, NoHost, Processor, Stall


def test_a_stall_names_the_stage_if_it_is_known():
    assert str(Stall(2.04)) == "the event loop has been blocked for 2.0 s"
    assert str(Stall(2.04, "processor batch")) == "the event loop has been blocked for 2.0 s, in processor batch"


def test_a_part_of_the_service_is_labelled_as_such():
    assert ComponentHealth(Kind.EXPORTER, "otlp_http", healthy=True).label == "exporter"
    assert ComponentHealth(None, "journal", healthy=True).label == "service"


@pytest.mark.parametrize(("status", "ready"), [("starting", False), ("ready", True)])
def test_no_host_reports_a_state_and_no_components(status, ready):
    host = NoHost(status)
    assert (host.status, host.ready) == (status, ready)
    assert [*host.components()] == []
    assert [*host.providers(Processor)] == []
    assert host.stall() is None
