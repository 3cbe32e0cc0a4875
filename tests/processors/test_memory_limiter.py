from __future__ import annotations

import asyncio
import gc
import os
import weakref
from itertools import pairwise

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from otelwp_agent.errors import Overloaded, PermanentError, StartError
from otelwp_agent.model.signal import Signal
from otelwp_agent.processors import memory_limiter
from otelwp_agent.processors.memory_limiter import Collector, Config, ResidentMemory, total_memory
from otelwp_agent.testing import run
from tests.kit.stages import batch_of, build

MIB = 2**20


class Memory:
    """Memory in use as the test says; `garbage` of it goes when it is collected."""

    def __init__(self):
        self.used = 50 * MIB
        self.garbage = 0
        self.reads = 0

    def read(self):
        self.reads += 1
        return self.used + self.garbage

    def close(self):
        pass


@pytest.fixture
def memory(monkeypatch):
    memory = Memory()

    def collect():
        memory.garbage = 0

    monkeypatch.setattr(memory_limiter, "ResidentMemory", lambda: memory)
    monkeypatch.setattr(memory_limiter.gc, "collect", collect)
    return memory


def limiter(**settings):
    clock = asyncio.get_running_loop().time
    return build("memory_limiter", {"limit_mib": 100, **settings}, clock=clock)


def value(stage, name):
    return stage.context.registry.value(name, processor="memory_limiter")


def test_an_admitted_batch_passes_above_the_limit(memory):
    async def scenario():
        stage, catcher = limiter(spike_limit_mib=20)
        await stage.start()
        assert stage.refusal(batch_of(b"x", 1)) is None
        catcher.error = Overloaded("full")
        assert stage.refusal(batch_of(b"x", 1)) is catcher.error
        catcher.error = None
        memory.used = 81 * MIB
        await asyncio.sleep(1.01)
        refusal = stage.refusal(batch_of(b"x", 1))
        assert (refusal.reason, refusal.capacity) == ("memory", None)
        admitted = batch_of(b"x", 1)
        admitted.admitted = True
        stage.consume(admitted)
        assert catcher.items == 1
        await stage.shutdown()

    run(scenario())


def test_it_refuses_above_the_soft_limit_and_accepts_again_below(memory):
    async def scenario():
        stage, catcher = limiter(spike_limit_mib=20)
        await stage.start()
        for signal in Signal:
            stage.consume(batch_of(b"x", 2, signal))
        stage.admit()
        assert stage.health().healthy
        memory.used = 81 * MIB
        with capture_logs() as logs:
            await asyncio.sleep(1.01)
            for signal in Signal:
                batch = batch_of(b"x", 3, signal)
                with pytest.raises(Overloaded) as caught:
                    stage.consume(batch)
                assert (caught.value.reason, caught.value.retry_after) == ("memory", 1)
                assert batch.shares[0][0].pending == 3
            with pytest.raises(Overloaded):
                stage.admit()
            assert not stage.health().healthy
            await asyncio.sleep(5)
            memory.used = 80 * MIB
            await asyncio.sleep(1.01)
        stage.admit()
        stage.consume(batch_of(b"x", 1))
        assert catcher.items == 7
        assert [log["log_level"] for log in logs if "soft limit" in log["event"]] == ["warning", "info"]
        for signal in Signal:
            assert value(stage, f"otelcol_processor_memory_limiter_refused_{signal.items}") == 3
        assert value(stage, "otelcol_processor_memory_limiter_accepted_spans") == 3
        assert value(stage, "otelwp_processor_memory_limiter_refused_requests") == 1
        assert value(stage, "otelwp_processor_memory_limiter_soft_limit_bytes") == 80 * MIB
        await stage.shutdown()

    run(scenario())


def test_the_spike_limit_is_a_fifth_unless_given(memory):
    async def scenario():
        stage, _ = limiter()
        memory.used = 80 * MIB + 1
        await stage.start()
        with pytest.raises(Overloaded):
            stage.admit()
        await stage.shutdown()

    run(scenario())


