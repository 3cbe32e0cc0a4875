import asyncio
import errno
import gc
import sys
import threading
import weakref

import pytest

from otelwp_agent.journal.writer import SWITCH_INTERVAL, Writer


@pytest.fixture
def writer():
    writer = Writer()
    yield writer
    writer.close()


async def do(writer, work):
    """Have it done and return the error, or `None`."""
    future = asyncio.get_running_loop().create_future()
    writer.submit(work, future.set_result)
    return await asyncio.wait_for(future, 60)


async def test_work_is_done_by_one_thread_in_its_order_and_the_loop_hears_of_it(writer):
    did, heard, done = [], [], asyncio.Event()

    def work(number):
        did.append((number, threading.current_thread().name))

    def hear(number):
        heard.append((number, threading.current_thread() is threading.main_thread()))
        if number == 49:
            done.set()

    for number in range(50):
        writer.submit(lambda number=number: work(number), lambda _error, number=number: hear(number))
    await asyncio.wait_for(done.wait(), 60)
    assert did == [(number, "journal") for number in range(50)]
    assert heard == [(number, True) for number in range(50)]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("a bug"), SystemExit()])
async def test_what_fails_is_told_and_the_next_is_done(writer, error):
    def fail():
        raise error

    assert await do(writer, fail) is error
    assert await do(writer, lambda: None) is None


async def test_the_loop_goes_on_while_the_disk_does_not(writer):
    disk = threading.Event()
    waiting = asyncio.create_task(do(writer, disk.wait))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    disk.set()
    assert await waiting is None


async def test_a_close_waits_for_what_was_submitted_and_ends_the_thread(writer):
    did = []
    for number in range(3):
        writer.submit(lambda number=number: did.append(number), lambda _: None)
    thread = writer._thread
    writer.close()
    assert did == [0, 1, 2]
    assert not thread.is_alive()
    writer.close()  # again: nothing to do


async def test_what_was_written_is_not_kept_in_memory_until_the_next_write(writer):
    class Body:
        pass

    body = Body()
    gone = weakref.ref(body)
    await do(writer, lambda body=body: None)
    del body
    for _ in range(100):
        gc.collect()
        if gone() is None:
            break
        await asyncio.sleep(0.001)
    assert gone() is None


async def test_the_thread_has_a_name_and_does_not_keep_the_process(writer):
    other = Writer("records")
    threads = []
    for each in (writer, other):
        await do(each, lambda: threads.append(threading.current_thread()))
    assert [(thread.name, thread.daemon) for thread in threads] == [("journal", True), ("records", True)]
    other.close()


async def test_after_a_close_it_can_be_used_again(writer):
    assert await do(writer, lambda: None) is None
    writer.close()
    assert await do(writer, lambda: None) is None


def test_a_loop_that_has_ended_hears_nothing_and_the_thread_goes_on(writer):
    disk, did = threading.Event(), []

    async def submit():
        writer.submit(disk.wait, did.append)
        writer.submit(lambda: did.append("second"), did.append)

    asyncio.run(submit())
    disk.set()
    writer.close()
    assert did == ["second"]


async def test_python_switches_to_the_loop_soon(writer):
    before = sys.getswitchinterval()
    try:
        await do(writer, lambda: None)
        assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL)
    finally:
        sys.setswitchinterval(before)
