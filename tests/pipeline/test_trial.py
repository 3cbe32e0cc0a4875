import pytest

from otelwp_agent.component import ComponentConfig, Factory, Kind, Processor
from otelwp_agent.components import Catalog
from otelwp_agent.config.load import load
from otelwp_agent.errors import ConfigError
from otelwp_agent.pipeline.plan import make_plan
from otelwp_agent.pipeline.trial import try_to_build

CONFIG = """yaml:
receivers: {otlp: {protocols: {http: }}}
processors:
  acme: {fails: false}
  acme/used: {fails: true}
  acme/unused: {fails: true}
exporters: {debug: }
service: {pipelines: {traces: {receivers: [otlp], processors: [acme, acme/used], exporters: [debug]}}}
"""


class Config(ComponentConfig):
    fails: bool
    """Whether it cannot be built."""


class Acme(Processor):
    def __init__(self, config, context):
        super().__init__(context)
        assert not context.host.ready
        assert (context.host.status, context.host.components(), context.host.providers(object)) == ("starting", (), ())
        if config.fails:
            raise ValueError("`fails` is set")

    def consume(self, batch):
        self.next.consume(batch)


class Theirs(Catalog):
    def get(self, kind, type_):
        if type_ == "acme":
            return Factory(Kind.PROCESSOR, "acme", Config, Acme)
        return super().get(kind, type_)


def test_every_component_that_cannot_be_built_is_named_with_its_place():
    document = load([CONFIG])
    with pytest.raises(ConfigError) as caught:
        try_to_build(make_plan(document, Theirs()), document)
    assert [str(problem) for problem in caught.value.problems] == [
        "yaml:5:3: processors/acme/used: cannot be built: `fails` is set",
        "yaml:6:3: processors/acme/unused: cannot be built: `fails` is set",
    ]


def test_a_plan_whose_components_can_be_built_passes():
    document = load([CONFIG.replace("fails: true", "fails: false")])
    try_to_build(make_plan(document, Theirs()), document)


def test_components_are_built_with_their_extensions():
    text = """yaml:
receivers: {otlp: {protocols: {http: {auth: {authenticator: bearertokenauth}}}}}
exporters: {debug: }
extensions: {bearertokenauth: {token: s3cret}}
service: {extensions: [bearertokenauth], pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}
"""
    document = load([text])
    try_to_build(make_plan(document, Catalog()), document)
