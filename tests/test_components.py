from importlib.metadata import EntryPoint

import pytest

from otelwp_agent import components
from otelwp_agent.component import ComponentConfig, Factory, Kind
from otelwp_agent.components import ALIASES, SHIPPED, Catalog

THEIRS = Factory(Kind.PROCESSOR, "acme_redact", ComponentConfig, build=lambda _config, _context: None)
WRONG = "not a factory"


@pytest.fixture
def installed(monkeypatch):
    """Two packages of others: one with a processor, one that names something else."""
    points = [
        EntryPoint("processor:acme_redact", f"{__name__}:THEIRS", components.ENTRY_POINTS),
        EntryPoint("exporter:acme_wrong", f"{__name__}:WRONG", components.ENTRY_POINTS),
        EntryPoint("nonsense", f"{__name__}:THEIRS", components.ENTRY_POINTS),
    ]
    monkeypatch.setattr(EntryPoint, "load", lambda self: globals()[self.value.rpartition(":")[2]])
    monkeypatch.setattr(
        "importlib.metadata.entry_points", lambda group: [point for point in points if point.group == group]
    )


def test_everything_that_ships_can_be_loaded():
    found = {(factory.kind, factory.type) for factory in Catalog().factories()}
    assert {(kind, type_) for kind, types in SHIPPED.items() for type_ in types} <= found


def test_an_alias_is_the_component():
    catalog = Catalog()
    for kind, aliases in ALIASES.items():
        for alias, type_ in aliases.items():
            assert catalog.get(kind, alias) is catalog.get(kind, type_)
            assert alias in catalog.names(kind)
            assert alias not in catalog.types(kind)


def test_an_unknown_type_is_none():
    assert Catalog().get(Kind.EXPORTER, "batch") is None


@pytest.mark.usefixtures("installed")
def test_what_is_installed_joins():
    catalog = Catalog()
    assert "acme_redact" in catalog.types(Kind.PROCESSOR)
    assert catalog.get(Kind.PROCESSOR, "acme_redact") is THEIRS
    assert catalog.get(Kind.EXPORTER, "acme_redact") is None


@pytest.mark.usefixtures("installed")
def test_what_names_no_factory_is_refused():
    with pytest.raises(TypeError, match="exporter acme_wrong: its module names no Factory of that kind"):
        Catalog().get(Kind.EXPORTER, "acme_wrong")
