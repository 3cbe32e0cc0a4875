import pytest

from otelwp_agent.control import pepper
from otelwp_agent.control.errors import PepperError
from otelwp_agent.control.opening import StorePlace


@pytest.fixture
def place(url, tmp_path):
    place = StorePlace(url, str(tmp_path / "pepper"), {})
    yield place
    place.store.close()


def hasher(place):
    with place.store.read() as connection:
        return place.hasher(connection)


def test_the_pepper_is_created_once(place):
    first = place.migrate()
    assert (first.before, first.pepper_created) == (None, True)
    fingerprint = hasher(place).fingerprint()
    again = place.migrate()
    assert (again.before, again.pepper_created) == (first.revision, False)
    assert hasher(place).fingerprint() == fingerprint


def test_a_lost_pepper_is_not_replaced(place):
    place.migrate()
    place.pepper_path.unlink()
    for attempt in (place.migrate, lambda: hasher(place)):
        with pytest.raises(PepperError, match=r"there is no pepper in .*pepper.*restore it from a backup"):
            attempt()
    assert not place.pepper_path.exists()


def test_another_pepper_is_refused(place):
    place.migrate()
    pepper.create(place.pepper_path)
    for attempt in (place.migrate, lambda: hasher(place)):
        with pytest.raises(PepperError, match="is not the pepper that the API keys of this store were created with"):
            attempt()


def test_a_store_that_was_migrated_without_a_pepper(place):
    place.store.migrate()
    with pytest.raises(PepperError, match="create it with `otelwp-agent control migrate`"):
        hasher(place)


def test_the_place_of_the_pepper(tmp_path):
    url = f"sqlite:///{tmp_path}/control.db"
    assert StorePlace(url, "", {}).pepper_path == tmp_path / "control.db.pepper"
    assert StorePlace(url, "other", {pepper.VARIABLE: "x"}).pepper_path.name == "other"
    for place in (StorePlace(url, "", {pepper.VARIABLE: "x"}), StorePlace("postgresql://db/x", "", {})):
        assert place.pepper_path is None
        assert place.pepper_place == "the environment variable OTELWP_CONTROL_PEPPER"


def test_the_pepper_in_the_environment(url):
    place = StorePlace(url, "", {pepper.VARIABLE: "ab" * 32})
    assert not place.migrate().pepper_created
    assert hasher(place).fingerprint()
    place.store.close()
    without = StorePlace(url, "", {})
    with pytest.raises(PepperError, match="there is no pepper"):
        hasher(without)
    without.store.close()


@pytest.mark.parametrize("url", [pytest.param("postgresql", marks=pytest.mark.interop)], indirect=True)
def test_postgresql_needs_a_place_for_the_pepper(url):
    place = StorePlace(url, "", {})
    with pytest.raises(PepperError, match="no place for the pepper is given: give a file"):
        place.migrate()
    place.store.close()
