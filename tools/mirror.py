"""Check that a component's file, YAML type, documentation page and test file have the same name.

In addition, every module of the package and every tool must have a test file at the mirrored path
(`otelwp_agent/config/load.py` → `tests/config/test_load.py`), and every test file a module. A folder of modules may
have a single test file (`otelwp_agent/config/blocks/` → `tests/config/test_blocks.py`). A module with many tests may
have more test files, each for one subject (`tests/config/test_load_<subject>.py`). `NO_TEST_FILE` and `NO_MODULE` list
the exceptions with their reasons.

Prints `file:line: problem` and exits 1 if there are problems. Run by `make check`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from otelwp_agent.component import Kind
from otelwp_agent.components import SHIPPED

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path("otelwp_agent")
PARTS = 2
"""Parts of a module's path below the package (`config/load.py`); a path with more is in a folder of modules."""

NO_TEST_FILE = {
    "otelwp_agent/routing/conditions.py": "tests/routing/test_parser.py makes and evaluates each kind of condition",
    "otelwp_agent/routing/facts.py": "data classes and types of values; tests/routing/test_parser.py reads them",
    "otelwp_agent/routing/outlets.py": "interfaces and data classes; tests/routing/test_destinations.py uses them",
    "otelwp_agent/sealing/errors.py": "an exception without behaviour; tests/sealing/test_envelope.py catches it",
    "otelwp_agent/sealing/recipient.py": "a data class without behaviour; tests/sealing/test_envelope.py makes it",
    "otelwp_agent/admin/mounting.py": "an interface; tests/extensions/test_admin_api.py covers it",
    "otelwp_agent/admin/exchange.py": "data classes without behaviour; tests/admin/conftest.py makes them",
    "otelwp_agent/admin/resources/agent_views.py": "data classes; tests/admin/resources/test_plugins.py reads them",
    "otelwp_agent/admin/settings.py": "settings without behaviour; tests/admin/test_server.py covers them",
    "otelwp_agent/pipeline/environment.py": "a data class without behaviour; tests/kit/graphs.py makes it",
    "otelwp_agent/transport/grpc_owner.py": "interfaces; tests/transport/test_grpc_session.py covers them",
    "otelwp_agent/transport/http_session_owner.py": "an interface; tests/transport/test_http_session.py covers it",
    "otelwp_agent/pipeline/plan_types.py": "data classes without behaviour; tests/pipeline/test_plan.py makes them",
    "otelwp_agent/sampling/trace_sampler.py": "an interface; tests/processors/test_adaptive_sampling.py covers it",
    "otelwp_agent/control/access.py": "an interface; tests/extensions/test_control_store.py covers it",
    "otelwp_agent/control/fleet/tables.py": "declarations; tests/control/test_migrations.py compares them with a store",
    "otelwp_agent/control/errors.py": "exceptions without behaviour; tests/control/test_failures.py raises them",
    "otelwp_agent/control/migrations/versions/v0001_initial.py": "tests/control/test_migrations.py runs it",
    "otelwp_agent/control/migrations/versions/v0002_licenses.py": "tests/control/test_migrations.py runs it",
    "otelwp_agent/control/migrations/versions/v0003_fleet.py": "tests/control/test_migrations.py runs it",
    "otelwp_agent/control/migrations/versions/v0004_opamp.py": "tests/control/test_migrations.py runs it",
    "otelwp_agent/model/message.py": "a data class without behaviour; tests/sealing/test_message_memory.py makes it",
    "otelwp_agent/sealing/metrics.py": "declarations of metrics; tests/receivers/test_otlp_sealed.py reads them",
    "otelwp_agent/component/factory.py": "a data class without behaviour; tests/test_contracts.py checks each one",
}
NO_MODULE = {
    "tests/test_contracts.py": "the contracts of all components",
    "tests/test_docs.py": "README.md and docs/",
    "tests/test_fuzz.py": "the fuzz targets in benchmarks/fuzz",
    "tests/e2e": "whole agents",
    "tests/deploy": "the files in deploy/",
    "tests/examples": "the files in examples/",
    "tests/hostile": "whole agents under attack",
    "tests/faults": "the agent's own files, on which each system call fails in turn (tools/faults.py)",
    "tests/chaos": "agents that are killed while a backend fails",
    "tests/sampling/adaptive/test_simulation.py": "the simulation in benchmarks/sampling",
    "tests/sampling/traces/test_native.py": "the extension module, which is C",
    "tests/tenants": "stages that several tenants share while one of them floods them",
    "tests/interop": "agents with real peers",
    "tests/wordpress": "the plugin in examples/wordpress, which is PHP",
}


