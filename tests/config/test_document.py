from otelwp_agent.config.document import Document, Place, merge, show_path
from otelwp_agent.config.parse import parse
from otelwp_agent.errors import Severity


def tree(text, file="a.yaml"):
    return parse(text, file, [])


def test_maps_merge_and_all_else_replaces():
    below = tree("a: {b: 1, c: [1, 2], d: {e: 1}}\nf: 1", "below.yaml")
    above = tree("a: {c: [3], d: 5}\ng: 2", "above.yaml")
    merged = merge(below, above)
    assert merged.data() == {"a": {"b": 1, "c": [3], "d": 5}, "f": 1, "g": 2}
    assert merge(below, tree("a:")).data() == {"a": None, "f": 1}


def test_merging_leaves_its_sources_alone_and_keeps_places():
    below, above = tree("a: {b: 1}", "below.yaml"), tree("a: {c: 2}", "above.yaml")
    document = Document(merge(below, above))
    assert below.data() == {"a": {"b": 1}}
    assert document.place(("a", "b")) == Place("below.yaml", 1, 8)
    assert document.place(("a", "c"), key=True) == Place("above.yaml", 1, 5)
    assert document.data() == {"a": {"b": 1, "c": 2}}


def test_the_place_of_what_is_not_there_is_the_nearest_above():
    document = Document(tree("a:\n  b: [x]"))
    assert document.place(("a", "nothing", "below")) == Place("a.yaml", 1, 1)
    assert document.place(("a", "b", 0)) == Place("a.yaml", 2, 7)
    assert document.place(("a", "b", 5)) == Place("a.yaml", 2, 3)


def test_paths_are_shown_as_people_write_them():
    assert show_path(("service", "pipelines", "traces/2", "receivers", 0)) == "service.pipelines.traces/2.receivers[0]"
    assert show_path(("headers", "a.b", "", "c d")) == 'headers."a.b".""."c d"'


def test_problems_stand_at_the_value_or_its_key():
    node = tree("a:  5").value["a"]
    assert str(node.problem("wrong", ("a",))) == "a.yaml:1:5: a: wrong"
    assert str(node.problem("odd", ("a",), at_key=True, severity=Severity.WARNING)) == "warning: a.yaml:1:1: a: odd"


def test_get_and_walk():
    root = tree("a: [1, {b: 2}]")
    assert [node.value for node in root.walk() if not isinstance(node.value, dict | list)] == [1, 2]
    assert root.get("a").get(1).get("b").value == 2
    assert root.get(0) is None
    assert root.get("a").get("x") is None
    assert root.get("a").get(-1) is None
