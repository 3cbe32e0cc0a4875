import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.dead_letters import records
from otelwp_agent.dead_letters.records import PREFIX_BYTES, Damage, Letter, marker_of, new_prefix, read
from otelwp_agent.model.signal import Signal

LETTER = Letter("01", 1.5, "otlp_http", Signal.LOGS, 3, 4, "malformed", "no: \x00 é", "otlp", "http", "shop", ("zstd",))

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
letters = st.builds(
    Letter,
    id=texts,
    time=st.floats(0, 1e11),
    exporter=texts,
    signal=st.sampled_from(Signal),
    items=st.integers(1, 2**40),
    size=st.just(0),
    reason=texts,
    error=texts,
    receiver=texts,
    transport=texts,
    tenant=texts,
    encodings=st.lists(texts, max_size=2).map(tuple),
)


def whole(*parts):
    prefix = new_prefix()
    marker = marker_of(prefix)
    return prefix + b"".join(part(marker) for part in parts), marker


def letter(body=b"body", of=LETTER):
    return lambda marker: records.encode(marker, of, body)


@given(st.lists(st.tuples(letters, st.binary(max_size=50)), max_size=4))
def test_what_is_written_is_read(written):
    data, marker = whole(*(letter(body, one) for one, body in written))
    read_back = [(record.letter, data[record.body : record.end]) for record in read(data, marker)]
    assert read_back == written


def test_removals_stand_between_letters():
    data, marker = whole(letter(), lambda marker: records.encode_removal(marker, ["01", "02"]), letter())
    assert [record.removed for record in read(data, marker)] == [(), ("01", "02"), ()]


def test_the_size_of_a_record_is_known_beforehand():
    data, _ = whole(letter())
    assert PREFIX_BYTES + records.record_bytes(LETTER) == len(data)


@given(st.data())
def test_one_flipped_byte_costs_one_letter_at_most(data):
    content, marker = whole(letter(b"first"), letter(b"second"), letter(b"third"))
    at = data.draw(st.integers(PREFIX_BYTES, len(content) - 1))
    broken = bytearray(content)
    broken[at] ^= data.draw(st.integers(1, 255))
    found = list(read(bytes(broken), marker))
    assert sum(not isinstance(one, Damage) for one in found) == 2
    assert [one.offset for one in found][1:] == [one.end for one in found][:-1]


@given(st.integers(0, 200))
def test_a_torn_end_costs_what_is_torn(cut):
    content, marker = whole(letter(b"first"), letter(b"second"))
    whole_ones = [
        one for one in read(content[: max(PREFIX_BYTES, len(content) - cut)], marker) if one.__class__ is not Damage
    ]
    assert len(whole_ones) == (2 if not cut else 1 if cut <= len(letter(b"second")(marker)) else 0)


def test_a_body_cannot_pretend_to_be_a_record():
    forged, _ = whole(letter(b"forged"))
    content, marker = whole(letter(forged), letter())
    broken = bytearray(content)
    broken[PREFIX_BYTES + 9] ^= 1
    assert [one.__class__.__name__ for one in read(bytes(broken), marker)] == ["Damage", "Record"]


@pytest.mark.parametrize("at", range(PREFIX_BYTES))
def test_one_flipped_byte_in_the_beginning_costs_nothing(at):
    prefix = bytearray(new_prefix())
    marker = marker_of(bytes(prefix))
    prefix[at] ^= 0x40
    assert marker_of(bytes(prefix)) == marker


@pytest.mark.parametrize("data", [b"", b"otelwpDL", b"{" * 100, b"PK" + bytes(60)])
def test_what_is_no_dead_letter_file(data):
    assert marker_of(data) is None
