"""Write docs/components/, docs/topics/metrics.md, service.md and a table in security.md from the code.

With `--check`, only report what differs.

A component's page is made from its docstring, its `Config` and its instruments, so that nothing is documented twice.
Run by `make docs` and `make check`.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from importlib import import_module
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING

import docs_limits
from docs_fields import default_words, foreign_words, limits, tier_words, type_words

from otelwp_agent.component import Carries, Effect, Factory, Kind, Reads
from otelwp_agent.components import SHIPPED, Catalog
from otelwp_agent.config.describe import block_of, describe
from otelwp_agent.config.service import ServiceConfig
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.metrics import Instrument
from otelwp_agent.testing.contracts import CONTRACTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pydantic import BaseModel

ROOT = Path(__file__).resolve().parents[1]
PAGES = Path("docs/components")
METRICS = Path("docs/topics/metrics.md")
SERVICE = Path("docs/topics/service.md")
SECURITY = Path("docs/topics/security.md")
CONTRACTS_PAGE = Path("docs/topics/contracts.md")


def generated(source: str) -> str:
    """Return the first line of a generated page."""
    return f"<!-- Written by `make docs` from {source}. Change that, not this. -->\n"


def row(*cells: str) -> str:
    """Return a table row; characters that would end a cell are escaped."""
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, or "" if there are no rows."""
    body = "".join(row(*cells) for cells in rows)
    return row(*head) + row(*["---"] * len(head)) + body if body else ""


# --- blocks of fields ---


def anchor(path: str) -> str:
    """Return the anchor of the heading `path`."""
    return "".join(char for char in path.lower().replace(" ", "-") if char.isalnum() or char in "-_")


def blocks(config: type[BaseModel], path: str, seen: dict[type[BaseModel], str]) -> Iterator[tuple[str, str]]:
    """Yield (path, text) of the tables of a block and of the blocks in it; a repeated block is only linked."""
    seen[config] = path
    describe(config)
    inner: list[tuple[str, type[BaseModel]]] = []
    rows: list[tuple[str, ...]] = []
    foreign: list[tuple[str, ...]] = []
    for name, field in config.model_fields.items():
        if said := foreign_words(field):
            foreign.append((f"`{field.alias or name}`", said))
            continue
        found = block_of(field.annotation)
        words = type_words(field.annotation, field.metadata) + limits(field) + tier_words(field)
        key = field.alias or name
        if found is not None:
            block, step = found
            below = f"{path}.{key}{step}" if path else f"{key}{step}"
            if block not in seen and block not in [each for _, each in inner]:
                inner.append((below, block))
            place = seen.get(block) or next(at for at, each in inner if each is block)
            words = re.sub(r"\bblocks?\b", rf"[\g<0>](#{anchor(place)})", words, count=1)
        rows.append((f"`{key}`", words, default_words(field), cleandoc(field.description or "")))
    yield (
        path,
        "\n".join(
            filter(
                None,
                [
                    table(("key", "type", "default", "description"), rows),
                    table(("the Collector's", "here"), foreign),
                ],
            )
        ),
    )
    for below, block in inner:
        if block not in seen:
            yield from blocks(block, below, seen)


def configuration(config: type[BaseModel]) -> str:
    """Return the section with a component's keys."""
    parts = list(blocks(config, "", {}))
    if not parts[0][1]:
        return "## Configuration\n\nThis component has no settings.\n"
    text = [f"## Configuration\n\n{parts[0][1]}"]
    text += [f"### `{path}`\n\n{body}" if body else f"### `{path}`\n\nHas no keys.\n" for path, body in parts[1:]]
    return "\n".join(text)


# --- docstrings ---


def markdown(docstring: str, language: str = "yaml") -> str:
    """Return a docstring as Markdown: an indented block after `::` becomes a fenced block, ``x`` becomes `x`."""
    out: list[str] = []
    lines = cleandoc(docstring).splitlines()
    position = 0
    while position < len(lines):
        line = lines[position]
        position += 1
        if not line.endswith("::"):
            out.append(line.replace("``", "`"))
            continue
        head = line.removesuffix("::").rstrip()
        if head:
            out.append("## Example" if head == "Example" else f"{head}:")
        end = position
        while end < len(lines) and (not lines[end].strip() or lines[end].startswith(" ")):
            end += 1
        block = textwrap.dedent("\n".join(lines[position:end])).strip("\n")
        fence = language if head.startswith("Example") or looks_like_yaml(block) else "text"
        out += ["", f"```{fence}", *block.splitlines(), "```", ""]
        position = end
    return "\n".join(out).strip().replace("\n\n\n", "\n\n") + "\n"


def looks_like_yaml(block: str) -> bool:
    """Whether a block begins with a section of a configuration file."""
    sections = (*(kind.value for kind in Kind), "service")
    return block.startswith(tuple(f"{section}:" for section in sections))


