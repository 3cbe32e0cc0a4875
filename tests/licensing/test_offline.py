import pytest

from otelwp_agent.config.service import ServiceConfig
from otelwp_agent.licensing.offline import permitted
from otelwp_agent.licensing.state_file import LicenseState, LicenseStateFile
from tests.licensing.issuer import DAY, ISSUER, START


def service(**licence):
    licence = {"public_keys": [ISSUER.public], **licence}
    return ServiceConfig.model_validate({"tier": "enterprise", "license": licence})


def told(settings, now=START):
    entitlement = permitted(settings, now, required=True)
    return entitlement.tier.value, entitlement.basis.value


def test_a_licence_decides_before_the_stated_tier():
    assert told(service(key=ISSUER.issue())) == ("pro", "license")
    assert told(service(key=ISSUER.issue()), START + 400 * DAY) == ("free", "lapsed")
    leased = service(key=ISSUER.issue(lease=int(START + DAY)))
    assert [told(leased, START + days * DAY)[1] for days in (0, 2, 20)] == ["license", "grace", "lapsed"]


@pytest.mark.parametrize(("content", "basis"), [(ISSUER.issue(), "license"), ("nothing", "lapsed"), (None, "lapsed")])
def test_a_licence_in_a_file(tmp_path, content, basis):
    path = tmp_path / "license.jwt"
    if content is not None:
        path.write_text(content + "\n")
    assert told(service(file=str(path)))[1] == basis


def test_without_a_licence_the_stated_tier_decides_unless_one_is_required():
    stated = ServiceConfig.model_validate({"tier": "pro"})
    assert permitted(stated, START, required=False).tier.value == "pro"
    assert permitted(stated, START, required=True).basis.value == "required"
    assert permitted(ServiceConfig(), START, required=False).basis.value == "evaluation"


@pytest.mark.parametrize(
    ("renewal", "tier"),
    [
        (ISSUER.issue(iat=int(START) + 1, tier="enterprise"), "enterprise"),
        (ISSUER.issue(iat=int(START) - 1, tier="enterprise"), "pro"),
        (ISSUER.issue(iat=int(START) + 1, tier="enterprise", jti="other"), "pro"),
        ("damaged", "pro"),
    ],
)
def test_the_stored_renewal_counts_if_it_is_newer_and_of_the_same_licence(tmp_path, renewal, tier):
    path = str(tmp_path / "state.json")
    LicenseStateFile(path).write(LicenseState(renewal, START, START), sync=False)
    assert told(service(key=ISSUER.issue(), state_file=path))[0] == tier


def test_an_unreadable_public_key_is_told():
    entitlement = permitted(service(key=ISSUER.issue(), public_keys=["/no/such/file"]), START, required=False)
    assert entitlement.basis.value == "lapsed"
    assert "cannot be used" in entitlement.reason
