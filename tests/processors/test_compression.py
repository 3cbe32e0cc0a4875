import os

import pytest
from pydantic import ValidationError

from otelwp_agent.processors.compression import Config
from otelwp_agent.transport.compression import decompress
from tests.kit.otlp import delimited
from tests.kit.stages import batch_of, build

BODY = delimited(1, delimited(2, delimited(2, b"\x2a\x08SELECT 1") * 500))


def value(stage, name):
    return stage.context.registry.value(f"otelwp_processor_compression_{name}", processor="compression")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"level": 19},
        {"level": 22, "long_window": True},
        {"long_window": True},
        {"encoding": "gzip"},
        {"encoding": "gzip", "level": 9},
    ],
)
async def test_bodies_are_compressed(settings):
    stage, catcher = build("compression", settings)
    given = batch_of(BODY, 500)
    stage.consume(given)
    await stage.shutdown()
    (after,) = catcher.batches
    encoding = settings.get("encoding", "zstd")
    assert (after.encodings, after.items, after.shares) == ((encoding,), 500, given.shares)
    assert decompress(encoding, after.body, len(BODY)) == BODY
    assert value(stage, "input_bytes") == len(BODY)
    assert value(stage, "output_bytes") == len(after.body) < len(BODY) / 10
    assert value(stage, "ratio") == pytest.approx(len(BODY) / len(after.body))
    assert value(stage, "cpu_seconds") > 0
    assert value(stage, "skipped_batches") == 0


@pytest.mark.parametrize("encoding", ["zstd", "gzip"])
async def test_what_would_grow_or_is_small_stays_as_it_is(encoding):
    stage, catcher = build("compression", {"encoding": encoding})
    given = [batch_of(os.urandom(5000), 1), batch_of(b"x" * 255, 1), batch_of(b"", 0)]
    for batch in given:
        stage.consume(batch)
    await stage.shutdown()
    assert catcher.batches == given
    assert value(stage, "skipped_batches") == 3
    assert value(stage, "input_bytes") == value(stage, "output_bytes") == 5255
    assert value(stage, "ratio") == 1


async def test_large_bodies_are_compressed_off_the_loop():
    stage, catcher = build("compression", {"level": 12})
    body = BODY * 400
    stage.consume(batch_of(body, 1))
    assert catcher.batches == []
    await stage.shutdown()
    assert decompress("zstd", catcher.batches[0].body, len(body), ratio=0) == body


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"level": 0}, "greater than or equal to 1"),
        ({"level": 23}, "the highest `level` of zstd is 22"),
        ({"encoding": "gzip", "level": 10}, "the highest `level` of gzip is 9"),
        ({"encoding": "gzip", "long_window": True}, "`long_window` is for zstd only"),
        ({"encoding": "snappy"}, "zstd"),
        ({"dictionary": True}, "dictionary"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, problem):
    with pytest.raises(ValidationError, match=problem):
        Config.model_validate(settings)
