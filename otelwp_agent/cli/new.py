"""`otelwp-agent new`: create a package with a new component, its tests and a configuration to run it."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

import click

from otelwp_agent import __version__
from otelwp_agent.component import Kind
from otelwp_agent.components import Catalog
from otelwp_agent.errors import AgentError
from otelwp_agent.model import attribute_levels, attributes, batch, receipt, signal

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")

_KINDS = {
    "processor": (
        "It masks the values of chosen attributes.",
        ".venv/bin/otelwp-agent generate --count 3",
    ),
    "exporter": (
        "It writes one line of JSON for each batch to a file.",
        ".venv/bin/otelwp-agent generate --count 3",
    ),
    "receiver": (
        "It receives lines of text over TCP as log records.",
        'python -c \'import socket; socket.create_connection(("127.0.0.1", 5170)).sendall(b"hello\\n")\'',
    ),
}
"""For each template: a description of the component, and a command that sends data to it."""

_FILES = {
    "package/pyproject.toml": "pyproject.toml",
    "package/README.md": "README.md",
    "{kind}/example.yaml": "example.yaml",
    "{kind}/component.py": "{name}/__init__.py",
    "{kind}/test.py": "tests/test_{name}.py",
}
"""The templates, and the paths of the files that they create in the package."""

_MODULES = {
    "attribute_levels": attribute_levels,
    "attributes": attributes,
    "batch": batch,
    "receipt": receipt,
    "signal": signal,
}
"""Modules that the templates import. The keys are the template variables for the full module names."""


@click.command()
@click.argument("kind", type=click.Choice([*_KINDS]))
@click.argument("name")
@click.option(
    "--directory",
    "-d",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Directory in which to create the package; default: the current directory.",
)
def new(kind: str, name: str, directory: Path) -> None:
    """Create a package with a new component.

    NAME is the component's type in YAML and the name of its Python package, for example `acme_redact`. The package
    contains a working component, tests that check the contracts of every component, an example configuration and a
    README with the commands to run and test it. All tests pass.
    """
    _check(name)
    root = directory / name
    if root.exists():
        raise AgentError(f"{root} exists already: choose another name or --directory, or rename or remove it")
    for path, text in render(kind, name).items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
        click.echo(f"wrote {file}")
    click.echo(f"\nNext: read {root / 'README.md'}")


def render(kind: str, name: str) -> dict[str, str]:
    """Return the files of a package: its relative paths and their contents."""
    summary, try_it = _KINDS[kind]
    values = {
        "kind": kind,
        "type": name,
        "class_": "".join(word.capitalize() for word in name.split("_")),
        "project": name.strip("_").replace("_", "-"),
        "version": __version__,
        "summary": summary,
        "try_it": try_it,
        **{variable: module.__name__ for variable, module in _MODULES.items()},
    }
    templates = files("otelwp_agent.cli") / "templates"
    return {
        target.format(name=name): Template(
            templates.joinpath(f"{source.format(kind=kind)}.tmpl").read_text("utf-8")
        ).substitute(values)
        for source, target in _FILES.items()
    }


def _a(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def _check(name: str) -> None:
    """Raise `click.BadParameter` with the reason and a valid example if `name` cannot be used."""
    problem = ""
    if not _NAME.fullmatch(name) or name.endswith("_"):
        problem = "use lower-case letters, digits and `_`, starting with a letter, like `acme_redact`"
    elif keyword.iskeyword(name) or keyword.issoftkeyword(name):
        problem = "this is a keyword of Python; add a prefix, like `acme_redact`"
    elif kinds := [kind.label for kind in Kind if name in Catalog().names(kind)]:
        problem = f"{_a(kinds[0])} of this type exists; add a prefix, like `acme_{name}`"
    elif name in sys.stdlib_module_names or find_spec(name) is not None:
        problem = f"the package would hide the Python module of this name; add a prefix, like `acme_{name}`"
    if problem:
        raise click.BadParameter(f"{name!r}: {problem}", param_hint="NAME")
