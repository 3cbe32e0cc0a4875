"""What every component keeps, whatever it does: one suite over everything that ships.

A component joins by standing in `components.SHIPPED`. Its configuration here is the example in its docstring, with
every address made free and local and every path made temporary.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import gc
import socket
import threading
import time
from importlib import import_module
from pathlib import Path

import pytest
import structlog
import yaml
from docs_fields import block_of
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

from otelwp_agent.component import Carries, ComponentId, Context, Kind
from otelwp_agent.components import ALIASES, SHIPPED, Catalog
from otelwp_agent.config.describe import describe
from otelwp_agent.config.types import Endpoint
from otelwp_agent.errors import ConsumeError, MalformedError, Overloaded, PermanentError, RetryableError, StartError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.metrics import Registry
from tests.kit.snippets import example, plan_of

ALL = [(kind, type_) for kind in Kind for type_ in SHIPPED[kind]]
LISTENS = (Kind.RECEIVER, Kind.EXTENSION)
TRACE_ID = bytes.fromhex("0af7651916cd43dd8448eb211c80319c")

SETTINGS = {
    # The test process itself is larger than a limit that one would set.
    (Kind.PROCESSOR, "memory_limiter"): {"limit_mib": 1_000_000, "spike_limit_mib": 1},
}


def of_kinds(*kinds):
    chosen = [(kind, type_) for kind, type_ in ALL if kind in kinds]
    return pytest.mark.parametrize(("kind", "type_"), chosen, ids=[f"{kind.label}-{type_}" for kind, type_ in chosen])


every_component = of_kinds(*Kind)
every_stage = of_kinds(Kind.PROCESSOR, Kind.CONNECTOR)


# --- what a component is given ---


class NoHost:
    """A service that runs nothing else."""

    ready = True

    def components(self):
        return ()


class Catcher:
    """What stands after a stage: keeps batches, or refuses them with `error`."""

    def __init__(self):
        self.batches = []
        self.error = None

    def admit(self):
        if isinstance(self.error, Overloaded):
            raise self.error

    def refusal(self, batch):
        return self.error if isinstance(self.error, RetryableError) else None

    def consume(self, batch):
        if self.error is not None:
            raise self.error
        self.batches.append(batch)

    def deliver(self):
        """Settle everything that was caught."""
        for batch in self.batches:
            batch.settle(Outcome.DELIVERED)


def module_of(kind, type_):
    return import_module(f"otelwp_agent.{kind.value}.{type_}")


def factory_of(kind, type_):
    factory = Catalog().get(kind, type_)
    assert factory is not None
    return factory


def example_of(kind, type_):
    """Return the configuration file that a component's docstring shows."""
    return yaml.safe_load(example(module_of(kind, type_).__doc__))


def settings_of(kind, type_, folder):
    """Return the settings in a component's example, made local."""
    sections = example_of(kind, type_)[kind.value]
    names = {type_, *(alias for alias, of in ALIASES.get(kind, {}).items() if of == type_)}
    settings = next(value for name, value in sections.items() if name.partition("/")[0] in names)
    factory = factory_of(kind, type_)
    settings = {**localize(settings or {}, folder), **SETTINGS.get((kind, type_), {})}
    return with_endpoints(factory.config, settings, "127.0.0.1:0" if kind in LISTENS else "http://127.0.0.1:9")


def localize(value, folder):
    """Move absolute paths into `folder`."""
    if isinstance(value, dict):
        return {key: localize(each, folder) for key, each in value.items()}
    if isinstance(value, list):
        return [localize(each, folder) for each in value]
    if isinstance(value, str) and value.startswith("/") and "." in value:
        path = folder / value.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        return str(path)
    return value


