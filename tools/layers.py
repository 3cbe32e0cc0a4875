"""Check the layers: a module may import only from its own layer and from lower ones.

::

    testing → cli → service, replay → pipeline → sending, journal, dead_letters
        → receivers, processors, exporters, connectors, extensions (independent of each other)
        → component, components → admin → sampling, licensing, routing, sealing, statements, at_rest, control, traces
        → codecs → transport → limiting → config → storage → model → telemetry, errors, capacity, fair_share, tier

Imports for type checkers count like any other, because a layer that uses the types of another depends on it. Other
rules are checked too: modules do not import each other in a circle; no two classes share a name; model/ does no I/O;
only transport/grpc_*.py import gRPC; only cli/main.py ends the process; only telemetry/tasks.py starts background
tasks, which it names and whose errors it reports.

Prints `file:line: problem` and exits 1 if there are problems. Run by `make check`.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "otelwp_agent"

KINDS = ("receivers", "processors", "exporters", "connectors", "extensions")
LAYERS: tuple[tuple[str, ...], ...] = (
    ("capacity", "errors", "fair_share", "telemetry", "tier", ""),
    ("model",),
    ("storage",),
    ("config",),
    ("limiting",),
    ("transport",),
    ("codecs",),
    ("sampling", "licensing", "routing", "sealing", "statements", "at_rest", "control", "traces"),
    ("admin",),
    ("component", "components", "component_errors"),
    KINDS,
    ("sending", "journal", "dead_letters"),
    ("pipeline",),
    ("service", "replay"),
    ("cli", "__main__"),
    ("testing",),
)
"""Layers from the lowest to the highest; "" is the package itself, which contains the version."""

RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}

IO_MODULES = frozenset(
    {"asyncio", "grpc", "httptools", "selectors", "socket", "ssl", "subprocess", "threading", "uvloop"}
)
EXITS = frozenset({"sys.exit", "os._exit", "os.abort", "exit", "quit"})
TASK_STARTERS = frozenset({"create_task", "ensure_future"})


def part_of(module: str) -> str:
    """Return the name of a module's top-level part of the package, which belongs to one layer."""
    return [*module.split("."), ""][1]


def component_of(module: str) -> str:
    """Return `kind.type` for the module of a component, "" for any other module."""
    words = module.split(".")
    return ".".join(words[1:3]) if len(words) > 2 and words[1] in KINDS else ""  # noqa: PLR2004 - package, kind, type


def imports(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute name) of every import in a module, at any level."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                words = module.split(".")
                keep = len(words) - node.level + (1 if is_package else 0)
                base = ".".join([*words[:keep], *filter(None, [base])])
            # `from package import name` may import a module; `from module import name` does not. So names of the
            # package and of its parts are extended by the imported name.
            deep = base.count(".") < 2 and base.split(".")[0] == PACKAGE  # noqa: PLR2004 - package.part.module
            yield from ((node.lineno, f"{base}.{alias.name}" if deep else base) for alias in node.names)


def layer_problems(tree: ast.AST, module: str, *, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Yield (line, problem) of imports that break the layers."""
    part = part_of(module)
    if part not in RANK:
        yield 1, f"{PACKAGE}.{part} belongs to no layer: add it to one in tools/layers.py"
        return
    for line, name in imports(tree, module, is_package=is_package):
        top = name.split(".", maxsplit=1)[0]
        if top != PACKAGE:
            if part == "model" and top in IO_MODULES:
                yield line, f"model does no I/O: it must not import {name}"
            if top == "pytest":
                yield line, "pytest is an extra, which an agent at work does not have: no module may import it"
            if top == "grpc" and not module.startswith(f"{PACKAGE}.transport.grpc_"):
                yield line, "only transport/grpc_*.py may import gRPC: it takes memory that HTTP does not need"
            continue
        other = part_of(name)
        if other not in RANK:
            other = ""  # a name of the package itself, such as __version__
        if RANK[other] > RANK[part]:
            yield line, f"{part or PACKAGE} must not import {name}: {other} is in a higher layer"
        theirs, ours = component_of(name), component_of(module)
        if ours and theirs and theirs != ours:
            yield line, f"components are independent: {ours} must not import {name}"


def habit_problems(tree: ast.AST, module: str) -> Iterator[tuple[int, str]]:
    """Yield (line, problem) of calls that are allowed in one module only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, (ast.Call, ast.Name)):
            called = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            name = ast.unparse(called)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
        else:
            continue
        if (name in EXITS or name == "SystemExit") and module != f"{PACKAGE}.cli.main":
            yield node.lineno, f"{name}: only cli/main.py may end the process"
        if name.rpartition(".")[2] in TASK_STARTERS and module != f"{PACKAGE}.telemetry.tasks":
            yield node.lineno, f"{name}: start background tasks with telemetry.tasks.spawn, which logs their exceptions"


