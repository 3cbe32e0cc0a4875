"""Feed any bytes to the readers of traces: the extension module must give the same result as Python, or give up.

The same applies to counting the items of a message, to editing attributes, to converting JSON, and to finding the
positions where a message or JSON can be cut.

Bytes are used as a request, as a part of one (a resource, a scope, a span), and as the seed of an unusual request,
because randomly changed requests are mostly invalid.

If the environment variable `OTELWP_FUZZ_NATIVE` names a library, only that one is tested. `make fuzz` builds one with
sanitizers (tools/native.py), which end the process when they find an error.

`python benchmarks/fuzz/fuzz_traces.py --seconds 10 --seed 1`
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import os
import random
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from fuzzing import main  # noqa: E402 - beside this file

from otelwp_agent.model import native as loaded  # noqa: E402
from otelwp_agent.model import projection_pb2 as pb  # noqa: E402
from otelwp_agent.model.json_slices import find_runs  # noqa: E402
from otelwp_agent.model.projections import parse  # noqa: E402
from otelwp_agent.model.signal import Signal  # noqa: E402
from otelwp_agent.sampling import traces as package  # noqa: E402
from otelwp_agent.sampling.traces.framing import enclose, frame  # noqa: E402
from tests.kit import checking, counting  # noqa: E402
from tests.kit.attribute_edits import all_agree  # noqa: E402
from tests.kit.otlp import Maker, delimited  # noqa: E402
from tests.kit.otlp_json import same_as_python  # noqa: E402
from tests.kit.stages import batch_of, build  # noqa: E402
from tests.kit.traces import ALL_MARKS, OddTraces, agree, odd_request, request, span  # noqa: E402

CAPTURES = ROOT / "tests/data/captures"
LIBRARY = "OTELWP_FUZZ_NATIVE"
MADE, ODD = 200, 1000
"""Number of requests in the corpus in addition to the captures: generated as valid protobuf, and unusual ones."""
MAX_CAPTURE = 16 * 1024
LAST = Path("fuzz-traces.bin")
"""File in which `fuzzing` keeps a failing input. With sanitizers, each input is written there before it is processed.
"""
_FOUND_SIZE = 1024
"""Size in bytes of a buffer for a `Found` of scan.h, which is smaller."""
_CUTS_SIZE = 64
"""Size in bytes of a buffer for a `Cuts` of cut.h, which is smaller and begins with a pointer to free."""
_TYPE_SIZE, _RUN_SIZE = 96, 16
"""Size in bytes of a message type in a schema of count.h, and of a `Run` of json.h."""
_SPAN = parse(pb.Resources.FromString, request([span()])).resources[0].scopes[0].items[0]


def load() -> Any:
    """Return the extension module; `None` if it is not available."""
    path = os.environ.get(LIBRARY)
    if not path:
        return package._native  # noqa: SLF001 - the module under test
    name = "otelwp_agent.model.native._native"
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


native = loaded.extension = load()
_c = ctypes.CDLL(None)
_c.malloc.restype = ctypes.c_void_p
_scanner = ctypes.CDLL(native.__file__) if os.environ.get(LIBRARY) else None


SIGNALS = list(Signal)
EDITS = [
    build("attributes", {"actions": actions, **filters})[0]
    for actions, filters in (
        ([{"key": "a", "action": "hash"}, {"key": "service.name", "value": "x" * 200, "action": "upsert"}], {}),
        ([{"pattern": "[ae]", "action": "delete"}, {"key": "n", "from_attribute": "long", "action": "insert"}], {}),
        (
            [{"key": "n", "action": "extract", "pattern": "(?P<a>.)"}, {"key": "a", "action": "delete"}],
            {
                "include": {"match_type": "regexp", "span_names": ["."], "libraries": [{"name": ".?"}]},
                "exclude": {"match_type": "regexp", "attributes": [{"key": "a", "value": "."}]},
            },
        ),
    )
]


def traces(data: bytes) -> None:
    """Read `data` with both implementations, as a request and as each of its parts."""
    marks, name = ALL_MARKS[len(data) % len(ALL_MARKS)], len(data) % 3 > 0
    if _scanner is not None:
        LAST.write_bytes(data)
    for body in (
        data,
        delimited(1, data),
        delimited(1, delimited(2, data)),
        enclose([((b"", b""), frame([data, _SPAN, data]))]),
        OddTraces(random.Random(data), 1 + len(data) % 5).request(),
    ):
        if _scanner is not None:
            scan(_scanner, body)
        agree(native, body, marks, name=name)
        counting.agree(body, native)
        checking.same_cuts(body, native)
        all_agree(EDITS[len(data) % len(EDITS)], batch_of(body, 1, SIGNALS[len(data) // 3 % len(SIGNALS)]))
    same_as_python(SIGNALS[len(data) % len(SIGNALS)], data)
    for target in (1, 100):
        assert native.find_runs(data, target) == find_runs(data, target)


def scan(library: Any, body: bytes) -> None:
    """Scan a request in a separate allocation, so that a sanitizer detects every read beyond its end.

    The content of a Python `bytes` is followed by one more byte, so it is copied first.
    """
    found = ctypes.create_string_buffer(_FOUND_SIZE)
    alone = ctypes.c_void_p(_c.malloc(ctypes.c_size_t(len(body))))
    ctypes.memmove(alone, body, len(body))
    library.find_traces(alone, ctypes.c_size_t(len(body)), 1, found)
    library.forget(found)
    for schema in counting.SCHEMAS:
        types = ctypes.c_size_t(len(schema) // _TYPE_SIZE)
        library.count_items(alone, ctypes.c_size_t(len(body)), schema, types, ctypes.c_uint64(2**40))
        for target in checking.TARGETS:
            cuts = ctypes.create_string_buffer(_CUTS_SIZE)
            library.cut_message(alone, ctypes.c_size_t(len(body)), schema, types, ctypes.c_size_t(target), cuts)
            _c.free(ctypes.c_void_p.from_buffer(cuts))
    runs, values = ctypes.create_string_buffer(_RUN_SIZE * (len(body) + 1)), ctypes.c_uint64()
    size, most = ctypes.c_size_t(len(body)), ctypes.c_size_t(len(body) + 1)
    library.find_runs(alone, size, ctypes.c_size_t(1), runs, most, ctypes.byref(values))
    _c.free(alone)


def corpus() -> list[bytes]:
    """Return captures, generated requests and unusual ones, as a whole and in parts."""
    bodies = [path.read_bytes() for path in sorted(CAPTURES.glob("*.pb"))]
    bodies = [body for body in bodies if len(body) <= MAX_CAPTURE]
    bodies += [
        Maker(random.Random(seed), breadth=1 + seed % 3, repeats=True).request(Signal.TRACES) for seed in range(MADE)
    ]
    for resource in [resource for body in bodies for resource in pb.Opaque.FromString(body).resources]:
        bodies += [resource.SerializeToString(), *[scope.SerializeToString() for scope in resource.scopes]]
        bodies += [item for scope in resource.scopes for item in scope.items]
    bodies += [odd_request(seed, 1 + seed % 4) for seed in range(ODD)]
    bodies += [path.read_bytes() for path in sorted(CAPTURES.glob("*.json")) if path.stat().st_size <= MAX_CAPTURE]
    return [body for body in bodies if body]


if __name__ == "__main__":
    if native is None:
        print("traces: skipped, the extension module is not available")
        sys.exit(0)
    status = main(traces, corpus(), __doc__)
    if not status and LAST.name not in sys.argv:
        LAST.unlink(missing_ok=True)
    sys.exit(status)
