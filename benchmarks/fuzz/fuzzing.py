"""Common code of the fuzz targets: command line, loop, mutations, and a file with a failing input.

A target is a function of bytes that raises an exception when it finds a problem. If atheris is installed, its coverage
guides the choice of inputs. Otherwise inputs are selected from a corpus and changed at random, in the same way for the
same seed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import random
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Target = Callable[[bytes], None]

MAX_CHANGES = 6
SLOW_SECONDS = 2.0
"""CPU seconds after which an input of some kilobytes counts as a failure."""

WORDS = (
    b"", b"\x00", b"\xff", b"\x7f", b"\x80" * 10, b"\xff" * 10 + b"\x01", b"\x0a\xff\xff\xff\xff\x0f", b"\x0b", b"\x0c",
    b"null", b"true", b"-1", b"0", b"1e400", b"1.5", b"18446744073709551616", b"[]", b"{}", b'""', b'"NaN"', b"[" * 200,
    b'{"arrayValue":{"values":[' * 60, b'"\\ud800"', b'"\\u0000"', b"\xc3\x28", b",", b":", b'"', b"\\",
)  # fmt: skip
"""Bytes that are inserted into inputs: limits of varints and lengths, words of JSON, invalid UTF-8."""


def mutated(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Return `data` after a few changes; some insert pieces of `other`."""
    out = bytearray(data)
    for _ in range(chance.randint(1, MAX_CHANGES)):
        start = chance.randrange(len(out) + 1)
        end = min(len(out), start + chance.choice((0, 1, 1, 2, 4, 16, 200)))
        source = chance.randrange(len(other) + 1)
        out[start:end] = chance.choice((
            chance.choice(WORDS),
            chance.randbytes(chance.randint(0, 8)),
            out[start:end] * 2,
            other[source : source + chance.randint(1, 64)],
            bytes(byte ^ 1 << chance.randrange(8) for byte in out[start:end]),
        ))  # fmt: skip
    return bytes(out)


def run(target: Target, corpus: Sequence[bytes], *, seconds: float, seed: int) -> int:
    """Test inputs for `seconds`; return their number."""
    chance = random.Random(seed)
    end = time.monotonic() + seconds
    tried = 0
    while time.monotonic() < end:
        data = mutated(chance.choice(corpus), chance.choice(corpus), chance)
        try:
            _try(target, data)
        except Exception:
            found = Path(f"fuzz-{target.__name__}.bin")
            found.write_bytes(data)
            print(f"{target.__name__}: a problem was found; the input is in {found}", file=sys.stderr)
            raise
        tried += 1
    return tried


def _try(target: Target, data: bytes) -> None:
    began = time.process_time()  # not wall time: other processes may use the processor
    target(data)
    took = time.process_time() - began
    if took > SLOW_SECONDS:
        message = f"{len(data)} bytes took {took:.1f} s"
        raise TimeoutError(message)


def main(target: Target, corpus: Sequence[bytes], description: str | None) -> int:
    """Run a target from the command line; return the exit status."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=10, help="duration in seconds (10)")
    options.add_argument("--seed", type=int, default=0, help="the same seed gives the same inputs (0)")
    options.add_argument("input", nargs="*", type=Path, help="files to test instead, such as a failing input")
    chosen = options.parse_args()
    if chosen.input:
        for path in chosen.input:
            target(path.read_bytes())
        return 0
    if importlib.util.find_spec("atheris") is not None:
        atheris = importlib.import_module("atheris")
        atheris.instrument_all()
        atheris.Setup([sys.argv[0], f"-max_total_time={int(chosen.seconds)}", f"-seed={chosen.seed + 1}"], target)
        atheris.Fuzz()
        return 0
    try:
        tried = run(target, corpus, seconds=chosen.seconds, seed=chosen.seed)
    except Exception:  # noqa: BLE001 - any exception is a finding
        traceback.print_exc()
        return 1
    print(f"{target.__name__}: {tried} inputs, no problem found (seed {chosen.seed})")
    return 0
