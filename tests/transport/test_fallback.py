from otelwp_agent.transport.fallback import Fallback


def test_the_first_one_that_works_is_used():
    fallback = Fallback(3, retry_after=30.0)
    assert list(fallback.candidates(0.0)) == [0, 1, 2]
    fallback.failed(0, 0.0)
    assert fallback.answered(1)
    assert not fallback.answered(1)
    assert fallback.current == 1
    assert not fallback.works(0, 29.9)
    assert list(fallback.candidates(29.9)) == [1, 2]


def test_one_request_tries_the_first_again_and_its_answer_brings_all_back():
    fallback = Fallback(2, retry_after=30.0)
    fallback.failed(0, 0.0)
    probe = fallback.candidates(30.0)
    assert next(probe) == 0
    assert list(fallback.candidates(30.0)) == [1]
    assert fallback.answered(1)
    assert fallback.answered(0)
    assert list(fallback.candidates(30.0)) == [0, 1]


def test_a_failed_probe_goes_to_the_next_and_waits_again():
    fallback = Fallback(2, retry_after=30.0)
    fallback.failed(0, 0.0)
    probe = fallback.candidates(30.0)
    assert next(probe) == 0
    fallback.failed(0, 31.0)
    assert next(probe) == 1
    assert list(fallback.candidates(60.9)) == [1]
    assert next(fallback.candidates(61.0)) == 0


def test_if_none_works_one_is_tried_that_has_waited_longest():
    fallback = Fallback(2, retry_after=30.0)
    fallback.failed(0, 0.0)
    fallback.failed(1, 1.0)
    assert list(fallback.candidates(2.0)) == [0]
    fallback.failed(0, 2.0)
    assert list(fallback.candidates(3.0)) == [1]


def test_a_single_endpoint_is_always_tried():
    fallback = Fallback(1, retry_after=30.0)
    fallback.failed(0, 0.0)
    assert list(fallback.candidates(1.0)) == [0]
    assert list(fallback.candidates(40.0)) == [0]
