import pytest

from otelwp_agent.component import ComponentConfig, ComponentId, Extension, Factory, Kind
from otelwp_agent.components import Catalog
from otelwp_agent.config.load import load
from otelwp_agent.config.references import Capability, ServerAuthenticatorRef
from otelwp_agent.errors import ConfigError
from otelwp_agent.pipeline.plan import make_plan

CONFIG = """\
receivers:
  otlp:
    protocols:
      http:
        auth:
          authenticator: {server}
        middlewares:
        - id: {limiter}
exporters:
  otlp_http:
    endpoint: https://backend
    auth: {{authenticator: {client}}}
extensions:
  bearertokenauth: {{token: s3cret}}
  bearertokenauth/unlisted: {{token: s3cret}}
  bearertokenauth/invalid:
  health_check:
  chain: {{next: {next}}}
  chain/2: {{next: {next2}}}
  part: {{works: false}}
  limits:
service:
  tier: pro
  extensions: [chain, chain/2, bearertokenauth, health_check, part, limits]
  pipelines: {{traces: {{receivers: [otlp], exporters: [otlp_http]}}}}
"""
GOOD = {
    "server": "bearertokenauth",
    "client": "bearertokenauth",
    "limiter": "limits",
    "next": "chain/2",
    "next2": "bearertokenauth",
}


AUTH = "receivers.otlp.protocols.http.auth.authenticator"
LIMITER = "receivers.otlp.protocols.http.middlewares[0].id"


class ChainConfig(ComponentConfig):
    next: ServerAuthenticatorRef
    """An extension that it refers to."""


class PartConfig(ComponentConfig):
    works: bool = True
    """Whether it can be used."""

    def lack(self, capability):
        return "" if self.works else f"give `works: true` to use it as {capability.value}"


OWN = {
    "chain": (ChainConfig, {Capability.SERVER_AUTHENTICATOR}),
    "part": (PartConfig, {Capability.SERVER_AUTHENTICATOR}),
    "limits": (ComponentConfig, {Capability.REQUEST_LIMITER}),
}


class Types(Catalog):
    """The catalog with the extensions of this test."""

    def names(self, kind):
        return [*super().names(kind), *(OWN if kind is Kind.EXTENSION else ())]

    def get(self, kind, type_):
        if kind is not Kind.EXTENSION or type_ not in OWN:
            return super().get(kind, type_)
        config, capabilities = OWN[type_]
        build = lambda _, context: Extension(context)  # noqa: E731
        return Factory(kind, type_, config, build, signals=frozenset(), capabilities=frozenset(capabilities))


def plan(**values):
    text = CONFIG.format(**(GOOD | values)).replace("  bearertokenauth/invalid:\n", values.get("invalid", ""))
    return make_plan(load([f"yaml:{text}"], env={}), Types())


def problems(**values):
    with pytest.raises(ConfigError) as caught:
        plan(**values)
    return [str(problem) for problem in caught.value.problems]


def test_extensions_start_in_the_order_of_their_references():
    assert [str(identifier) for identifier in plan().extensions] == [
        "bearertokenauth",
        "chain/2",
        "chain",
        "health_check",
        "part",
        "limits",
    ]
    planned = plan().components[Kind.RECEIVER, ComponentId("otlp")]
    assert [str(each) for each in planned.references] == ["bearertokenauth", "limits"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"server": "bearertokenauht"},
            ("6:26: {AUTH}: extension `bearertokenauht` is not configured: did you mean `bearertokenauth`?"),
        ),
        (
            {"server": "remote_sampling"},
            (
                "6:26: {AUTH}: extension `remote_sampling` is not configured: "
                "write `remote_sampling:` with its settings under `extensions`"
            ),
        ),
        (
            {"limiter": "whatever"},
            ("8:15: {LIMITER}: extension `whatever` is not configured: this must be a rate limiter, of the type `"),
        ),
        (
            {"client": "health_check"},
            (
                "12:27: exporters.otlp_http.auth.authenticator: extension `health_check` cannot be used here: "
                "this must be a client authenticator, of the type `"
            ),
        ),
        (
            {"limiter": "bearertokenauth"},
            (
                "8:15: {LIMITER}: extension `bearertokenauth` cannot be used here: "
                "this must be a rate limiter, of the type `"
            ),
        ),
        (
            {"server": "bearertokenauth/unlisted"},
            ("6:26: {AUTH}: extension `bearertokenauth/unlisted` does not run: add it to `service.extensions`"),
        ),
        (
            {"server": "part"},
            (
                "6:26: {AUTH}: extension `part` cannot be used here: "
                "give `works: true` to use it as a server authenticator"
            ),
        ),
        (
            {"next2": "chain"},
            "extensions.chain: extensions refer to each other: `chain` and `chain/2`",
        ),
        ({"next2": "chain/2"}, "extensions.chain/2: extensions refer to each other: `chain/2`"),
    ],
)
def test_a_wrong_reference_is_reported_at_its_place_with_what_to_do(values, expected):
    (found,) = problems(**values)
    assert expected.replace("{AUTH}", AUTH).replace("{LIMITER}", LIMITER) in found


def test_an_extension_that_is_invalid_is_reported_once():
    (found,) = problems(server="bearertokenauth/invalid", invalid="  bearertokenauth/invalid:\n")
    assert "extensions.bearertokenauth/invalid: no token is given" in found
