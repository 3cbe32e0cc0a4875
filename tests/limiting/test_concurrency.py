import pytest

from otelwp_agent.limiting.concurrency import RequestsInProgress


def test_so_many_requests_of_a_key_are_in_progress():
    requests = RequestsInProgress()
    assert [requests.begin("a", 2) for _ in range(3)] == [True, True, False]
    assert requests.begin("b", 1)
    requests.end("a")
    assert requests.count("a") == 1
    assert requests.begin("a", 2)


def test_keys_without_requests_take_no_memory():
    requests = RequestsInProgress()
    for number in range(1000):
        assert requests.begin(number, 1)
        requests.end(number)
    assert len(requests) == 0
    assert requests.count(1) == 0


def test_an_end_without_a_begin_is_a_bug():
    with pytest.raises(KeyError):
        RequestsInProgress().end("a")
