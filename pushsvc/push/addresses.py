"""Which IP addresses are of the public internet (pure)."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

_RESERVED: Final = tuple(
    map(
        ip_network,
        (
            "192.0.0.0/24",  # protocol assignments; a cloud's metadata are there as well
            "192.88.99.0/24",  # relays of 6to4
            "168.63.129.16/32",  # what a cloud puts beside each of its machines
            "3fff::/20",  # documentation
        ),
    )
)
"""What not every Python that is supported counts as reserved, or none does."""
_UNICAST: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")


def is_public(text: str) -> bool:
    """Whether an IP address may be connected to on behalf of somebody else.

    An IPv6 address that carries an IPv4 address (mapped, 6to4, NAT64, Teredo) is as public as that.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        inner = _embedded(address)
        if inner is not None:
            return all(map(_is_public, inner))
        if address not in _UNICAST:
            return False
    return _is_public(address)


def _embedded(address: IPv6Address) -> tuple[IPv4Address, ...] | None:
    """The IPv4 addresses in an IPv6 address; None where it carries none."""
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    if address in _NAT64:
        return (IPv4Address(int(address) & 0xFFFF_FFFF),)
    return None


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    return (
        address.is_global
        and not address.is_multicast
        and not any(address in each for each in _RESERVED)
    )
