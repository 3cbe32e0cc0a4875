import time

import pytest
from structlog.testing import capture_logs

from otelwp_agent.component import (
    ComponentConfig,
    ComponentId,
    Connector,
    Context,
    Exporter,
    Factory,
    Kind,
    Processor,
    Receiver,
)
from otelwp_agent.errors import StartError
from otelwp_agent.pipeline.building import build_component
from otelwp_agent.pipeline.plan_types import ComponentPlan
from otelwp_agent.telemetry import logging
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import NoHost


def context_of(kind=Kind.PROCESSOR, type_="acme_redact"):
    log = logging.get(f"{kind.value}/{type_}")
    return Context(ComponentId(type_), kind, Registry(), log, time.monotonic, NoHost())


def built(build, kind=Kind.PROCESSOR):
    factory = Factory(kind, "acme_redact", ComponentConfig, build)
    planned = ComponentPlan(kind, ComponentId("acme_redact"), factory, ComponentConfig())
    return build_component(planned, context_of(kind))


def refusal(build, kind=Kind.PROCESSOR):
    with pytest.raises(StartError) as caught:
        built(build, kind)
    return str(caught.value)


class Good(Processor):
    def __init__(self, config, context):
        super().__init__(context)

    def consume(self, batch):
        self.next.consume(batch)


def test_a_good_component_is_returned():
    assert isinstance(built(Good), Good)


def test_a_constructor_with_other_arguments_is_one_line_without_a_traceback():
    class Wrong(Processor):
        def consume(self, batch):
            pass

    with capture_logs() as logs:
        text = refusal(Wrong)
    assert text.startswith("processors/acme_redact: cannot be built as build(config, context): ")
    assert text.endswith("Define __init__(self, config, context) and call super().__init__(context)")
    assert logs == []


def test_a_setting_that_cannot_be_built_is_one_line_without_a_traceback():
    def build(config, context):
        raise ValueError("two\nlines")

    with capture_logs() as logs:
        assert refusal(build) == "processors/acme_redact: cannot be built: two lines"
    assert logs == []


def test_a_bug_while_building_is_logged_once_with_its_traceback():
    def build(config, context):
        return {}["missing"] + len(None)

    with capture_logs() as logs:
        text = refusal(build)
    assert text == "processors/acme_redact: cannot be built: KeyError: 'missing' (a bug in the component; see the log)"
    assert [(log["log_level"], log["component"]) for log in logs] == [("error", "processors/acme_redact")]
    assert isinstance(logs[0]["exc_info"], KeyError)


def test_a_type_error_inside_the_constructor_is_a_bug_not_a_wrong_signature():
    def build(config, context):
        return len(None)

    with capture_logs() as logs:
        text = refusal(build)
    assert "cannot be built: TypeError" in text
    assert len(logs) == 1


def test_a_start_error_that_names_the_component_stays_as_it_is():
    def build(config, context):
        raise StartError("processors/acme_redact: no dictionary at /none")

    assert refusal(build) == "processors/acme_redact: no dictionary at /none"


class NoConsume(Processor):
    def __init__(self, config, context):
        super().__init__(context)


class Unprepared(Good):
    def __init__(self, config, context):
        self.config = config


class TwoArguments(Good):
    def consume(self, batch, more):
        pass


class PlainExport(Exporter):
    def __init__(self, config, context):
        super().__init__(context)

    def export(self, batch):
        pass


class NoConsumeConnector(Connector):
    def __init__(self, config, context):
        super().__init__(context)


@pytest.mark.parametrize(
    ("kind", "build", "problem"),
    [
        (Kind.PROCESSOR, lambda _config, _context: None, "its factory returned None, not a Processor"),
        (Kind.RECEIVER, Good, "not a Receiver"),
        (Kind.PROCESSOR, Unprepared, "its __init__ must call super().__init__(context)"),
        (Kind.PROCESSOR, NoConsume, "NoConsume must define consume(self, batch)"),
        (Kind.CONNECTOR, NoConsumeConnector, "NoConsumeConnector must define consume(self, batch)"),
        (Kind.PROCESSOR, TwoArguments, "TwoArguments.consume must accept one batch"),
        (Kind.EXPORTER, PlainExport, "PlainExport.export must be a coroutine function"),
    ],
)
def test_what_is_not_a_component_of_its_kind_is_refused(kind, build, problem):
    text = refusal(build, kind)
    assert text.startswith(f"{kind.value}/acme_redact: ")
    assert problem in text


def test_a_receiver_needs_no_method_of_its_own():
    class Hand(Receiver):
        def __init__(self, config, context):
            super().__init__(context)

    assert isinstance(built(Hand, Kind.RECEIVER), Hand)
