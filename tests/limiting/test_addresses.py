import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.limiting import addresses
from otelwp_agent.limiting.addresses import AccessList, Networks, parse_network, peer_key


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_a_peer_is_an_address_or_a_network(address, key):
    assert peer_key(address) == key


@pytest.mark.parametrize("text", ["192.0.2.7", "10.0.0.0/8", "2001:db8::/32", " ::1 ", "0.0.0.0/0"])
def test_addresses_and_networks_are_parsed(text):
    assert parse_network(text) == ipaddress.ip_network(text.strip())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.0.0.1/8", "write `10.0.0.0/8` for all of it"),
        ("2001:db8::1/32", "write `2001:db8::/32` for all of it"),
        ("example.com", "not an address or network"),
        ("10.0.0.0/33", "not an address or network"),
        ("", "not an address or network"),
    ],
)
def test_other_text_is_an_error_that_says_what_would_be_right(text, message):
    with pytest.raises(ValueError, match=message):
        parse_network(text)


v4 = st.ip_addresses(v=4)
networks = st.builds(
    lambda address, length: ipaddress.ip_network(
        (int(address) if address.version == 6 else str(address), length % (address.max_prefixlen + 1)), strict=False
    ),
    st.ip_addresses(),
    st.integers(0, 128),
)


@given(st.lists(networks, max_size=20), st.lists(st.ip_addresses(), min_size=1, max_size=20))
def test_a_set_of_networks_contains_what_one_of_them_contains(members, probes):
    found = Networks(members)
    for address in [*probes, *(network.network_address for network in members)]:
        expected = any(network.version == address.version and address in network for network in members)
        assert (address in found) is expected


def test_deny_is_stronger_than_allow():
    access = AccessList([parse_network("10.0.0.0/8")], [parse_network("10.1.0.0/16"), parse_network("2001:db8::/32")])
    assert access.permits("10.2.0.1")
    assert not access.permits("10.1.0.1")
    assert not access.permits("192.0.2.1")
    assert not access.permits("2001:db8::5")


def test_an_empty_allow_list_permits_all_that_is_not_denied():
    access = AccessList([], [parse_network("192.0.2.0/24")])
    assert access.permits("198.51.100.1")
    assert not access.permits("192.0.2.9")
    assert not access.permits("::ffff:192.0.2.9")
    assert access.permits("")
    assert not access.permits("not an address")
    assert access.permits("fe80::1%eth0")


def test_decisions_are_kept_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(addresses, "_CACHED", 10)
    access = AccessList([], [parse_network("192.0.2.0/24")])
    for number in range(100):
        assert access.permits(f"198.51.100.{number}")
        assert not access.permits(f"192.0.2.{number}")
    assert len(access._decided) <= 10
