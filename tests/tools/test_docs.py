from pathlib import Path

from pydantic import Field

import docs
from otelwp_agent.component import ComponentConfig, Effect, Factory, Kind, Reads
from otelwp_agent.config.blocks import Block
from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind

DOCSTRING = """Keep ``x`` items.

It stands anywhere::

    a | b

Example::

    processors:
      keeper:
        limit: 3

And then some.
"""


class Inner(Block):
    depth: int = 1
    """How deep."""


class Config(ComponentConfig):
    limit: int = Field(3, ge=0)
    """Items kept: a | b."""
    first: Inner = Inner()
    """One."""
    second: Inner | None = None
    """Another."""


class Empty(ComponentConfig):
    pass


FACTORY = Factory(
    Kind.PROCESSOR,
    "keeper",
    Config,
    build=lambda _config, _context: None,
    aliases=("holder",),
    instruments=(Instrument("otelwp_kept", "Items kept.", InstrumentKind.COUNTER, ("processor",)),),
)


def test_a_docstring_becomes_markdown():
    assert docs.markdown(DOCSTRING) == (
        "Keep `x` items.\n\nIt stands anywhere:\n\n```text\na | b\n```\n\n"
        "## Example\n\n```yaml\nprocessors:\n  keeper:\n    limit: 3\n```\n\nAnd then some.\n"
    )


def test_a_page_holds_what_the_code_says():
    text = docs.page(FACTORY, DOCSTRING, "otelwp_agent/processors/keeper.py")
    for part in (
        "# keeper processor",
        "| also known as | `holder` |",
        "| signals | traces, metrics, logs |",
        "| `limit` | integer, at least 0 | `3` | Items kept: a \\| b. |",
        "| `second` | [block](#first) |  | Another. |",
        "### `first`\n\n| key | type | default | description |",
        "| `otelwp_kept` | counter | `processor` | Items kept. |",
    ):
        assert part in text
    assert "### `second`" not in text, "a block that was shown is linked, not shown again"


def test_a_component_without_keys_says_so():
    assert "This component has no settings." in docs.configuration(Empty)


def test_the_index_links_the_pages():
    assert "| [keeper](processors/keeper.md) | Keep ``x`` items. |" in docs.index([(FACTORY, DOCSTRING)])


def test_check_tells_what_differs_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    monkeypatch.setattr(docs, "pages", lambda: {Path("docs/components/a.md"): "text\n"})
    stray = tmp_path / "docs/components/stray.md"
    stray.parent.mkdir(parents=True)
    stray.write_text("")

    assert docs.main(check=True) == 1
    assert "docs/components/a.md:1: differs" in capsys.readouterr().out
    assert stray.exists()

    assert docs.main(check=False) == 0
    assert (tmp_path / "docs/components/a.md").read_text() == "text\n"
    assert not stray.exists()
    assert docs.main(check=True) == 0


def test_a_page_says_what_a_stage_reads_and_does_to_items():
    declared = {"reads": Reads.KEYS, "effects": frozenset({Effect.DROPS, Effect.EDITS})}
    page = docs.page(Factory(Kind.PROCESSOR, "sift", Config, object, **declared), "Sift.", "sift.py")
    assert "| reads at most | ids, times and status of spans: the rest is not parsed |" in page
    assert "| effect | edits items and drops items |" in page
    page = docs.page(Factory(Kind.CONNECTOR, "pass", Config, object), "Pass.", "pass.py")
    assert "| effect | forwards every item unchanged |" in page
    page = docs.page(Factory(Kind.RECEIVER, "hear", Config, object), "Hear.", "hear.py")
    assert "effect" not in page
    assert {*docs.READS} == {*Reads}
    assert {*docs.EFFECTS} == {*Effect}


def test_the_page_of_contracts_has_a_section_for_each():
    page = docs.contracts_page()
    for contract in docs.CONTRACTS:
        assert f"## {contract.name}\n\n**{contract.rule}**" in page
    assert "Exporters.\n" in page
