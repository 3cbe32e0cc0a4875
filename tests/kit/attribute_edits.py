"""Compare the ways to edit attributes: in C, and in Python with and without its shortcut."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from otelwp_agent.errors import MalformedError
from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.processors.attributes.matching import ITEMS
from tests.kit.otlp import meaning

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.signal import Signal
    from otelwp_agent.processors.attributes import AttributesProcessor


def all_agree(stage: AttributesProcessor, batch: Batch) -> bool:
    """Check that all ways give the same result; return whether the batch was edited in C."""
    signal, body = batch.signal, batch.body
    wanted, editor = stage._ways.get(signal) or stage._prepare(signal)
    fast = _edited(lambda: stage._edit(batch), signal, body)
    shortcut = _edited(lambda: stage._edit_in_python(batch, wanted), signal, body)
    stage._shortcut, before = None, stage._shortcut
    careful = _edited(lambda: stage._edit_in_python(batch, wanted), signal, body)
    stage._shortcut = before
    assert fast == shortcut
    if careful is not None:  # the shortcut does not read items without any of the keys
        assert fast == careful
    enter = (wanted.enter_resource, wanted.enter_scope) if wanted else (None, None)
    return editor is not None and editor.edit(body, batch.origin, *enter) is not None


def _edited(edit: Callable[[], bytes | None], signal: Signal, body: bytes) -> bytes | None:
    """Return what an edited body means, as far as a projection can read it; `None` if it was refused as malformed."""
    try:
        after = edit()
    except MalformedError:
        return None
    after = body if after is None else after
    with suppress(DecodeError):
        return meaning(signal, after)
    try:
        request = pb.Slices.FromString(after)
    except DecodeError:
        return after
    for scope in [scope for resource in request.resources for scope in resource.scopes]:
        for place, item in enumerate(scope.items):
            with suppress(DecodeError):
                scope.items[place] = ITEMS[signal].FromString(item).SerializeToString(deterministic=True)
    return request.SerializeToString(deterministic=True)