def imported_names(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[str]:
    """Yield what a module imports: for `from a import b`, both `a` and `a.b`, because `b` may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                words = module.split(".")
                keep = len(words) - node.level + (1 if is_package else 0)
                base = ".".join([*words[:keep], *filter(None, [base])])
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return each group of modules that import each other, directly or through others, sorted by name.

    `graph` maps each module to the modules that it imports.
    """
    reach = {module: _reachable(graph, module) for module in graph}
    together = {
        module: sorted(other for other in reach[module] if module in reach.get(other, ()))
        for module in graph
        if module in reach[module]
    }
    return sorted({tuple(group): group for group in together.values()}.values())


def _reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """Return every module that `start` imports, directly or through others."""
    found: set[str] = set()
    left = [start]
    while left:
        for module in graph.get(left.pop(), set()) - found:
            found.add(module)
            left.append(module)
    return found


def circle_problems(trees: Mapping[str, tuple[Path, ast.AST]]) -> Iterator[tuple[Path, str]]:
    """Yield (file, problem) for each group of modules that import each other in a circle.

    `trees` maps the name of each module to its file and syntax tree. A package's `__init__` does not count as imported
    by the modules below it.
    """
    graph = {
        module: {
            name
            for name in imported_names(tree, module, is_package=path.name == "__init__.py")
            if name in trees and name != module and trees[name][0].name != "__init__.py"
        }
        for module, (path, tree) in trees.items()
    }
    for group in circles(graph):
        text = f"modules import each other in a circle: {', '.join(group)}; move what they share to a module of its own"
        yield trees[group[0]][0], text


def name_problems(trees: Mapping[str, tuple[Path, ast.AST]]) -> Iterator[tuple[Path, int, str]]:
    """Yield (file, line, problem) for each class that has the name of a class in another module.

    Exempt are the `Config` of each component and the blocks in config/, which have the name of what they configure.
    """
    first: dict[str, str] = {}
    for module, (path, tree) in trees.items():
        if module.startswith(f"{PACKAGE}.config."):
            continue
        for node in tree.body if isinstance(tree, ast.Module) else ():
            if isinstance(node, ast.ClassDef) and node.name != "Config":
                other = first.setdefault(node.name, module)
                if other != module:
                    yield path, node.lineno, f"{other} has a class {node.name} too: give each a name that says which"


def check_source(source: str, module: str, *, is_package: bool = False) -> list[tuple[int, str]]:
    """Return every (line, problem) in the source of one module."""
    tree = ast.parse(source)
    found = {*layer_problems(tree, module, is_package=is_package), *habit_problems(tree, module)}
    return sorted(found)


def main() -> int:
    """Check the package; return 1 if there are problems."""
    found: list[tuple[Path, int, str]] = []
    trees: dict[str, tuple[Path, ast.AST]] = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        if path.name.endswith("_pb2.py"):
            continue
        is_package = path.name == "__init__.py"
        words = path.relative_to(ROOT).with_suffix("").parts
        module = ".".join(words[:-1] if is_package else words)
        source = path.read_text("utf-8")
        trees[module] = path, ast.parse(source)
        found += [(path, line, problem) for line, problem in check_source(source, module, is_package=is_package)]
    found += [(path, 1, problem) for path, problem in circle_problems(trees)]
    found += name_problems(trees)
    for path, line, problem in found:
        print(f"{path.relative_to(ROOT)}:{line}: {problem}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
