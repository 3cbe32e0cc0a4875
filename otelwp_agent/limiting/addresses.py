"""Identify peers by address, and match addresses with lists of networks."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

_V6_NETWORK = 64
"""Prefix length of the IPv6 network that counts as one peer: a host usually has all addresses of a /64."""
_CACHED = 4096
"""Addresses whose key, or whose decision of an `AccessList`, is kept, so that an address is parsed once."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@lru_cache(maxsize=_CACHED)
def peer_key(address: str) -> str:
    """Return the key that identifies a peer: an IPv4 address, or the /64 network of an IPv6 address."""
    if ":" not in address:
        return address
    parsed = ipaddress.IPv6Address(address.partition("%")[0])
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, _V6_NETWORK), strict=False))


def parse_network(text: str) -> Network:
    """Return an address or a network in CIDR notation; raise `ValueError` that says what would be right."""
    try:
        return ipaddress.ip_network(text.strip())
    except ValueError:
        pass
    try:
        network = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        message = f"{text!r} is not an address or network: write it like `192.0.2.7`, `10.0.0.0/8` or `2001:db8::/32`"
        raise ValueError(message) from None
    message = f"{text!r} is an address within the network {network}: write `{network}` for all of it"
    raise ValueError(message)


class Networks:
    """A set of networks. A look-up takes one step for each prefix length in use, however many networks there are."""

    __slots__ = ("_by_length",)

    def __init__(self, networks: list[Network]) -> None:
        """Contain every address of the `networks`."""
        found: dict[tuple[int, int], set[int]] = {}
        for network in networks:
            shift = network.max_prefixlen - network.prefixlen
            found.setdefault((network.version, shift), set()).add(int(network.network_address) >> shift)
        self._by_length = [(version, shift, frozenset(starts)) for (version, shift), starts in found.items()]

    def __contains__(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        """Return whether one of the networks contains `address`."""
        number, family = int(address), address.version
        return any(version == family and number >> shift in starts for version, shift, starts in self._by_length)


class AccessList:
    """Addresses that may connect, and addresses that may not."""

    __slots__ = ("_allow", "_decided", "_deny")

    def __init__(self, allow: list[Network], deny: list[Network]) -> None:
        """Permit the addresses in `allow` (empty: all), except those in `deny`."""
        self._allow = Networks(allow) if allow else None
        self._deny = Networks(deny)
        self._decided: dict[str, bool] = {}

    def permits(self, peer: str) -> bool:
        """Return whether requests of an IP address are permitted; "" is a unix socket, which always is.

        An IPv4 address in an IPv6 address (`::ffff:192.0.2.7`) is matched as IPv4. What is not an address is refused.
        """
        if not peer:
            return True
        decided = self._decided.get(peer)
        if decided is None:
            if len(self._decided) >= _CACHED:
                self._decided.clear()
            decided = self._decided[peer] = self._decide(peer)
        return decided

    def _decide(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        address = address if mapped is None else mapped
        return address not in self._deny and (self._allow is None or address in self._allow)
