import importlib.util
import tomllib
from dataclasses import replace

import mutants
import pytest
from mutants import Change, Mutant, MutantsError

MODULE = "otelwp_agent/calc/add.py"
CHANGE = Change(MODULE, "Sum.add", "return a + b", "return a - b")
OTHER = Change(MODULE, "Sum.add", "a += 0", "a += 1")
DIFF = f"""# otelwp_agent.calc.add.xǁSumǁadd__mutmut_1: survived
--- {MODULE}
+++ {MODULE}
@@ -1,3 +1,3 @@
 def add(self, a, b):
-    return a + b
+    return a - b
"""

LIST = """
[tests]
"otelwp_agent/calc/add.py" = []
"otelwp_agent/calc/more/__init__.py" = ["tests/more"]
"otelwp_agent/other.py" = []
"""
ENTRY = """
[[equivalent]]
module = "otelwp_agent/calc/add.py"
function = "Sum.add"
before = "return a + b"
after = "return a - b"
reason = "b is always 0"
"""


@pytest.fixture
def listed(tmp_path):
    def read(text):
        path = tmp_path / "mutants.toml"
        path.write_text(text)
        return mutants.read_list(path)

    return read


def test_an_entry_is_found_by_the_text_of_the_change(listed):
    read = listed(LIST + ENTRY)
    assert read.equivalent == {CHANGE: "b is always 0"}
    assert list(read.tests) == [
        "otelwp_agent/calc/add.py",
        "otelwp_agent/calc/more/__init__.py",
        "otelwp_agent/other.py",
    ]


def test_an_entry_may_accept_several_changes_of_the_same_lines(listed):
    several = ENTRY.replace('"return a - b"', '["return a - b", "return a + c"]')
    assert list(listed(LIST + several).equivalent) == [CHANGE, replace(CHANGE, after="return a + c")]


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ('reason = "b is always 0"', "", "the entry for otelwp_agent/calc/add.py, Sum.add, has no reason"),
        ('"b is always 0"', '" "', "has no reason"),
        ('"return a - b"', "[]", "an entry needs module, function, before, after and reason"),
        ('after = "return a - b"', "", "an entry needs module, function, before, after and reason"),
        ("after =", "number =", "an entry needs module, function, before, after and reason"),
        ("calc/add.py", "calc/gone.py", "otelwp_agent/calc/gone.py has an equivalent mutant, but is not listed"),
    ],
)
def test_a_wrong_entry_is_refused_with_the_reason(listed, old, new, error):
    with pytest.raises(MutantsError, match=error):
        listed(LIST + ENTRY.replace(old, new))


def test_the_list_of_the_project_names_files_that_exist():
    read = mutants.read_list(mutants.LIST)
    for module, tests in read.tests.items():
        assert (mutants.ROOT / module).exists()
        assert [path for path in tests if not (mutants.ROOT / path).exists()] == []


def test_the_lines_of_each_accepted_mutant_are_still_in_the_code():
    for change in mutants.read_list(mutants.LIST).equivalent:
        code = {line.strip() for line in (mutants.ROOT / change.module).read_text("utf-8").splitlines()}
        assert set(change.before.splitlines()) <= code, f"{change.module}, {change.function}: its entry is out of date"


@pytest.mark.parametrize(
    ("names", "modules"),
    [
        ([], ["otelwp_agent/calc/add.py", "otelwp_agent/calc/more/__init__.py", "otelwp_agent/other.py"]),
        (["calc"], ["otelwp_agent/calc/add.py", "otelwp_agent/calc/more/__init__.py"]),
        (["calc/more/"], ["otelwp_agent/calc/more/__init__.py"]),
        (["other.py", "otelwp_agent/other.py"], ["otelwp_agent/other.py"]),
    ],
)
def test_modules_are_chosen_by_file_or_folder(listed, names, modules):
    assert mutants.chosen(names, listed(LIST).tests) == modules


def test_a_module_that_is_not_listed_is_named(listed):
    with pytest.raises(MutantsError, match=r"otelwp_agent/add\.py is not listed in tools/mutants\.toml; listed are: "):
        mutants.chosen(["calc", "add.py"], listed(LIST).tests)


def test_the_configuration_is_toml_that_names_the_module_and_its_tests():
    settings = tomllib.loads(mutants.configuration(MODULE, ["tests/a.py"], ["docs"]))["tool"]["mutmut"]
    assert settings["only_mutate"] == [MODULE]
    assert settings["pytest_add_cli_args_test_selection"] == ["tests/a.py"]
    assert settings["also_copy"] == ["docs"]


@pytest.mark.parametrize(
    ("name", "module", "function"),
    [
        ("otelwp_agent.calc.add.xǁSumǁadd__mutmut_12", MODULE, "Sum.add"),
        ("otelwp_agent.calc.add.xǁSum.Innerǁ__init____mutmut_1", MODULE, "Sum.Inner.__init__"),
        ("otelwp_agent.calc.add.x__private__mutmut_1", MODULE, "_private"),
        ("otelwp_agent.calc.more.x_go__mutmut_3", "otelwp_agent/calc/more/__init__.py", "go"),
    ],
)
def test_the_function_of_a_mutant(name, module, function):
    assert mutants.function_name(name, module) == function


