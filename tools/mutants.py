"""Mutation testing: change the code in small ways and check that a test fails for each change.

`tools/mutants.toml` lists the modules, the tests of each and the accepted equivalent mutants. For each module, this

1. copies the tree to a temporary folder, so that nothing is written into the repository,
2. runs `mutmut` there with the module's mirrored test files, then the survivors again with the module's other tests,
3. prints a line of the table, and every survivor with its diff.

Exits 1 if a module's score is below `REQUIRED_PERCENT`, if a survivor is not listed as equivalent, or if an entry of
the list matches no survivor. The score is the share of killed mutants (a timeout is a kill) among those that are not
equivalent, as usual in mutation testing.

Run by `make mutants`; `MODULES="model/receipt.py sampling"` chooses modules or folders. It takes minutes for each
module: `--max-children` (default 1) runs mutants in parallel, `--fast` omits the second run, `--timeouts` lists what
a timeout has killed, too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirror import is_subject_of, modules, test_files

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_suffix(".toml")
ORDER = Path(__file__).with_name("fastest_first.py")
"""Becomes the `conftest.py` of the copied tree."""
PACKAGE = "otelwp_agent"
REQUIRED_PERCENT = 90

NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "mutants")
SETTINGS = {
    "source_paths": [PACKAGE],
    # The profile is in tools/fastest_first.py.
    "pytest_add_cli_args": ["-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-profile=mutants"],
    "process_isolation": "forkserver",  # gRPC and threads that tests started do not survive a fork
    "timeout_multiplier": 5.0,
    "timeout_constant": 2.0,  # seconds that are added to the duration of the tests, before the multiplication
    "use_git_change_detection": False,
    "track_dependencies": False,
}
"""Configuration of mutmut for every module."""

DIFFS = """
import json, sys
from mutmut.mutation.diff_apply import get_diff_for_mutant
module, *mutants = sys.argv[1:]
print(json.dumps({name: get_diff_for_mutant(name, path=module) for name in mutants}))
"""
"""Prints what mutants change: one process for all, because each start of mutmut takes about a second."""

STATUS = {0: "survived", 5: "no tests", 33: "no tests", 36: "timeout", 24: "timeout", -24: "timeout", 152: "timeout"}
"""mutmut's exit codes of the test run of a mutant; all others mean that the tests failed, so it was killed."""
FAILED_TO_NOTICE = ("survived", "no tests")

COLUMNS = ("mutants", "killed", "timeout", "survived", "no tests", "equivalent", "% killed")


class MutantsError(Exception):
    """A run that is impossible, with the reason; printed without a traceback."""


@dataclass(frozen=True)
class Change:
    """The change of a mutant, identified by text, so that unrelated edits of the module do not matter."""

    module: str
    """Path in the repository."""
    function: str
    """`function` or `Class.method`."""
    before: str
    """The lines that it changes, without indentation."""
    after: str
    """The lines that replace them."""


@dataclass(frozen=True)
class Mutant:
    """One mutant and how the tests reacted to it."""

    change: Change
    status: str


@dataclass(frozen=True)
class Listed:
    """The content of `tools/mutants.toml`."""

    tests: Mapping[str, Sequence[str]]
    """For each module: test files and folders, besides the mirrored test files, that survivors are tested with."""
    equivalent: Mapping[Change, str]
    """Accepted survivors, with the reason why no test can notice them."""


def read_list(path: Path) -> Listed:
    """Read the list at `path`; raise `MutantsError` where it is wrong."""
    content = tomllib.loads(path.read_text("utf-8"))
    equivalent: dict[Change, str] = {}
    for entry in content.get("equivalent", []):
        for change in accepted(entry, path.name):
            if not entry.get("reason", "").strip():
                message = f"{path.name}: the entry for {change.module}, {change.function}, has no reason"
                raise MutantsError(message)
            if change.module not in content["tests"]:
                message = f"{path.name}: {change.module} has an equivalent mutant, but is not listed under [tests]"
                raise MutantsError(message)
            equivalent[change] = entry["reason"].strip()
    return Listed(tests=content["tests"], equivalent=equivalent)


def accepted(entry: Mapping[str, Any], name: str) -> list[Change]:
    """Return the changes that an entry of the file `name` accepts: one, or one for each text in `after`."""
    fields = {key: value for key, value in entry.items() if key not in {"reason", "after"}}
    after = entry.get("after", [])
    try:
        found = [Change(after=text, **fields) for text in ([after] if isinstance(after, str) else after)]
    except TypeError:
        found = []
    if not found:
        message = f"{name}: an entry needs module, function, before, after and reason, but has {', '.join(entry)}"
        raise MutantsError(message)
    return found