def test_traffic_faster_than_the_clock_is_measured_by_its_bytes(memory):
    async def scenario():
        stage, catcher = limiter(check_interval="1h")
        await stage.start()
        for _ in range(200):
            try:
                stage.consume(batch_of(bytes(MIB), 1))
            except Overloaded:
                break
            memory.used += MIB
        # 30 MiB of room, all of it used; then every request is looked at before it is taken.
        assert 30 <= len(catcher.batches) <= 32
        await stage.shutdown()

    run(scenario())


def test_memory_is_not_measured_for_every_request(memory):
    async def scenario():
        stage, _ = limiter()
        await stage.start()
        before = memory.reads
        for _ in range(1000):
            stage.consume(batch_of(b"x" * 100, 1))
        assert memory.reads == before
        await stage.shutdown()

    run(scenario())


def test_garbage_is_collected_before_requests_are_refused(memory):
    async def scenario():
        stage, _ = limiter()
        memory.garbage = 60 * MIB
        await stage.start()
        stage.admit()
        assert memory.garbage == 0
        await stage.shutdown()

    run(scenario())


def test_an_error_of_the_next_stage_is_raised_and_not_counted(memory):
    async def scenario():
        stage, catcher = limiter()
        await stage.start()
        catcher.error = PermanentError("no")
        with pytest.raises(PermanentError):
            stage.consume(batch_of(b"x", 3))
        assert value(stage, "otelcol_processor_memory_limiter_accepted_spans") == 0
        assert value(stage, "otelcol_processor_memory_limiter_refused_spans") == 0
        await stage.shutdown()

    run(scenario())


def test_a_limit_below_the_idle_memory_is_reported_at_start(memory):
    async def scenario():
        stage, _ = limiter(limit_mib=20)
        with capture_logs() as logs:
            await stage.start()
        assert any(log["event"] == "memory limit is below what the process uses when idle" for log in logs)
        await stage.shutdown()
        stage.admit()

    run(scenario())


def test_after_shutdown_nothing_is_open_and_batches_pass():
    async def scenario():
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the kernel's list
        stage, catcher = limiter()
        await stage.start()
        await stage.shutdown()
        await stage.shutdown()
        stage.consume(batch_of(b"x", 1))
        assert catcher.items == 1
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - the kernel's list

    run(scenario())


def test_percentages_are_of_all_memory(memory, monkeypatch):
    monkeypatch.setattr(memory_limiter, "total_memory", lambda: 1000 * MIB)

    async def scenario():
        stage, _ = build("memory_limiter", {"limit_percentage": 80, "spike_limit_percentage": 15})
        await stage.start()
        assert (stage._hard, stage._soft) == (800 * MIB, 650 * MIB)
        await stage.shutdown()
        stage, _ = build("memory_limiter", {"limit_percentage": 80, "limit_mib": 100})
        await stage.start()
        assert stage._hard == 100 * MIB
        await stage.shutdown()
        monkeypatch.setattr(memory_limiter, "total_memory", lambda: None)
        stage, _ = build("memory_limiter", {"limit_percentage": 80})
        with pytest.raises(StartError, match="set `limit_mib`"):
            await stage.start()

    run(scenario())


def test_collections_without_effect_become_rarer(memory):
    now = 0.0
    collector = Collector(Config(limit_mib=100), 1.0, lambda: now)
    attempts = []
    memory.used = 200 * MIB
    for second in range(200):
        now = float(second)
        if collector.is_time(above_hard=True):
            attempts.append(second)
            collector.collect(memory)
    gaps = [later - earlier for earlier, later in pairwise(attempts)]
    assert gaps[:6] == [2, 4, 8, 16, 30, 30]
    memory.garbage = 100 * MIB
    now = 1000.0
    collector.collect(memory)
    now = 1000.5
    assert collector.is_time(above_hard=True), "it was worth it: again whenever there is need"
    assert not collector.is_time(above_hard=False)


def test_the_real_memory_is_read():
    memory = ResidentMemory()
    try:
        before = memory.read()
        held = bytearray(os.urandom(1) * (32 * MIB))
        assert memory.read() >= before + 24 * MIB
        assert len(held) == 32 * MIB
    finally:
        memory.close()
    assert memory.read() > 10 * MIB, "without /proc the peak is reported"