def summary(docstring: str) -> str:
    """Return the first sentence or line of a docstring."""
    return " ".join(cleandoc(docstring).split("\n\n")[0].split())


# --- pages ---


def page(factory: Factory, docstring: str, source: str) -> str:
    """Return a component's page."""
    facts = [
        ("signals", signals(factory)),
        ("stability", factory.stability.value),
        ("tier", factory.tier.value),
        ("accepts", ACCEPTS[factory.accepts]),
        ("emits", EMITS[factory.encodes]),
        ("reads at most", READS[factory.reads]),
        ("effect", effect_words(factory.effects)),
        ("also known as", ", ".join(f"`{alias}`" for alias in factory.aliases)),
        ("source", f"[{source}](../../../{source})"),
    ]
    if factory.kind in (Kind.RECEIVER, Kind.EXTENSION):
        facts = [(name, value) for name, value in facts if name not in ("accepts", "reads at most")]
    if factory.kind not in (Kind.PROCESSOR, Kind.CONNECTOR):
        facts = [(name, value) for name, value in facts if name != "effect"]
    if factory.kind is Kind.EXTENSION:
        facts = [(name, value) for name, value in facts if name != "signals"]
    parts = [
        generated(source),
        f"# {factory.type} {factory.kind.label}\n",
        table(("", ""), [(name, value) for name, value in facts if value]),
        markdown(docstring),
        configuration(factory.config),
        instruments(factory.instruments),
    ]
    return "\n".join(part for part in parts if part)


def signals(factory: Factory) -> str:
    """Return the signals that a component accepts; for a connector with other output signals, also these."""
    accepted = ", ".join(signal.value for signal in Signal if signal in factory.signals)
    if factory.emits is None or factory.emits == factory.signals:
        return accepted
    return f"{accepted} → {', '.join(signal.value for signal in Signal if signal in factory.emits)}"


ACCEPTS = {
    Carries.PLAIN: "plain bodies",
    Carries.COMPRESSED: "plain and compressed bodies",
    Carries.ENCODED: "plain and encoded bodies",
}
"""The bodies that a component accepts, in words."""

EMITS = {Carries.PLAIN: "", Carries.COMPRESSED: "compressed bodies", Carries.ENCODED: "encrypted bodies"}
"""The bodies that a component emits if it encodes them, in words."""

READS = {
    Reads.NOTHING: "nothing: bodies are forwarded unchanged",
    Reads.OPAQUE: "only the structure: items are not parsed",
    Reads.SHAPE: "the structure, and whether every item parses",
    Reads.RESOURCES: "resources: items are not parsed",
    Reads.KEYS: "ids, times and status of spans: the rest is not parsed",
    Reads.ATTRIBUTES: "attributes, names and ids: the rest is not parsed",
    Reads.FULL: "everything",
}
"""The most that a component reads of a batch, in words."""

EFFECTS = {Effect.EDITS: "edits items", Effect.DROPS: "drops items"}


def effect_words(effects: frozenset[Effect]) -> str:
    """Return what a processor or connector does to items, in words."""
    words = [text for effect, text in EFFECTS.items() if effect in effects]
    return " and ".join(words) if words else "forwards every item unchanged"


def instruments(used: Sequence[Instrument]) -> str:
    """Return the section with a component's own metrics."""
    if not used:
        return ""
    rows = [(f"`{each.name}`", each.kind.value, labels(each), each.help) for each in sorted(used, key=by_name)]
    return "## Metrics\n\n" + table(("name", "type", "labels", "description"), rows)


def labels(instrument: Instrument) -> str:
    """Return the labels of an instrument as a list in words."""
    return ", ".join(f"`{label}`" for label in instrument.labels)


def by_name(instrument: Instrument) -> str:
    """Return the sort key of an instrument: its name."""
    return instrument.name


def index(factories: Sequence[tuple[Factory, str]]) -> str:
    """Return docs/components/README.md."""
    parts = [generated("the components' own files"), "# Components\n"]
    for kind in Kind:
        rows = [
            (
                f"[{factory.type}]({kind.value}/{factory.type}.md)",
                summary(docstring),
                "" if kind is Kind.EXTENSION else signals(factory),
                factory.stability.value,
                factory.tier.value,
            )
            for factory, docstring in factories
            if factory.kind is kind
        ]
        if rows:
            parts.append(f"## {kind.value.capitalize()}\n")
            parts.append(table(("type", "description", "signals", "stability", "tier"), rows))
    return "\n".join(parts)


def declared_instruments() -> dict[str, tuple[Instrument, list[str]]]:
    """Return every instrument of the package by name, with the modules that declare it."""
    found: dict[str, tuple[Instrument, list[str]]] = {}
    for path in sorted((ROOT / "otelwp_agent").rglob("*.py")):
        if not declares_instruments(path):
            continue
        source = path.relative_to(ROOT)
        module = import_module(".".join(source.with_suffix("").parts).removesuffix(".__init__"))
        for each in instruments_in(vars(module).values()):
            found.setdefault(each.name, (each, []))[1].append(source.as_posix())
    return found


