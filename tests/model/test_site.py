import pytest

from otelwp_agent.model.site import OTHER, UNKNOWN, Sites, site_of


@pytest.mark.parametrize(
    ("user_agent", "site"),
    [
        ("WordPress/6.1.9; http://127.0.0.1:8980", "127.0.0.1:8980"),
        ("WordPress/6.5.5; https://Shop.Example/blog", "shop.example"),
        ("WordPress/6.5.5; https://user:secret@shop.example", "shop.example"),
        ("WordPress/6.5.5; https://shop.example?x", "shop.example"),
        ("WordPress/6.5.5", UNKNOWN),
        ("WordPress/6.5.5; ftp://shop.example", UNKNOWN),
        ("WordPress/6.5.5; https://" + "a" * 200, UNKNOWN),
        ("OTel OTLP Exporter PHP/1.2", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_the_site_is_the_host_in_the_user_agent(user_agent, site):
    assert site_of(user_agent) == site


def test_only_so_many_sites_are_told_apart():
    sites = Sites(limit=2)
    names = [sites.name(f"WordPress/6; http://{host}") for host in ("a", "b", "c", "a")]
    assert names == ["a", "b", OTHER, "a"]
    assert sites.name("curl") == UNKNOWN


def test_other_names_are_bounded_with_the_sites():
    sites = Sites(1)
    assert sites.keep("shop") == "shop"
    assert sites.name("WordPress/6.5; http://b.example") == "other"
    assert sites.keep("shop") == "shop"