def test_garbage_is_really_collected():
    class Node:
        pass

    node = Node()
    node.itself = node
    seen = weakref.ref(node)
    gc.disable()
    try:
        del node
        memory = ResidentMemory()
        Collector(Config(limit_mib=100), 1.0, lambda: 0.0).collect(memory)
        memory.close()
    finally:
        gc.enable()
    assert seen() is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal:       2048 kB\nMemFree: 1 kB\n"}, 2 * MIB),
        (
            {
                "proc/meminfo": "MemTotal: 2048 kB\n",
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/memory.max": "1048576\n",
                "sys/fs/cgroup/a/b/memory.max": "max\n",
            },
            MIB,
        ),
        (
            {"proc/meminfo": "MemTotal: 2048 kB\n", "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "4096"},
            4096,
        ),
        (
            {
                "proc/meminfo": "MemTotal: 2048 kB\n",
                "proc/self/cgroup": "5:cpu:/x\n4:memory:/x\n0::/\n",
                "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "8192\n",
            },
            8192,
        ),
        ({"proc/meminfo": "nonsense", "proc/self/cgroup": "0::/\n"}, None),
    ],
)
def test_total_memory_is_the_smallest_limit(files, expected, tmp_path):
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert total_memory(tmp_path) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give `limit_mib` or `limit_percentage`"),
        ({"limit_mib": 10, "spike_limit_mib": 10}, "`spike_limit_mib` must be below"),
        ({"limit_percentage": 50, "spike_limit_percentage": 60}, "`spike_limit_percentage` must be below"),
        ({"limit_percentage": 101}, "less than or equal to 100"),
        ({"limit_mib": -1}, "greater than or equal to 0"),
        ({"limit_mib": 1, "min_gc_interval_when_hard_limited": "11s"}, "min_gc_interval_when_soft_limited"),
        ({"limit_mib": 1, "max_gc_interval_when_soft_limited": "5s"}, "max_gc_interval_when_soft_limited"),
        ({"limit_mib": 1, "max_gc_interval_when_hard_limited": "31s"}, "max_gc_interval_when_soft_limited"),
        (
            {
                "limit_mib": 1,
                "min_gc_interval_when_hard_limited": "9s",
                "max_gc_interval_when_hard_limited": "8s",
            },
            "max_gc_interval_when_hard_limited",
        ),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValidationError, match=message):
        Config.model_validate(settings)


def test_the_collectors_examples_load():
    Config.model_validate({"check_interval": "1s", "limit_mib": 4000, "spike_limit_mib": 800})
    Config.model_validate({"check_interval": "1s", "limit_percentage": 80, "spike_limit_percentage": 15})
    Config.model_validate({"check_interval": 0, "limit_mib": 1, "max_gc_interval_when_soft_limited": 0})


def test_bodies_being_received_are_limited_by_the_same_limits(memory):
    async def scenario():
        stage, _ = limiter(limit_mib=1000, spike_limit_mib=200)
        budget = stage.context.in_flight
        before = budget.soft, budget.hard
        await stage.start()
        free = (800 - 50) * MIB
        assert (budget.soft, budget.hard) == (free // 4, free // 2)
        await stage.shutdown()
        assert (budget.soft, budget.hard) == before
        small, _ = limiter(limit_mib=60)
        await small.start()
        assert (small.context.in_flight.soft, small.context.in_flight.hard) == (12 * MIB, 32 * MIB)
        await small.shutdown()

    asyncio.run(scenario())


def test_bytes_in_flight_count_beside_the_memory_in_use(memory):
    async def scenario():
        stage, _ = limiter(spike_limit_mib=20)
        await stage.start()
        stage.admit()
        stage.context.in_flight.reserve(31 * MIB)
        await asyncio.sleep(1.01)
        with pytest.raises(Overloaded):
            stage.admit()
        stage.context.in_flight.release(31 * MIB)
        await asyncio.sleep(1.01)
        stage.admit()
        await stage.shutdown()

    run(scenario())