def with_endpoints(model, settings, endpoint):
    """Give every endpoint in a block that is in use, those left to their defaults too."""
    filled = dict(settings)
    for name, field in model.model_fields.items():
        found = block_of(field.annotation)
        if field.annotation is Endpoint or field.annotation == Endpoint | None:
            filled[name] = endpoint
        elif found is not None and isinstance(filled.get(name), dict) and not found[1]:
            filled[name] = with_endpoints(found[0], filled[name], endpoint)
        elif found is not None and name in filled and filled[name] is None:
            filled[name] = with_endpoints(found[0], {}, endpoint)
    return filled


def context_of(kind, type_, registry=None):
    return Context(
        id=ComponentId(type_, "contract"),
        kind=kind,
        registry=registry or Registry(),
        log=structlog.get_logger(),
        clock=time.monotonic,
        host=NoHost(),
        pipeline="traces",
    )


def build(kind, type_, folder, *, settings=None, registry=None):
    """Return a component that has not been started, and what stands after it."""
    factory = factory_of(kind, type_)
    config = factory.config.model_validate(settings if settings is not None else settings_of(kind, type_, folder))
    component = factory.build(config, context_of(kind, type_, registry))
    catcher = Catcher()
    if kind is Kind.PROCESSOR:
        component.next = catcher
    elif kind in (Kind.RECEIVER, Kind.CONNECTOR):
        component.next = dict.fromkeys(Signal, catcher)
    return component, catcher


