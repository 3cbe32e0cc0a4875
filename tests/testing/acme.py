"""Keep or lose things on purpose: components for tests of the contract suite.

Example::

    processors:
      acme:
        remove: [shop.secret, shop.token]
"""

import asyncio
import os
import threading
import weakref

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.component import ComponentConfig, Effect, Factory, Kind, Processor, Reads
from otelwp_agent.errors import PermanentError
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.signal import Signal

THREADS = weakref.WeakKeyDictionary()
"""Event loop => threads that `UsesThreadsOfTheLoop` has used in it."""


class Config(ComponentConfig):
    remove: list[str]
    """Keys of span attributes to remove."""


class Acme(Processor):
    """Removes attributes of spans."""

    def __init__(self, config, context):
        super().__init__(context)
        self.remove = frozenset(config.remove)

    def consume(self, batch):
        self.next.consume(batch.with_body(self.edit(batch.body)))

    def edit(self, body):
        try:
            message = ExportTraceServiceRequest.FromString(body)
        except Exception as error:
            from otelwp_agent.errors import MalformedError

            raise MalformedError("not a request") from error
        for span in [span for rs in message.resource_spans for ss in rs.scope_spans for span in ss.spans]:
            kept = [pair for pair in span.attributes if pair.key not in self.remove]
            del span.attributes[:]
            span.attributes.extend(kept)
        return message.SerializeToString()


class RemovesNothing(Acme):
    def edit(self, body):
        super().edit(body)
        return body


class IgnoresTheSecond(Acme):
    def __init__(self, config, context):
        super().__init__(config, context)
        self.remove = frozenset(config.remove[:1])


class ForgetsUnknownFields(Acme):
    def edit(self, body):
        message = ExportTraceServiceRequest.FromString(super().edit(body))
        message.DiscardUnknownFields()
        return message.SerializeToString()


class SettlesTwice(Acme):
    def consume(self, batch):
        super().consume(batch)
        batch.settle(Outcome.DELIVERED)


class LosesBatches(Acme):
    def consume(self, batch):
        if batch.items > 1:
            super().consume(batch)


class DropsAsLost(Acme):
    def consume(self, batch):
        if batch.items > 1:
            super().consume(batch)
        else:
            self.edit(batch.body)
            batch.settle(Outcome.DROPPED, "too_small")


class ChangesTheBatch(Acme):
    def consume(self, batch):
        super().consume(batch)
        batch.shares = [*batch.shares, *batch.shares]


class CountsWrong(Acme):
    def consume(self, batch):
        self.next.consume(batch.with_body(self.edit(batch.body), batch.items + 1))


class HidesRefusals(Acme):
    def consume(self, batch):
        try:
            super().consume(batch)
        except Exception as error:
            raise PermanentError("no") from error


OPENED = []
"""File descriptors that the components below leave open; a test closes them."""


class KeepsAFile(Acme):
    async def start(self):
        OPENED.append(os.open(os.devnull, os.O_RDONLY))


class UsesThreadsOfTheLoop(Acme):
    """Works in one more thread of the event loop at each start."""

    async def start(self):
        loop = asyncio.get_running_loop()
        threads = THREADS[loop] = min(4, THREADS.get(loop, 0) + 1)
        together = threading.Barrier(threads)
        await asyncio.gather(*(asyncio.to_thread(together.wait) for _ in range(threads)))


class OpensEarly(Acme):
    def __init__(self, config, context):
        super().__init__(config, context)
        OPENED.append(os.open(os.devnull, os.O_RDONLY))

    async def shutdown(self):
        while OPENED:
            os.close(OPENED.pop())


class ShutsDownOnce(Acme):
    def __init__(self, config, context):
        super().__init__(config, context)
        self.things = [1]

    async def shutdown(self):
        self.things.pop()


def factory_of(build=Acme, **changes):
    """Return a factory that declares what `Acme` does, but for `changes`."""
    declared = {
        "signals": frozenset({Signal.TRACES}),
        "reads": Reads.FULL,
        "effects": frozenset({Effect.EDITS}),
        **changes,
    }
    return Factory(Kind.PROCESSOR, "acme", declared.pop("config", Config), build, **declared)


FACTORY = factory_of()
