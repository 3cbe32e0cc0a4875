import pytest
from pydantic import ValidationError

from otelwp_agent.component import ComponentId, Kind
from otelwp_agent.control.directory import PlanEntry, TenantEntry
from otelwp_agent.errors import UnauthenticatedError
from otelwp_agent.extensions.client_certificate import FACTORY, MAX_KNOWN, MAX_NAME, MAX_NAMES, Config
from otelwp_agent.testing.fakes import make_context
from otelwp_agent.transport.authentication import PeerCertificate
from tests.kit.control_access import Access

PATTERN = r"(?P<tenant>[a-z]+)\.agents\.example"


def make(**settings):
    return FACTORY.build(Config.model_validate(settings), make_context(Kind.EXTENSION, "client_certificate"))


def tenant(extension, certificate):
    try:
        return extension.authenticate({}, "", certificate).tenant
    except UnauthenticatedError as error:
        return error.reason


def named(name, *others):
    return PeerCertificate(name, others)


def test_the_common_name_decides_by_table_then_by_pattern():
    extension = make(tenants={"legacy": "shop", "open": "", "a.agents.example": "special"}, pattern=PATTERN)
    assert not extension.by_headers
    expected = {
        "legacy": "shop",
        "open": "",
        "a.agents.example": "special",
        "b.agents.example": "b",
        "b.agents.example.evil": "unauthenticated",
        "x\nb.agents.example": "unauthenticated",
        "B.agents.example": "unauthenticated",
        "": "unauthenticated",
        "x" * (MAX_NAME + 1): "unauthenticated",
    }
    assert {name: tenant(extension, named(name)) for name in expected} == expected
    client = extension.authenticate({}, "", named("legacy", "b.agents.example"))
    assert (client.credential, client.attributes) == ("legacy", {"subject": "legacy"})
    assert extension.authenticate({}, "", named("legacy", "b.agents.example")) is client


def test_the_first_known_alternative_name_decides():
    extension = make(name="alternative_name", pattern=PATTERN)
    assert tenant(extension, named("a.agents.example")) == "unauthenticated"
    assert tenant(extension, named("x", "localhost", "b.agents.example", "c.agents.example")) == "b"
    many = [f"n{number}" for number in range(MAX_NAMES)]
    assert tenant(extension, named("x", *many, "b.agents.example")) == "unauthenticated"


def test_with_a_control_store_a_client_gets_the_limits_of_its_tenant():
    access = Access()
    context = make_context(Kind.EXTENSION, "client_certificate", extensions={ComponentId("control_store"): access})
    extension = FACTORY.build(Config.model_validate({"pattern": PATTERN, "store": "control_store"}), context)
    access.use({"gold": PlanEntry("pro", {"request_burst": 7.0}, None)}, TenantEntry("a", "gold", active=True))
    server = extension.of_servers()
    assert server.authenticate({}, "", named("a.agents.example")).limits == {"request_burst": 7.0}
    assert server.authenticate({}, "", named("b.agents.example")).limits == {}
    alone = make(pattern=PATTERN)
    assert alone.of_servers() is alone


def test_without_a_certificate_nobody_is_accepted():
    assert tenant(make(pattern=PATTERN), None) == "unauthenticated"


def test_an_optional_group_without_a_match_is_no_tenant():
    assert tenant(make(pattern="x(?P<tenant>y)?"), named("x")) == "unauthenticated"


def test_the_memory_of_known_certificates_is_bounded():
    extension = make(pattern="(?P<tenant>.+)")
    for number in range(MAX_KNOWN + 5):
        assert tenant(extension, named(f"n{number}")) == f"n{number}"
    assert len(extension._clients) == 5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "no client would be accepted: give `tenants` or `pattern`"),
        ({"pattern": "("}, "this is not a regular expression"),
        ({"pattern": "(x)"}, "a group `\\(\\?P<tenant>…\\)` is missing"),
        ({"tenants": {"a": 1}}, "valid string"),
        ({"name": "serial", "tenants": {"a": "b"}}, "common_name"),
    ],
)
def test_invalid_settings_are_refused(settings, words):
    with pytest.raises(ValidationError, match=words):
        Config.model_validate(settings)