def declares_instruments(path: Path) -> bool:
    """Whether a module calls `Instrument` at its top level; only such modules are imported."""
    tree = ast.parse(path.read_text("utf-8"))
    return any(
        isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Instrument")
        for statement in tree.body
        if isinstance(statement, (ast.Assign, ast.AnnAssign))
        for node in ast.walk(statement)
    )


def instruments_in(values: Iterable[object]) -> Iterator[Instrument]:
    """Yield the instruments among `values`, also in nested tuples, lists and maps."""
    for value in values:
        if isinstance(value, Instrument):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from instruments_in(value)
        elif isinstance(value, dict):
            yield from instruments_in(value.values())


def metrics_page() -> str:
    """Return docs/topics/metrics.md."""
    rows = [
        (f"`{name}`", instrument.kind.value, labels(instrument), instrument.help, f"[{where[0]}](../../{where[0]})")
        for name, (instrument, where) in sorted(declared_instruments().items())
    ]
    text = (
        "After reading this page you know the meaning of every metric that the agent publishes about itself.\n\n"
        "```sh\ncurl http://127.0.0.1:8888/metrics\n```\n\n"
        "The agent serves its metrics as Prometheus text on `service.telemetry.metrics.address`, `127.0.0.1:8888` by\n"
        "default, with the path `/metrics`; `none` turns them off. Names and labels are the OpenTelemetry Collector's\n"
        "where it has the same instrument (`otelcol_…`); the other names begin with `otelwp_`. A metric exists only\n"
        "if the configuration contains a component that uses it.\n"
    )
    head = ("name", "type", "labels", "description", "declared in")
    return "\n".join([generated("every `Instrument` in the package"), "# Metrics\n", text, table(head, rows)])


def contracts_page() -> str:
    """Return docs/topics/contracts.md."""
    text = (
        "After reading this page you know the rule and the reason of each contract. `otelwp_agent.testing` checks it;\n"
        "[Writing a component](writing-a-component.md) shows how to check your own component.\n"
    )
    parts = [generated("the docstrings in otelwp_agent/testing/contracts"), "# The contracts of components\n", text]
    for contract in CONTRACTS:
        kinds = [kind.value for kind in Kind if kind in contract.kinds]
        who = "All components." if len(kinds) == len(Kind) else f"{' and '.join(kinds).capitalize()}."
        parts.append(f"## {contract.name}\n\n**{contract.rule}** {who}\n\n{contract.why}\n")
    return "\n".join(parts)


def service_page() -> str:
    """Return docs/topics/service.md."""
    text = (
        "After reading this page you can set what the agent runs, its own logs and metrics, and its journal.\n"
        "[Configuration](configuration.md) describes the rest of the file.\n"
    )
    parts = [
        generated("otelwp_agent/config/service.py"),
        "# The section `service`\n",
        text,
        configuration(ServiceConfig),
    ]
    return "\n".join(parts)


def pages() -> dict[Path, str]:
    """Return the text of every generated page, by path below the root."""
    catalog = Catalog()
    written: dict[Path, str] = {}
    described: list[tuple[Factory, str]] = []
    for kind in Kind:
        for type_ in SHIPPED[kind]:
            factory = catalog.get(kind, type_)
            module = import_module(f"otelwp_agent.{kind.value}.{type_}")
            if factory is None or not module.__doc__ or not module.__file__:
                message = f"{kind.label} {type_} has no factory or no docstring"
                raise TypeError(message)
            source = Path(module.__file__).relative_to(ROOT).as_posix()
            written[PAGES / kind.value / f"{type_}.md"] = page(factory, module.__doc__, source)
            described.append((factory, module.__doc__))
    written[PAGES / "README.md"] = index(described)
    written[METRICS] = metrics_page()
    written[SERVICE] = service_page()
    limits_table = table(docs_limits.HEAD, docs_limits.rows())
    written[SECURITY] = docs_limits.filled((ROOT / SECURITY).read_text("utf-8"), limits_table)
    written[CONTRACTS_PAGE] = contracts_page()
    return written


def main(*, check: bool) -> int:
    """Write the pages that differ; return 1 if `check` and any does."""
    wanted = pages()
    stale = [
        path for path, text in wanted.items() if not (ROOT / path).exists() or (ROOT / path).read_text("utf-8") != text
    ]
    gone = [
        path.relative_to(ROOT) for path in sorted((ROOT / PAGES).rglob("*.md")) if path.relative_to(ROOT) not in wanted
    ]
    for path in [*stale, *gone]:
        if check:
            print(f"{path}:1: differs from the code; run `make docs` to write it")
        elif path in wanted:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(wanted[path], "utf-8")
            print(f"wrote {path}")
        else:
            (ROOT / path).unlink()
            print(f"removed {path}")
    return 1 if check and (stale or gone) else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