def test_the_changed_lines_of_a_diff():
    assert mutants.changed_lines(DIFF) == ("return a + b", "return a - b")
    assert mutants.changed_lines(DIFF.replace("+    return a - b\n", "")) == ("return a + b", "")


def test_the_score_leaves_out_accepted_survivors_and_rounds_down():
    killed = [Mutant(Change(MODULE, "", "", ""), "killed")] * 8
    tested = [*killed, Mutant(OTHER, "timeout"), Mutant(CHANGE, "survived"), Mutant(OTHER, "no tests")]
    assert mutants.row(tested, {CHANGE}) == (11, 8, 1, 1, 1, 1, 90)
    assert mutants.row(tested, {}) == (11, 8, 1, 1, 1, 0, 81)
    assert mutants.row([Mutant(CHANGE, "survived")], {CHANGE}) == (1, 0, 0, 1, 0, 1, 100)


def test_a_low_score_a_survivor_and_an_entry_without_a_survivor_are_wrong():
    killed = [Mutant(Change(MODULE, "", "", ""), "killed")] * 8
    tested = [*killed, Mutant(OTHER, "survived")]
    assert list(mutants.problems(MODULE, tested, {CHANGE})) == [
        f"{MODULE}: 88 % of the mutants are killed, 90 % are required",
        f"{MODULE}: Sum.add: survived\n    - a += 0\n    + a += 1",
        f"{MODULE}: Sum.add: listed as equivalent, but no such mutant survives:\n{mutants.as_diff(CHANGE)}",
    ]
    assert list(mutants.problems(MODULE, tested, {OTHER})) == []
    assert list(mutants.problems("otelwp_agent/other.py", killed, {OTHER})) == []


def test_every_survivor_must_be_listed_even_when_the_score_is_high():
    tested = [*[Mutant(Change(MODULE, "", "", ""), "killed")] * 99, Mutant(OTHER, "no tests")]
    assert list(mutants.problems(MODULE, tested, {})) == [f"{MODULE}: Sum.add: no tests\n    - a += 0\n    + a += 1"]


def test_the_table_is_aligned():
    lines = mutants.table({MODULE: (100, 80, 5, 12, 3, 2, 86)}).splitlines()
    assert lines[0].split() == ["module", *" ".join(mutants.COLUMNS).split()]
    assert lines[1].split() == [MODULE, "100", "80", "5", "12", "3", "2", "86"]
    assert len(lines[0]) == len(lines[1])


@pytest.fixture
def tree(tmp_path):
    """A project with one module of one function and a test that does not notice every change."""
    for path, text in {
        "pyproject.toml": '[tool.pytest.ini_options]\naddopts = "--import-mode=importlib"\n',
        "otelwp_agent/__init__.py": "",
        "otelwp_agent/calc/__init__.py": "",
        MODULE: (
            "def add(a, b):\n    return a + b\n\ndef twice(a):\n    return 2 * a\n\ndef never(a):\n    return not a\n"
        ),
        "tests/calc/test_add.py": (
            "from otelwp_agent.calc.add import add, twice\n"
            "def test_add():\n    assert add(5, 0) == 5\n"
            "def test_twice():\n    assert twice(0) == 0\n"
        ),
        "tests/more/test_more.py": (
            "from otelwp_agent.calc.add import twice\ndef test_twice():\n    assert twice(2) == 4\n"
        ),
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_the_tests_of_a_module_are_its_test_file_and_those_of_its_subjects(tree):
    for path in (
        "otelwp_agent/calc/add_many.py",
        "tests/calc/test_add_many.py",
        "tests/calc/test_add_negative.py",
        "tests/calc/test_adding.py",
        "tests/more/test_add_more.py",
    ):
        (tree / path).write_text("")
    assert mutants.mirrored_tests(MODULE, tree) == ["tests/calc/test_add.py", "tests/calc/test_add_negative.py"]
    assert mutants.mirrored_tests("otelwp_agent/calc/add_many.py", tree) == ["tests/calc/test_add_many.py"]
    (tree / "tests/calc/test_add.py").unlink()
    assert mutants.mirrored_tests(MODULE, tree) == []


@pytest.mark.skipif(importlib.util.find_spec("mutmut") is None, reason="needs mutmut; `make mutants` installs it")
def test_mutants_of_a_project(tree):
    before = sorted(tree.rglob("*"))
    found = mutants.measure(MODULE, ["tests/more"], root=tree)
    assert sorted((each.status, each.change.function, each.change.after) for each in found) == [
        ("killed", "", ""),  # return 2 / a: tests/calc
        ("killed", "twice", "return 3 * a"),  # tests/more alone
        ("no tests", "never", "return a"),
        ("survived", "add", "return a - b"),
    ]
    assert sorted(tree.rglob("*")) == before, "nothing is written into the project"