def body_of(signal, items):
    """Return a request of `items` items in wire form, in two resources."""
    if signal is Signal.TRACES:
        request = ExportTraceServiceRequest()
        for index in range(items):
            if index in (0, items // 2):
                spans = request.resource_spans.add().scope_spans.add().spans
            spans.add(
                trace_id=trace_id(index),
                span_id=(index + 1).to_bytes(8, "big"),
                name=f"span {index}",
            )
    elif signal is Signal.METRICS:
        request = ExportMetricsServiceRequest()
        for index in range(items):
            if index in (0, items // 2):
                metrics = request.resource_metrics.add().scope_metrics.add().metrics
            metrics.add(name=f"metric {index}").gauge.data_points.add(as_int=index)
    else:
        request = ExportLogsServiceRequest()
        for index in range(items):
            if index in (0, items // 2):
                records = request.resource_logs.add().scope_logs.add().log_records
            records.add(time_unix_nano=index, trace_id=trace_id(index)).body.string_value = f"record {index}"
    return request.SerializeToString()


def trace_id(index):
    """Return trace ids that spread over what samplers look at."""
    return TRACE_ID[:8] + (index * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "big")


def batch_of(signal, items=20):
    return Batch(signal, body_of(signal, items), items, Origin("otlp", "http"), [(Receipt(items), items)])


def receipts_of(batch):
    return [receipt for receipt, _ in batch.shares]


# --- declarations ---


@every_component
def test_the_factory_is_named_as_its_file(kind, type_):
    factory = factory_of(kind, type_)
    assert (factory.kind, factory.type) == (kind, type_)
    assert set(factory.aliases) == {alias for alias, of in ALIASES.get(kind, {}).items() if of == type_}
    assert factory.signals or kind is Kind.EXTENSION
    assert factory.reads


@every_component
def test_the_example_in_the_docstring_loads(kind, type_, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = plan_of(example(module_of(kind, type_).__doc__), tmp_path)
    assert (kind, type_) in {(component.kind, component.factory.type) for component in plan.components.values()}
    assert [str(warning) for warning in plan.warnings] == []


@every_component
def test_the_file_tells_its_story_in_order(kind, type_):
    """Docstring, imports, constants, Config, the class, private helpers, FACTORY."""
    tree = ast.parse(Path(module_of(kind, type_).__file__).read_text("utf-8"))
    names = [
        node.name if isinstance(node, ast.ClassDef) else ast.unparse(node.targets[0])
        for node in tree.body
        if isinstance(node, (ast.ClassDef, ast.Assign))
    ]
    assert ast.get_docstring(tree)
    assert "Config" in names
    assert names[-1] == "FACTORY"
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    factory = factory_of(kind, type_)
    assert classes[-1:] != ["Config"], "the component's class comes after its Config"
    assert factory.config.__name__ == "Config"


@every_component
def test_unknown_keys_are_refused_at_every_depth(kind, type_, tmp_path):
    config = factory_of(kind, type_).config

    def refuses(model, settings, wrap):
        with pytest.raises(ValidationError, match="extra_forbidden"):
            config.model_validate(wrap({**settings, "no_such_key": 1}))
        for name, field in model.model_fields.items():
            found = block_of(field.annotation)
            if found is not None and not found[1] and isinstance(settings.get(name), dict):
                refuses(
                    found[0],
                    settings[name],
                    lambda inner, name=name: wrap({**settings, name: inner}),
                )

    settings = settings_of(kind, type_, tmp_path)
    config.model_validate(settings)
    refuses(config, settings, lambda inner: inner)


@every_component
def test_every_key_is_documented(kind, type_):
    def undocumented(model, path, seen):
        if model in seen:
            return
        seen.add(model)
        describe(model)
        for name, field in model.model_fields.items():
            if not field.description:
                yield f"{path}{name}"
            found = block_of(field.annotation)
            if found is not None:
                yield from undocumented(found[0], f"{path}{name}.", seen)

    assert list(undocumented(factory_of(kind, type_).config, "", set())) == []


@every_component
def test_a_configuration_never_changes(kind, type_, tmp_path):
    config = factory_of(kind, type_).config.model_validate(settings_of(kind, type_, tmp_path))
    for name in type(config).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(config, name, None)


# --- life ---


async def open_things():
    """Return what this process holds open, once what is being closed has been.

    Components that are gone are collected first. The pollers of event loops and of gRPC do not count: they belong to
    the process, and gRPC makes and drops its own when it likes.
    """
    gc.collect()
    await asyncio.sleep(0)
    return descriptors(), asyncio.all_tasks(), {thread.name for thread in threading.enumerate()}


def descriptors():
    """Return what each open file descriptor stands for."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists the folder
            found.append(str(entry.readlink()))
    return sorted(each for each in found if not each.startswith("anon_inode:"))


async def assert_closed(before):
    """Wait for what closes a moment later, and fail if anything stays open."""
    deadline = time.monotonic() + 5
    while (now := await open_things()) != before and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert now == before


@every_component
async def test_shutdown_without_start_and_twice(kind, type_, tmp_path):
    component, _ = build(kind, type_, tmp_path)
    await component.shutdown()
    await component.shutdown()

    component, _ = build(kind, type_, tmp_path)
    await component.start()
    await component.shutdown()
    await component.shutdown()


@every_component
async def test_nothing_is_opened_before_start_nor_left_open_after_shutdown(kind, type_, tmp_path):
    async def live():
        component, _ = build(kind, type_, tmp_path)
        built = await open_things()
        await component.start()
        component.health()
        await component.shutdown()
        return built

    await live()  # what a library opens once for the process (gRPC's poller) is not the component's
    before = await open_things()
    assert await live() == before
    await assert_closed(before)


@contextlib.contextmanager
def taken_port():
    """Give a port that somebody else has, for streams and for datagrams."""
    with socket.create_server(("127.0.0.1", 0)) as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(stream.getsockname())
        yield stream.getsockname()[1]


def occupy(config, port):
    """Return settings in which every endpoint is a port that somebody else has."""
    return {
        key: occupy(value, port) if isinstance(value, dict) else f"127.0.0.1:{port}" if key == "endpoint" else value
        for key, value in config.items()
    }


@of_kinds(*LISTENS)
async def test_a_port_in_use_is_told_and_leaves_nothing_open(kind, type_, tmp_path):
    await build_and_cycle(kind, type_, tmp_path)
    with taken_port() as port:
        settings = occupy(settings_of(kind, type_, tmp_path), port)
        before = await open_things()
        component, _ = build(kind, type_, tmp_path, settings=settings)
        with pytest.raises(StartError) as caught:
            await component.start()
        assert str(port) in str(caught.value)
        assert f"{type_}/contract" in str(caught.value), "the message names the component"
        await component.shutdown()
        del component, caught
        await assert_closed(before)


@of_kinds(*LISTENS)
async def test_the_second_port_in_use_closes_the_first(kind, type_, tmp_path):
    """A component with several servers closes those that did start."""
    await build_and_cycle(kind, type_, tmp_path)
    settings = settings_of(kind, type_, tmp_path)
    paths = list(endpoints(settings))
    with taken_port() as port:
        for path in paths:
            before = await open_things()
            taken = replace(settings, path, f"127.0.0.1:{port}")
            component, _ = build(kind, type_, tmp_path, settings=taken)
            with pytest.raises(StartError):
                await component.start()
            del component
            await assert_closed(before)


async def build_and_cycle(kind, type_, folder):
    component, _ = build(kind, type_, folder)
    await component.start()
    await component.shutdown()


def endpoints(settings, path=()):
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from endpoints(value, (*path, key))
        elif key == "endpoint":
            yield (*path, key)


def replace(settings, path, value):
    head, *rest = path
    return {**settings, head: replace(settings[head], rest, value) if rest else value}


@of_kinds(Kind.EXPORTER)
async def test_a_path_that_cannot_be_written_is_told_and_leaves_nothing_open(kind, type_, tmp_path):
    settings = settings_of(kind, type_, tmp_path)
    if "path" not in settings:
        pytest.skip("writes no file")
    (tmp_path / "file").write_text("")
    settings["path"] = str(tmp_path / "file" / "below" / "out.json")
    before = await open_things()
    component, _ = build(kind, type_, tmp_path, settings=settings)
    with pytest.raises(StartError) as caught:
        await component.start()
    assert settings["path"] in str(caught.value)
    assert f"{type_}/contract" in str(caught.value), "the message names the component"
    await component.shutdown()
    await assert_closed(before)


# --- instruments ---


@every_component
async def test_instruments_are_declared(kind, type_, tmp_path):
    """Everything that a component binds stands in its FACTORY."""
    registry = Registry()
    component, catcher = build(kind, type_, tmp_path, registry=registry)
    factory = factory_of(kind, type_)
    await component.start()
    if kind in (Kind.PROCESSOR, Kind.CONNECTOR):
        for signal in factory.signals:
            component.consume(batch_of(signal))
    await component.shutdown()
    catcher.deliver()
    assert registry.names() <= {instrument.name for instrument in factory.instruments}


@every_component
def test_instruments_say_what_they_tell(kind, type_):
    for instrument in factory_of(kind, type_).instruments:
        assert instrument.help.strip(), instrument.name
        assert instrument.name.startswith(("otelcol_", "otelwp_")), instrument.name


# --- batches and receipts ---


@every_stage
async def test_every_item_is_settled_exactly_once(kind, type_, tmp_path):
    component, catcher = build(kind, type_, tmp_path)
    await component.start()
    batches = [batch_of(signal, items) for signal in factory_of(kind, type_).signals for items in (1, 2, 20)]
    for batch in batches:
        component.consume(batch)
    await component.shutdown()
    catcher.deliver()
    for batch in batches:
        assert [receipt.pending for receipt in receipts_of(batch)] == [0]


@every_stage
async def test_a_batch_is_not_changed(kind, type_, tmp_path):
    component, catcher = build(kind, type_, tmp_path)
    await component.start()
    for signal in factory_of(kind, type_).signals:
        batch = batch_of(signal)
        body, shares, origin = batch.body, list(batch.shares), batch.origin
        component.consume(batch)
        assert (batch.body, list(batch.shares), batch.items, batch.origin) == (body, shares, 20, origin)
    await component.shutdown()
    catcher.deliver()
    for caught in catcher.batches:
        assert sum(items for _, items in caught.shares) == caught.items


@every_stage
@pytest.mark.parametrize("error", [Overloaded, RetryableError, PermanentError, MalformedError])
async def test_a_refusal_keeps_its_kind_and_loses_nothing(kind, type_, tmp_path, error):
    """A stage that cannot hand on says why in the same words, or keeps what it took until it can."""
    component, catcher = build(kind, type_, tmp_path)
    await component.start()
    receipts = []
    for signal in factory_of(kind, type_).signals:
        batch = batch_of(signal)
        (receipt,) = receipts_of(batch)
        receipts.append(receipt)
        handed_on = len(catcher.batches)
        catcher.error = error("the next stage says no")
        if (raised := refusal_of(component, batch)) is not None:
            assert type(raised) is error
            assert receipt.pending == batch.items, "who raises has settled nothing"
            assert len(catcher.batches) == handed_on, "who raises has handed nothing on"
            catcher.error = None
            component.consume(batch)  # the same bytes are taken when there is room
        catcher.error = None
    await settled(component, catcher)
    assert [receipt.pending for receipt in receipts] == [0] * len(receipts)


def refusal_of(component, batch):
    """Hand a batch to a stage and return what it raised, `None` if it took the batch."""
    try:
        component.consume(batch)
    except ConsumeError as error:
        return error
    return None


async def settled(component, catcher):
    """Drain a stage, deliver what it handed on, and return the batches."""
    await component.shutdown()
    catcher.deliver()
    return catcher.batches


@every_stage
async def test_what_was_taken_while_the_next_refused_is_settled_in_the_end(kind, type_, tmp_path):
    component, catcher = build(kind, type_, tmp_path)
    await component.start()
    kept = []
    for signal in factory_of(kind, type_).signals:
        batch = batch_of(signal)
        catcher.error = Overloaded("full")
        try:
            component.consume(batch)
        except Overloaded:
            continue
        kept.append(batch)
    catcher.error = None
    await settled(component, catcher)
    for batch in kept:
        (receipt,) = receipts_of(batch)
        assert receipt.pending == 0
        assert receipt.count(Outcome.DROPPED) == 0


@every_stage
async def test_encoded_bodies_pass_as_they_are_where_they_are_accepted(kind, type_, tmp_path):
    if factory_of(kind, type_).accepts is not Carries.ENCODED:
        pytest.skip("takes plain bodies alone")
    component, catcher = build(kind, type_, tmp_path)
    await component.start()
    sealed = Batch(Signal.TRACES, b"\xff\xffsealed", 3, Origin("otlp", "http"), [(Receipt(3), 3)], ("zstd",))
    component.consume(sealed)
    (caught,) = await settled(component, catcher)
    assert (caught.body, caught.encodings) == (sealed.body, sealed.encodings)


@every_stage
async def test_bytes_that_are_no_request_are_refused_or_passed_and_break_nothing(kind, type_, tmp_path):
    """A receiver checks bodies, but a stage must not fall over what got by: it passes it on or says `malformed`."""
    component, catcher = build(kind, type_, tmp_path)
    await component.start()
    for signal in factory_of(kind, type_).signals:
        garbage = Batch(signal, b"\xff\xff\xff", 1, Origin("otlp", "http"), [(Receipt(1), 1)])
        try:
            component.consume(garbage)
        except MalformedError:
            assert [receipt.pending for receipt in receipts_of(garbage)] == [1]
        component.consume(good := batch_of(signal))
        assert good.items == 20
    await settled(component, catcher)


@of_kinds(Kind.EXPORTER)
async def test_an_exporter_never_settles(kind, type_, tmp_path):
    """Receipts belong to the queue around it: it says how it went by returning or raising."""
    component, _ = build(kind, type_, tmp_path)
    await component.start()
    for signal in factory_of(kind, type_).signals:
        batch = batch_of(signal)
        with contextlib.suppress(PermanentError, RetryableError):
            assert await component.export(batch) == 0
        assert [receipt.pending for receipt in receipts_of(batch)] == [20]
    await component.shutdown()
