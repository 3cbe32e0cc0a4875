from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.telemetry.space_saving import SpaceSaving


def test_a_heavy_key_is_found_among_many():
    sketch = SpaceSaving(10)
    for index in range(1000):
        sketch.add((f"light {index}",))
        if index % 4 == 0:
            sketch.add(("heavy",))
    ((key, count),) = sketch.heaviest(1)
    assert key == ("heavy",)
    assert count > 100
    assert len(sketch) == 10


@given(st.lists(st.integers(0, 30), max_size=400), st.integers(1, 12))
def test_counts_are_never_higher_than_the_truth_and_no_frequent_key_is_missed(numbers, capacity):
    sketch = SpaceSaving(capacity)
    for number in numbers:
        sketch.add((str(number),))
    truth = Counter((str(number),) for number in numbers)
    found = dict(sketch.heaviest(capacity))
    assert len(found) <= capacity
    assert all(count <= truth[key] for key, count in found.items())
    assert all(key in found for key, count in truth.items() if count > len(numbers) / capacity)


def test_cleared():
    sketch = SpaceSaving(2)
    sketch.add(("a",))
    sketch.clear()
    assert sketch.heaviest(5) == []
    assert len(sketch) == 0
