from enum import Enum
from typing import Annotated, Literal

import docs_fields
import pytest
from pydantic import BaseModel, Field

from otelwp_agent.component import KeptPercentage, NeedsTier, Tier
from otelwp_agent.config.describe import block_of
from otelwp_agent.config.types import ByteSize, Duration, Endpoint, Ignored, PositiveDuration, Refused, Secret


class Mode(Enum):
    FAST = "fast"
    SAFE = "safe"


class Inner(BaseModel):
    """A block."""


class Config(BaseModel):
    flag: bool = False
    count: int = Field(3, ge=1, le=9)
    ratio: float = Field(0.5, gt=0)
    wait: Duration = 0.2
    longer: PositiveDuration = 90.0
    maybe: Duration | None = None
    later: Duration | None = 5.0
    size: ByteSize = 20 * 2**20
    odd_size: ByteSize = 1001
    key: Secret
    keys: dict[str, Secret] = Field(default_factory=dict)
    place: Endpoint = Endpoint("127.0.0.1:1")
    names: list[str] = Field(default_factory=lambda: ["a", "b"])
    waits: list[Duration] = Field(default_factory=list)
    choice: Literal["", "gzip", "zstd"] = ""
    mode: Mode = Mode.SAFE
    either: str | int = "x"
    inner: Inner = Inner()
    inners: dict[str, list[Inner]] = Field(default_factory=dict)
    nested: Annotated[list[Annotated[Inner, Field()]], Field()] = Field(default_factory=list)


@pytest.mark.parametrize(
    ("name", "words", "default"),
    [
        ("flag", "true or false", "`false`"),
        ("count", "integer, at least 1 and at most 9", "`3`"),
        ("ratio", "number, above 0", "`0.5`"),
        ("wait", "duration", "`200ms`"),
        ("longer", "duration, above 0", "`1m30s`"),
        ("maybe", "duration", ""),
        ("later", "duration", "`5s`"),
        ("size", "size", "`20MiB`"),
        ("odd_size", "size", "`1001`"),
        ("key", "string (secret)", "required"),
        ("keys", "map of string to string (secret)", "`{}`"),
        ("place", "endpoint", "`127.0.0.1:1`"),
        ("names", "list of strings", "`[a, b]`"),
        ("waits", "list of durations", "`[]`"),
        ("choice", '`""`, `gzip` or `zstd`', '`""`'),
        ("mode", "`fast` or `safe`", "`safe`"),
        ("either", "string or integer", "`x`"),
        ("inner", "block", ""),
        ("inners", "map of string to list of blocks", "`{}`"),
    ],
)
def test_fields_are_put_in_words(name, words, default):
    field = Config.model_fields[name]
    assert docs_fields.type_words(field.annotation, field.metadata) + docs_fields.limits(field) == words
    assert docs_fields.default_words(field) == default


class Paid(BaseModel):
    kept: Annotated[float, KeptPercentage()] = Field(0.0, ge=0)
    inner: Annotated[Inner | None, NeedsTier(Tier.ENTERPRISE)] = None
    plain: int = 0


def test_what_a_tier_allows_of_a_setting_is_put_in_words():
    words = {name: docs_fields.tier_words(field) for name, field in Paid.model_fields.items()}
    assert words == {"kept": ", at most 10 on tier free", "inner": ", needs tier enterprise", "plain": ""}


class Foreign(BaseModel):
    buffers: Annotated[int, Ignored("nothing to size")] = 0
    auth: Annotated[None, Refused("there is none")] = None
    encodings: Annotated[list[str], Ignored("not read here", values=("lz4",))] = Field(default_factory=list)


def test_keys_that_mean_nothing_here_say_so():
    words = {name: docs_fields.foreign_words(field) for name, field in Foreign.model_fields.items()}
    assert words == {"buffers": "ignored: nothing to size", "auth": "refused: there is none", "encodings": ""}


@pytest.mark.parametrize(
    ("name", "step"), [("inner", ""), ("inners", ".<name>[]"), ("nested", "[]"), ("flag", None), ("names", None)]
)
def test_blocks_are_found_inside_types(name, step):
    found = block_of(Config.model_fields[name].annotation)
    assert found == (None if step is None else (Inner, step))


def test_a_type_without_words_is_refused():
    with pytest.raises(TypeError, match="no words for"):
        docs_fields.type_words(complex)