def chosen(names: Sequence[str], modules: Collection[str]) -> list[str]:
    """Return the modules that `names` name: a path, or a folder, with or without the package in front."""
    if not names:
        return list(modules)
    found: list[str] = []
    for name in names:
        path = Path(name) if Path(name).parts[0] == PACKAGE else Path(PACKAGE) / name
        matching = [module for module in modules if path == Path(module) or path in Path(module).parents]
        if not matching:
            message = f"{path} is not listed in tools/mutants.toml; listed are: {', '.join(modules)}"
            raise MutantsError(message)
        found += [module for module in matching if module not in found]
    return found


def configuration(module: str, tests: Sequence[str], also_copy: Sequence[str]) -> str:
    """Return the section of pyproject.toml that makes mutmut change `module` and run `tests`."""
    settings = {
        **SETTINGS,
        "only_mutate": [module],
        "also_copy": also_copy,
        "pytest_add_cli_args_test_selection": tests,
    }
    return "\n[tool.mutmut]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())


def function_name(mutant: str, module: str) -> str:
    """Return the function that mutmut's name of a mutant stands for, as `function` or `Class.method`."""
    dotted = module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    mangled = mutant.removeprefix(dotted + ".").partition("__mutmut_")[0]
    if mangled.startswith("x_"):
        return mangled.removeprefix("x_")
    return mangled.removeprefix("xǁ").replace("ǁ", ".")


def changed_lines(diff: str) -> tuple[str, str]:
    """Return what a unified diff removes and what it adds, without indentation."""
    lines = diff.partition("\n@@")[2].splitlines()[1:]
    removed = [line[1:].strip() for line in lines if line.startswith("-")]
    added = [line[1:].strip() for line in lines if line.startswith("+")]
    return "\n".join(removed), "\n".join(added)


class Workspace:
    """A copy of the tree in which mutmut changes one module."""

    def __init__(self, folder: Path, module: str, *, root: Path = ROOT) -> None:
        self._folder = folder / "tree"
        self._module = module
        shutil.copytree(root, self._folder, ignore=NOT_COPIED)
        shutil.copyfile(ORDER, self._folder / "conftest.py")
        self._pyproject = (self._folder / "pyproject.toml").read_text("utf-8")
        self._also_copy = sorted(path.name for path in self._folder.iterdir() if path.name != PACKAGE)

    def run(self, tests: Sequence[str], *, max_children: int, mutants: Sequence[str] = ()) -> dict[str, str]:
        """Run `tests` on the named mutants, or on all of them; return the status of each by mutmut's name."""
        text = self._pyproject + configuration(self._module, tests, self._also_copy)
        (self._folder / "pyproject.toml").write_text(text, "utf-8")
        mutmut = str(Path(sysconfig.get_path("scripts")) / "mutmut")
        self._run(mutmut, "run", "--max-children", str(max_children), *mutants)
        codes = self._exit_codes()
        if not codes:
            message = f"{self._module}: there is nothing to change in it"
            raise MutantsError(message)
        unfinished = [name for name in mutants or codes if codes[name] is None]
        if unfinished:
            message = f"{self._module}: mutmut did not test {', '.join(unfinished)}"
            raise MutantsError(message)
        return {name: STATUS.get(codes[name] or 0, "killed") for name in mutants or codes}

    def changes(self, mutants: Sequence[str]) -> dict[str, Change]:
        """Return what each of these mutants changes."""
        diffs = json.loads(self._run(sys.executable, "-c", DIFFS, self._module, *mutants))
        return {
            name: Change(self._module, function_name(name, self._module), *changed_lines(diff))
            for name, diff in diffs.items()
        }

    def _exit_codes(self) -> dict[str, int | None]:
        meta = json.loads((self._folder / "mutants" / f"{self._module}.meta").read_text("utf-8"))
        return dict(meta["exit_code_by_key"])

    def _run(self, *command: str) -> str:
        ended = subprocess.run(  # noqa: S603 - the mutmut of this environment
            command, cwd=self._folder, capture_output=True, text=True, check=False
        )
        if ended.returncode:
            output = (ended.stdout + ended.stderr).replace("\r", "\n").splitlines()
            message = "\n".join([f"{self._module}: `{' '.join(command)}` failed:", *output[-60:]])
            raise MutantsError(message)
        return ended.stdout


def mirrored_tests(module: str, root: Path) -> list[str]:
    """Return the test file of a module, or of its folder, and those with more tests of one subject."""
    own = next((place for place in test_files(Path(module)) if (root / place).exists()), None)
    if own is None:
        return []
    others = {place for other in modules(root) if other != Path(module) for place in test_files(other)}
    tests = sorted(path.relative_to(root) for path in (root / own.parent).glob("test_*.py"))
    subjects = [test for test in tests if is_subject_of(test, own) and test not in others]
    return [place.as_posix() for place in (own, *subjects)]


