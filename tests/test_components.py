from importlib.metadata import EntryPoint

import pytest

from otelwp_agent import components
from otelwp_agent.component import ComponentConfig, Factory, Kind
from otelwp_agent.components import ALIASES, SHIPPED, Catalog
from otelwp_agent.errors import LoadError

THEIRS = Factory(Kind.PROCESSOR, "acme_redact", ComponentConfig, build=lambda _config, _context: None)
WRONG = "not a factory"


@pytest.fixture
def installed(monkeypatch):
    """Packages of others: a good processor, and three that are broken, each in another way."""
    points = [
        EntryPoint("processor:acme_redact", f"{__name__}:THEIRS", components.ENTRY_POINTS),
        EntryPoint("exporter:acme_wrong", f"{__name__}:WRONG", components.ENTRY_POINTS),
        EntryPoint("exporter:acme_other", f"{__name__}:THEIRS", components.ENTRY_POINTS),
        EntryPoint("receiver:acme_missing", f"{__name__}:MISSING", components.ENTRY_POINTS),
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


def test_what_is_installed_joins(installed):
    catalog = Catalog()
    assert "acme_redact" in catalog.types(Kind.PROCESSOR)
    assert catalog.get(Kind.PROCESSOR, "acme_redact") is THEIRS
    assert catalog.get(Kind.EXPORTER, "acme_redact") is None


def test_a_package_that_names_no_factory_is_refused(installed):
    with pytest.raises(LoadError) as caught:
        Catalog().get(Kind.EXPORTER, "acme_wrong")
    assert str(caught.value) == (
        "exporters/acme_wrong: cannot be loaded from `tests.test_components:WRONG`: "
        "that is 'not a factory', not a Factory (otelwp_agent.component.Factory)"
    )


def test_a_package_whose_factory_is_of_another_type_is_refused(installed):
    with pytest.raises(LoadError) as caught:
        Catalog().get(Kind.EXPORTER, "acme_other")
    assert str(caught.value).endswith(
        "its Factory declares `processor:acme_redact`, its entry point `exporter:acme_other`"
    )


def test_a_package_that_cannot_be_imported_is_refused(installed):
    with pytest.raises(LoadError) as caught:
        Catalog().get(Kind.RECEIVER, "acme_missing")
    assert str(caught.value) == (
        "receivers/acme_missing: cannot be loaded from `tests.test_components:MISSING`: KeyError: 'MISSING'"
    )


def test_broken_packages_are_left_out_of_a_list_and_reported(installed):
    broken = []
    found = {factory.type for factory in Catalog().factories(broken.append)}
    assert "acme_redact" in found
    assert [str(error).partition(":")[0] for error in broken] == [
        "receivers/acme_missing",
        "exporters/acme_other",
        "exporters/acme_wrong",
    ]
    with pytest.raises(LoadError):
        list(Catalog().factories())