def modules(root: Path) -> list[Path]:
    """Return every module of the package below `root` that is not generated."""
    return sorted(
        path.relative_to(root)
        for path in (root / PACKAGE).rglob("*.py")
        if path.name != "__init__.py" and not path.name.endswith("_pb2.py")
    )


def test_files(module: Path) -> list[Path]:
    """Return the possible paths of a module's tests: the mirrored path, or the test file of its folder."""
    inside = module.relative_to(PACKAGE) if module.parts[0] == PACKAGE.name else module
    own = Path("tests") / inside.parent / f"test_{module.name}"
    if len(inside.parts) <= PARTS:
        return [own]
    return [own, Path("tests") / inside.parents[1] / f"test_{inside.parent.name}.py"]


def is_subject_of(test: Path, place: Path) -> bool:
    """Return whether `test` has more tests, of one subject, of the module whose test file is `place`."""
    return test.parent == place.parent and test.stem.startswith(place.stem + "_")


def component_problems(root: Path, kind: Kind, types: tuple[str, ...]) -> Iterator[str]:
    """Yield differences between files, types and pages of the components of one kind."""
    folder = PACKAGE / kind.value
    present = {
        path.name.removesuffix(".py")
        for path in (root / folder).glob("*")
        if not path.name.startswith("_") and (path.suffix == ".py" or (path / "__init__.py").exists())
    }
    for type_ in sorted(present - set(types)):
        yield f"{folder}/{type_}.py:1: is not a {kind.label} in otelwp_agent/components.py"
    for type_ in types:
        if type_ not in present:
            yield f"otelwp_agent/components.py:1: {kind.label} {type_} has no {folder}/{type_}.py"
            continue
        page = Path("docs/components") / kind.value / f"{type_}.md"
        if not (root / page).exists():
            yield f"{folder}/{type_}.py:1: has no page {page}; run `make docs` to write it"
    pages = root / "docs/components" / kind.value
    for page in sorted(pages.glob("*.md")):
        if page.stem not in types:
            yield f"{page.relative_to(root)}:1: there is no {kind.label} {page.stem}"


def test_problems(root: Path) -> Iterator[str]:
    """Yield modules without tests, and tests without modules."""
    tools = sorted(path.relative_to(root) for path in (root / "tools").glob("*.py"))
    allowed: set[Path] = set()
    for module in [*modules(root), *tools]:
        places = test_files(module)
        allowed.update(places)
        if module.as_posix() not in NO_TEST_FILE and not any((root / place).exists() for place in places):
            yield f"{module}:1: has no test file {places[-1]}"
    for path in sorted((root / "tests").rglob("test_*.py")):
        test = path.relative_to(root)
        exempt = {test.as_posix(), *(parent.as_posix() for parent in test.parents)} & NO_MODULE.keys()
        if test not in allowed and not exempt and not any(is_subject_of(test, place) for place in allowed):
            yield f"{test}:1: tests no module: there is no file at the mirrored path"
    for path_name in [*NO_TEST_FILE, *NO_MODULE]:
        if not (root / path_name).exists():
            yield f"tools/mirror.py:1: {path_name} is an exception, but does not exist"


def problems(root: Path) -> list[str]:
    """Return all problems below `root`."""
    found = [problem for kind in Kind for problem in component_problems(root, kind, SHIPPED[kind])]
    return [*found, *test_problems(root)]


if __name__ == "__main__":
    wrong = problems(ROOT)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    sys.exit(1 if wrong else 0)
