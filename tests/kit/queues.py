"""Sending queues and batches to put into them."""

from __future__ import annotations

from otelwp_agent.config.blocks import Queue
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.sending.queue import SendingQueue


def a_batch(items: int = 1, size: int = 10, shares: int = 1) -> Batch:
    """Return a batch with a receipt for each share."""
    receipts = [(Receipt(items), items)] * shares
    return Batch(Signal.TRACES, b"x" * size, items * shares, Origin(), receipts)


def of(tenant: str, *, items: int = 1, size: int = 10) -> Batch:
    """Return a batch of a tenant."""
    batch = a_batch(items, size)
    batch.origin = Origin(tenant=tenant)
    return batch


def a_queue(**settings) -> SendingQueue:
    """Return the queue of an exporter."""
    return SendingQueue(Queue(**settings), "otlp_http/x")


def taken(queue: SendingQueue):
    """Take the next batch, which must be ready."""
    assert queue.ready
    return queue.take()
