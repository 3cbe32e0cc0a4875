"""Hold the layers: a module imports from its own layer and those below, never from above.

::

    testing → cli → service, replay → pipeline → sending, journal, dead_letters
        → receivers, processors, exporters, connectors, extensions (independent of each other)
        → component, components → sampling → codecs → transport → config → storage → model → telemetry, errors, capacity

Imports for type checkers alone count like any other: a layer that knows another's types knows the layer. Four habits
of the house are checked beside: model/ does no I/O, gRPC is imported in transport/grpc_*.py alone, the process ends in
cli/main.py alone, and background tasks begin in telemetry/tasks.py alone, which names them and reports how they end.

Prints `file:line: what is wrong` and exits 1 if anything is. Run by `make check`.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "otelwp_agent"

KINDS = ("receivers", "processors", "exporters", "connectors", "extensions")
LAYERS: tuple[tuple[str, ...], ...] = (
    ("capacity", "errors", "telemetry", ""),
    ("model",),
    ("storage",),
    ("config",),
    ("transport",),
    ("codecs",),
    ("sampling",),
    ("component", "components", "component_errors"),
    KINDS,
    ("sending", "journal", "dead_letters"),
    ("pipeline",),
    ("service", "replay"),
    ("cli", "__main__"),
    ("testing",),
)
"""From the lowest to the highest; "" is the package itself, which holds the version."""

RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}

IO_MODULES = frozenset(
    {"asyncio", "grpc", "httptools", "selectors", "socket", "ssl", "subprocess", "threading", "uvloop"}
)
EXITS = frozenset({"sys.exit", "os._exit", "os.abort", "exit", "quit"})
TASK_STARTERS = frozenset({"create_task", "ensure_future"})


def part_of(module: str) -> str:
    """Return the first word of a module below the package: its layer's part."""
    return [*module.split("."), ""][1]


def component_of(module: str) -> str:
    """Return `kind.type` of a component's module, "" of any other."""
    words = module.split(".")
    return ".".join(words[1:3]) if len(words) > 2 and words[1] in KINDS else ""  # noqa: PLR2004 - package, kind, type


def imports(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute name) of everything that a module imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                words = module.split(".")
                keep = len(words) - node.level + (1 if is_package else 0)
                base = ".".join([*words[:keep], *filter(None, [base])])
            # `from package import name` may import a module; `from module import name` does not. The longer name
            # says more where it matters: at the package and its parts.
            deep = base.count(".") < 2 and base.split(".")[0] == PACKAGE  # noqa: PLR2004 - package.part.module
            yield from ((node.lineno, f"{base}.{alias.name}" if deep else base) for alias in node.names)


def layer_problems(tree: ast.AST, module: str, *, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Yield (line, problem) of imports that break the layers."""
    part = part_of(module)
    if part not in RANK:
        yield 1, f"{PACKAGE}.{part} belongs to no layer: name one for it in tools/layers.py"
        return
    for line, name in imports(tree, module, is_package=is_package):
        top = name.split(".", maxsplit=1)[0]
        if top != PACKAGE:
            if part == "model" and top in IO_MODULES:
                yield line, f"model does no I/O: it must not import {name}"
            if top == "pytest":
                yield line, "pytest is an extra, which an agent at work does not have: no module may import it"
            if top == "grpc" and not module.startswith(f"{PACKAGE}.transport.grpc_"):
                yield line, "gRPC is imported in transport/grpc_*.py alone: it costs memory that HTTP does not need"
            continue
        other = part_of(name)
        if other not in RANK:
            other = ""  # a name of the package itself, such as __version__
        if RANK[other] > RANK[part]:
            yield line, f"{part or PACKAGE} must not import {name}: {other} is a layer above"
        theirs, ours = component_of(name), component_of(module)
        if ours and theirs and theirs != ours:
            yield line, f"components are independent: {ours} must not import {name}"


def habit_problems(tree: ast.AST, module: str) -> Iterator[tuple[int, str]]:
    """Yield (line, problem) of calls that belong to one module alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, (ast.Call, ast.Name)):
            called = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            name = ast.unparse(called)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
        else:
            continue
        if (name in EXITS or name == "SystemExit") and module != f"{PACKAGE}.cli.main":
            yield node.lineno, f"{name}: only cli/main.py ends the process"
        if name.rpartition(".")[2] in TASK_STARTERS and module != f"{PACKAGE}.telemetry.tasks":
            yield node.lineno, f"{name}: start background work with telemetry.tasks.spawn, which reports how it ends"


def check_source(source: str, module: str, *, is_package: bool = False) -> list[tuple[int, str]]:
    """Return every (line, problem) in one module's source."""
    tree = ast.parse(source)
    found = {*layer_problems(tree, module, is_package=is_package), *habit_problems(tree, module)}
    return sorted(found)


def main() -> int:
    """Check the package; return 1 if anything is wrong."""
    status = 0
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        if path.name.endswith("_pb2.py"):
            continue
        is_package = path.name == "__init__.py"
        words = path.relative_to(ROOT).with_suffix("").parts
        module = ".".join(words[:-1] if is_package else words)
        for line, problem in check_source(path.read_text("utf-8"), module, is_package=is_package):
            print(f"{path.relative_to(ROOT)}:{line}: {problem}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
