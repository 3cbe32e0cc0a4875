from otelwp_agent.sending.queued_batch import QueuedBatch, TenantQueue
from tests.kit.senders import a_request


def test_a_tenants_queue_has_the_length_of_everything_that_waits_in_it():
    queue = TenantQueue("blog")
    assert len(queue) == 0
    queue.waiting.append(QueuedBatch(a_request("a"), 1, 100, queue))
    queue.first.append(QueuedBatch(a_request("b"), 1, 100, queue))
    assert len(queue) == 2


def test_a_batch_starts_untried_and_unreleased():
    entry = QueuedBatch(a_request("a"), 3, 100, TenantQueue(""))
    assert (entry.units, entry.bytes, entry.backoff, entry.search, entry.released) == (3, 100, None, None, False)
