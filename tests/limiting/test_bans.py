from otelwp_agent.limiting.bans import MAX_GROWTH, Bans


def fail(bans, address, now, times):
    return [bans.failed(address, now) for _ in range(times)]


def test_an_address_is_banned_after_so_many_failures():
    bans = Bans(3, window=60, duration=10)
    assert fail(bans, "a", 0.0, 2) == [0, 0]
    assert bans.banned("a", 0.0) == 0
    assert bans.failed("a", 1.0) == 10
    assert bans.banned("a", 1.0) == 10
    assert bans.banned("a", 10.5) == 0.5
    assert bans.banned("a", 11.0) == 0
    assert bans.banned("b", 1.0) == 0


def test_failures_count_within_the_window_only():
    bans = Bans(3, window=60, duration=10)
    assert fail(bans, "a", 0.0, 2) == [0, 0]
    assert fail(bans, "a", 60.0, 2) == [0, 0]
    assert bans.failed("a", 61.0) == 10


def test_each_further_ban_is_twice_as_long_up_to_a_limit():
    bans, now, seconds = Bans(2, window=60, duration=10), 0.0, []
    for _ in range(8):
        seconds.append(fail(bans, "a", now, 2)[1])
        now += seconds[-1]
    assert seconds == [10, 20, 40, 80, 160, 320, 320, 320]
    assert seconds[-1] == 10 * MAX_GROWTH


def test_after_a_long_time_without_failures_the_first_duration_applies_again():
    bans = Bans(1, window=60, duration=10)
    assert bans.failed("a", 0.0) == 10
    assert bans.failed("a", 20.0) == 20
    assert bans.failed("a", 40.0 + 10 * MAX_GROWTH + 1) == 10


def test_requests_admitted_before_the_ban_do_not_extend_it():
    bans = Bans(1, window=60, duration=10)
    assert bans.failed("a", 0.0) == 10
    assert fail(bans, "a", 5.0, 100) == [0] * 100
    assert bans.banned("a", 10.0) == 0


def test_a_million_addresses_take_bounded_memory():
    bans = Bans(2, window=60, duration=10, max_addresses=100)
    for number in range(10_000):
        bans.failed(str(number), 0.0)
    assert len(bans) == 100
    assert bans.failed("9999", 0.0) == 10


def test_addresses_without_failures_are_forgotten():
    bans = Bans(2, window=60, duration=1)
    bans.failed("a", 0.0)
    bans.failed("b", 50.0)
    bans.forget_idle(70.0)
    assert len(bans) == 1
    bans.forget_idle(1000.0)
    assert len(bans) == 0
