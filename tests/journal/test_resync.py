from dataclasses import dataclass

from otelwp_agent.journal.resync import walk


@dataclass
class Word:
    """`*` and a letter: a record; `*` and anything else is none."""

    end: int


def read(data, start=0):
    def read_one(offset):
        return (
            Word(offset + 2) if data[offset : offset + 1] == b"*" and data[offset + 1 : offset + 2].isalpha() else None
        )

    return [(record is not None, begin, end) for record, begin, end in walk(data, b"*", start, read_one)]


def test_records_and_what_is_damaged_between_them():
    assert read(b"*a*b") == [(True, 0, 2), (True, 2, 4)]
    assert read(b"*a?!*b") == [(True, 0, 2), (False, 2, 4), (True, 4, 6)]
    assert read(b"*a*1*2*b*") == [(True, 0, 2), (False, 2, 6), (True, 6, 8), (False, 8, 9)]
    assert read(b"?*a") == [(False, 0, 1), (True, 1, 3)]
    assert read(b"?**a") == [(False, 0, 2), (True, 2, 4)]
    assert read(b"???") == [(False, 0, 3)]
    assert read(b"") == []


def test_reading_begins_where_it_is_told_to():
    assert read(b"*a*b*c", 2) == [(True, 2, 4), (True, 4, 6)]
    assert read(b"*a*b", 1) == [(False, 1, 2), (True, 2, 4)]
    assert read(b"*a*b", 4) == []


def test_a_record_may_be_moved_by_who_gets_it():
    records = []
    for record, _, _ in walk(b"*a*b", b"*", 0, lambda offset: Word(offset + 2)):
        record.end += 1000
        records.append(record)
    assert [record.end for record in records] == [1002, 1004]
