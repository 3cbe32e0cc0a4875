"""A preset fills what is not given, and refuses what its vendor does not have."""

import re
from typing import get_args

import pytest
from pydantic import ValidationError

from otelwp_agent.config.vendor_presets import VENDORS, VendorPreset
from otelwp_agent.exporters.otlp_http import MAX_REQUEST_SIZE, Config


def made(**settings):
    config = Config.model_validate(settings)
    return config.endpoint, {name: value.get_secret_value() for name, value in config.headers.items()}


@pytest.mark.parametrize(
    ("preset", "endpoint", "headers"),
    [
        ({"name": "honeycomb"}, "https://api.honeycomb.io", {"x-honeycomb-team": "k"}),
        ({"name": "honeycomb", "region": "eu"}, "https://api.eu1.honeycomb.io", {"x-honeycomb-team": "k"}),
        ({"name": "newrelic"}, "https://otlp.nr-data.net", {"api-key": "k"}),
        ({"name": "newrelic", "region": "eu"}, "https://otlp.eu01.nr-data.net", {"api-key": "k"}),
        ({"name": "datadog"}, "https://otlp.datadoghq.com", {"dd-api-key": "k"}),
        ({"name": "datadog", "region": "us5"}, "https://otlp.us5.datadoghq.com", {"dd-api-key": "k"}),
        ({"name": "datadog", "region": "eu1"}, "https://otlp.datadoghq.eu", {"dd-api-key": "k"}),
        ({"name": "uptrace"}, "https://api.uptrace.dev", {"uptrace-dsn": "k"}),
        (
            {"name": "grafana_cloud", "region": "prod-eu-west-2", "user": "123"},
            "https://otlp-gateway-prod-eu-west-2.grafana.net/otlp",
            {"authorization": "Basic MTIzOms="},
        ),
        (
            {"name": "dash0", "region": "eu-west-1"},
            "https://ingress.eu-west-1.aws.dash0.com",
            {"authorization": "Bearer k"},
        ),
    ],
)
def test_endpoint_and_header(preset, endpoint, headers):
    assert made(preset={**preset, "key": "k"}) == (endpoint, headers)


def test_what_is_given_takes_precedence():
    settings = {"preset": {"name": "newrelic", "key": "k"}, "endpoint": "http://proxy:1", "headers": {"Api-Key": "own"}}
    assert made(**settings) == ("http://proxy:1", {"Api-Key": "own"})
    assert Config.model_validate(settings).max_request_size == 999_999
    assert Config.model_validate(settings | {"max_request_size": "2KiB"}).max_request_size == 2048


def test_the_lowest_limit_of_a_vendor_is_the_default():
    assert Config.model_validate({"preset": {"name": "datadog", "key": "k"}}).max_request_size == 512 * 1024


def test_a_vendor_whose_customers_have_their_own_endpoints():
    preset = {"name": "elastic", "key": "k"}
    assert made(preset=preset, endpoint="https://x.elastic.cloud")[1] == {"authorization": "ApiKey k"}
    with pytest.raises(ValidationError, match="an endpoint is missing"):
        made(preset=preset)


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ({"name": "acme"}, "'honeycomb'"),
        ({"name": "honeycomb", "region": "mars"}, "its regions are us, eu"),
        ({"name": "dash0"}, "`dash0` needs a `region`"),
        ({"name": "dash0", "region": "x.evil.example/"}, "`dash0` needs a `region`"),
        ({"name": "elastic", "region": "eu"}, "has no regions: remove `region`, and give the `endpoint`"),
        ({"name": "uptrace", "region": "eu"}, "has no regions: remove `region` ["),
        ({"name": "datadog", "region": "gov"}, "its regions are us1, us3, us5, eu1, ap1, ap2"),
        ({"name": "grafana_cloud", "region": "prod-eu-west-2"}, "needs a `user`"),
        ({"name": "honeycomb", "user": "x"}, "has no `user`"),
        ({"name": "honeycomb", "key": ""}, "at least 1"),
        ({"name": "honeycomb", "key": None}, "key"),
    ],
)
def test_bad_presets(preset, message):
    with pytest.raises(ValidationError) as caught:
        made(preset={"key": "secret", **preset})
    assert message in str(caught.value)
    assert {error["loc"][0] for error in caught.value.errors()} == {"preset"}


def test_without_a_preset_nothing_changes():
    config = Config.model_validate({"endpoint": "http://x:1"})
    assert (config.preset, config.max_request_size, config.headers) == (None, MAX_REQUEST_SIZE, {})


def test_every_vendor_can_be_named_and_names_its_page():
    assert [*VENDORS] == sorted(get_args(VendorPreset.model_fields["name"].annotation))
    assert all(re.fullmatch(r"https://\S+", vendor.page) for vendor in VENDORS.values())