def measure(
    module: str,
    more_tests: Sequence[str],
    equivalent: Collection[Change] = (),
    *,
    max_children: int = 1,
    root: Path = ROOT,
) -> list[Mutant]:
    """Return every mutant of a module; those that no test noticed, or only by a timeout, with what they change.

    Survivors of the mirrored test files that are `equivalent` are not tested with `more_tests`.
    """
    mirrored = mirrored_tests(module, root)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        workspace = Workspace(Path(folder), module, root=root)
        statuses = workspace.run(mirrored or more_tests, max_children=max_children)
        changes = workspace.changes([name for name, status in statuses.items() if status != "killed"])
        left = [
            name for name, change in changes.items() if statuses[name] in FAILED_TO_NOTICE and change not in equivalent
        ]
        if left and mirrored and more_tests:
            statuses |= workspace.run([*mirrored, *more_tests], max_children=max_children, mutants=left)
    killed = Change(module, "", "", "")
    return [Mutant(changes.get(name, killed), status) for name, status in statuses.items()]


def row(mutants: Sequence[Mutant], equivalent: Collection[Change]) -> tuple[int, ...]:
    """Return the numbers of `COLUMNS`; the score is rounded down."""
    counts = Counter(mutant.status for mutant in mutants)
    agreed = sum(mutant.status in FAILED_TO_NOTICE and mutant.change in equivalent for mutant in mutants)
    killed = counts["killed"] + counts["timeout"]
    possible = len(mutants) - agreed
    score = 100 * killed // possible if possible else 100
    return (len(mutants), counts["killed"], counts["timeout"], counts["survived"], counts["no tests"], agreed, score)


def problems(module: str, mutants: Sequence[Mutant], equivalent: Collection[Change]) -> Iterator[str]:
    """Yield what is wrong with a module."""
    score = row(mutants, equivalent)[-1]
    if score < REQUIRED_PERCENT:
        yield f"{module}: {score} % of the mutants are killed, {REQUIRED_PERCENT} % are required"
    survivors = [mutant for mutant in mutants if mutant.status in FAILED_TO_NOTICE]
    for mutant in survivors:
        if mutant.change not in equivalent:
            yield f"{module}: {described(mutant)}"
    unused = [change for change in equivalent if change.module == module]
    for change in unused:
        if change not in {mutant.change for mutant in survivors}:
            yield f"{module}: {change.function}: listed as equivalent, but no such mutant survives:\n{as_diff(change)}"


def described(mutant: Mutant) -> str:
    """Return a mutant as text of several lines."""
    return f"{mutant.change.function}: {mutant.status}\n{as_diff(mutant.change)}"


def as_diff(change: Change) -> str:
    """Return the changed lines, each marked with `-` or `+`."""
    before = [f"    - {line}" for line in change.before.splitlines()]
    return "\n".join(before + [f"    + {line}" for line in change.after.splitlines()])


def table(rows: Mapping[str, Sequence[int]]) -> str:
    """Return the table with one line for each module."""
    width = max(len("module"), *(len(module) for module in rows))
    lines = ["  ".join(["module".ljust(width), *COLUMNS])]
    for module, numbers in rows.items():
        cells = [str(number).rjust(len(column)) for number, column in zip(numbers, COLUMNS, strict=True)]
        lines.append("  ".join([module.ljust(width), *cells]))
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Test the chosen modules; return the exit status."""
    parser = argparse.ArgumentParser(description="Change the code in small ways: does a test fail?")
    parser.add_argument(
        "modules", nargs="*", help="paths or folders below otelwp_agent; all listed ones if none is given"
    )
    parser.add_argument("--max-children", type=int, default=1, help="mutants that are tested at the same time")
    parser.add_argument("--fast", action="store_true", help="run the mirrored test files only")
    parser.add_argument("--timeouts", action="store_true", help="also print the mutants that a timeout has killed")
    options = parser.parse_args(arguments)
    rows: dict[str, Sequence[int]] = {}
    wrong: list[str] = []
    try:
        listed = read_list(LIST)
        for module in chosen(options.modules, listed.tests):
            more = () if options.fast else listed.tests[module]
            mutants = measure(module, more, listed.equivalent, max_children=options.max_children)
            rows[module] = row(mutants, listed.equivalent)
            wrong += problems(module, mutants, listed.equivalent)
            print(f"{module}: {rows[module][-1]} % of {len(mutants)} mutants are killed", flush=True)
            if options.timeouts:
                print(*(described(mutant) for mutant in mutants if mutant.status == "timeout"), sep="\n")
    except MutantsError as error:
        wrong.append(str(error))
    for problem in wrong:
        print(problem)
    if rows:
        print(table(rows))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
